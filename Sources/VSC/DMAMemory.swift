// SPDX-License-Identifier: Apache-2.0

/// Memory for DMA as a transport hands it out: mapped here, with the number of each of its pages.
///
/// The device owns it until all its channels are closed and known to be quiet (law 3).
@safe
public struct DMAPages: @unchecked Sendable {
  /// Page-aligned, all zero when it is handed out.
  public let start: UnsafeMutableRawPointer
  /// A multiple of 4096.
  public let byteCount: Int
  /// One guest page number for each 4096 bytes.
  public let pageNumbers: UnsafePointer<GPN>
  /// False where everything is visible to the host anyway, so that hiding what was there is in
  /// vain.
  public let isScrubbed: Bool
  /// Keeps the mapping.
  public let owner: any AnyObject & Sendable

  /// The transport promises that the mapping and the numbers stay as they are while `owner` lives.
  @unsafe
  public init(
    start: UnsafeMutableRawPointer, byteCount: Int, pageNumbers: UnsafePointer<GPN>,
    isScrubbed: Bool, owner: any AnyObject & Sendable
  ) {
    unsafe self.start = start
    self.byteCount = byteCount
    unsafe self.pageNumbers = pageNumbers
    self.isScrubbed = isScrubbed
    self.owner = owner
  }
}

/// Buffers of one size and one visibility, for one worker.
///
/// A buffer that goes out of use comes back by itself; if the host could see it, it is zeroed
/// first, so that free host-visible memory is always zero (law 2).
@safe
public struct DMAPool<Memory: Visibility>: ~Copyable {
  @usableFromInline let core: UnsafeMutablePointer<DMAPoolCore>
  /// Bytes of each buffer, a multiple of 4096.
  public let bufferByteCount: Int

  /// Cuts pages into buffers.
  ///
  /// - Parameter bufferByteCount: a multiple of 4096.
  init(_ pages: DMAPages, bufferByteCount: Int) {
    self.bufferByteCount = bufferByteCount
    unsafe core = .allocate(capacity: 1)
    unsafe core.initialize(to: DMAPoolCore(pages, bufferByteCount: bufferByteCount))
  }

  deinit {
    unsafe core.pointee.isOrphaned = true
    unsafe DMAPoolCore.releaseIfUnused(core)
  }

  /// Whether what was in a buffer is hidden before the buffer is used again: false where the host
  /// sees all memory anyway.
  public var isScrubbed: Bool { unsafe core.pointee.pages.isScrubbed }

  /// Buffers that can be taken now.
  @inlinable public var available: Int { unsafe core.pointee.freeCount }

  /// A buffer, or nil when all are in use. Host-visible ones are all zero.
  @inlinable
  public mutating func take() -> DMABuffer<Memory>? {
    guard let index = unsafe core.pointee.pop() else { return nil }
    return unsafe DMABuffer(core: core, index: index)
  }
}

/// What a pool and its buffers share. Only the pool's worker touches it.
@safe
@usableFromInline
struct DMAPoolCore: ~Copyable {
  @usableFromInline let pages: DMAPages
  @usableFromInline let bufferByteCount: Int
  @usableFromInline let free: UnsafeMutablePointer<UInt32>
  @usableFromInline var freeCount: Int
  let count: Int
  /// Buffers that were dropped while the device had them: they never come back.
  @usableFromInline var lostCount = 0
  var isOrphaned = false

  init(_ pages: DMAPages, bufferByteCount: Int) {
    self.pages = pages
    self.bufferByteCount = bufferByteCount
    count = pages.byteCount / bufferByteCount
    unsafe free = .allocate(capacity: max(count, 1))
    for index in 0..<count {
      unsafe (free + index).initialize(to: UInt32(count - 1 - index))
    }
    freeCount = count
  }

  deinit { unsafe free.deallocate() }

  @inlinable
  mutating func pop() -> UInt32? {
    guard freeCount > 0 else { return nil }
    freeCount &-= 1
    return unsafe free[freeCount]
  }

  @inlinable
  mutating func push(_ index: UInt32) {
    unsafe free[freeCount] = index
    freeCount &+= 1
  }

  @usableFromInline
  static func releaseIfUnused(_ core: UnsafeMutablePointer<DMAPoolCore>) {
    guard unsafe core.pointee.isLastOfOrphan else { return }
    unsafe core.deinitialize(count: 1)
    unsafe core.deallocate()
  }

  @usableFromInline var isLastOfOrphan: Bool {
    isOrphaned && freeCount &+ lostCount == count
  }
}

/// A buffer that a device may read and write, with one owner: while the device has it, nobody
/// else does (law 3). It belongs to one worker.
///
/// Sending it marks it as lent. Until `takeBack` says that the device is done, dropping it does
/// not free it: its memory then stays out of use until the device is closed.
@safe
public struct DMABuffer<Memory: Visibility>: ~Copyable {
  @usableFromInline let core: UnsafeMutablePointer<DMAPoolCore>
  @usableFromInline let index: UInt32
  /// Bytes from the start that may be other than zero.
  @usableFromInline var usedByteCount: Int
  /// The device has it.
  @usableFromInline var lent = false
  @inlinable public var isLent: Bool { lent }

  @inlinable
  init(core: UnsafeMutablePointer<DMAPoolCore>, index: UInt32) {
    unsafe self.core = core
    self.index = index
    usedByteCount = 0
  }

  @inlinable
  deinit {
    // Safe: the core outlives its last buffer, and only this worker touches it.
    guard !lent else {
      unsafe core.pointee.lostCount &+= 1
      if unsafe core.pointee.isLastOfOrphan { unsafe DMAPoolCore.releaseIfUnused(core) }
      return
    }
    if unsafe usedByteCount > 0 && core.pointee.pages.isScrubbed {
      _ = unsafe start.initializeMemory(as: UInt8.self, repeating: 0, count: usedByteCount)
    }
    unsafe core.pointee.push(index)
    if unsafe core.pointee.isLastOfOrphan { unsafe DMAPoolCore.releaseIfUnused(core) }
  }

  @inlinable public var byteCount: Int { unsafe core.pointee.bufferByteCount }

  @inlinable var start: UnsafeMutableRawPointer {
    unsafe core.pointee.pages.start + Int(index) &* core.pointee.bufferByteCount
  }

  /// The guest page numbers of the buffer, one for each 4096 bytes.
  @inlinable var pageNumbers: UnsafePointer<GPN> {
    unsafe core.pointee.pages.pageNumbers
      + (Int(index) &* core.pointee.bufferByteCount) >> 12
  }

  /// The content. The device does not have the buffer now, but host-visible memory may change
  /// all the same: copy out, then validate.
  @inlinable
  public var bytes: RawSpan {
    @_lifetime(borrow self)
    get {
      unsafe _overrideLifetime(RawSpan(_unsafeStart: start, byteCount: byteCount), borrowing: self)
    }
  }

  /// Changes the first `count` bytes, at most all of them.
  @inlinable
  public mutating func withMutableBytes<Result: ~Copyable, Failure: Error>(
    _ count: Int, _ body: (inout MutableRawSpan) throws(Failure) -> Result
  ) throws(Failure) -> Result {
    let count = min(max(count, 0), byteCount)
    usedByteCount = max(usedByteCount, count)
    var span = unsafe MutableRawSpan(_unsafeStart: start, byteCount: count)
    return try body(&span)
  }

  /// Copies bytes to the start of the buffer: as many as fit.
  @inlinable
  public mutating func copyIn(_ source: RawSpan) {
    let count = min(source.byteCount, byteCount)
    usedByteCount = max(usedByteCount, count)
    unsafe source.withUnsafeBytes { bytes in
      if let from = bytes.baseAddress {
        unsafe start.copyMemory(from: from, byteCount: count)
      }
    }
  }

  /// Copies the buffer's first bytes out: as many as `target` holds.
  @inlinable
  public func copyOut(into target: inout MutableRawSpan) {
    let count = min(target.byteCount, byteCount)
    unsafe target.withUnsafeMutableBytes { bytes in
      if let to = bytes.baseAddress {
        unsafe to.copyMemory(from: start, byteCount: count)
      }
    }
  }

  /// Moves bytes out of the buffer, from `offset` on: as many as `target` holds. Where free memory
  /// has to be zero they are zeroed on the way, while the cache has them: a second pass over a
  /// large buffer would fetch all of it once more.
  public mutating func moveOut(from offset: Int, into target: inout MutableRawSpan) {
    let offset = min(max(offset, 0), byteCount)
    let count = min(target.byteCount, byteCount - offset)
    let scrubs = unsafe core.pointee.pages.isScrubbed
    unsafe target.withUnsafeMutableBytes { bytes in
      guard let to = bytes.baseAddress else { return }
      let from = unsafe start + offset
      var done = 0
      while done < count {
        // Measured beside memcpy, 1 MiB of buffers: pieces of 512 cost 1.4, of 2048 1.6; two passes 1.7.
        let piece = min(count &- done, 512)
        unsafe (to + done).copyMemory(from: from + done, byteCount: piece)
        if scrubs {
          unsafe (from + done).initializeMemory(as: UInt8.self, repeating: 0, count: piece)
        }
        done &+= piece
      }
    }
    if scrubs, offset &+ count >= usedByteCount { usedByteCount = min(usedByteCount, offset) }
  }

  /// The device gets `count` bytes, to read or to write.
  @inlinable
  mutating func lend(_ count: Int) {
    usedByteCount = max(usedByteCount, count)
    lent = true
  }

  /// The device is done with the buffer: its completion has been seen.
  @inlinable
  public mutating func takeBack() { lent = false }
}
