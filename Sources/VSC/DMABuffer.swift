// SPDX-License-Identifier: Apache-2.0

/// A buffer that a device may read and write, with one owner: while the device has it, nobody
/// else does (law 3). It belongs to one worker.
///
/// Sending it marks it as lent. Until `takeBack` says that the device is done, dropping it does
/// not free it: its memory then stays out of use until the device is closed.
@safe
public struct DMABuffer<Memory: Visibility>: ~Copyable {
  @usableFromInline let core: UnsafeMutablePointer<DMAPoolCore>
  @usableFromInline var place: DMAPlace
  /// Bytes from the start that may be other than zero.
  @usableFromInline var used = 0
  /// The device has it.
  @inlinable public var isLent: Bool { place.isLent }

  @inlinable
  init(core: UnsafeMutablePointer<DMAPoolCore>, _ place: DMAPlace) {
    unsafe self.core = core
    self.place = place
  }

  @inlinable
  deinit {
    // Safe: the core outlives its last buffer, and only this worker touches it.
    if isLent {
      unsafe core.pointee.lose(place)
    } else {
      if unsafe used > 0 && core.pointee.scrubs {
        _ = unsafe start.initializeMemory(as: UInt8.self, repeating: 0, count: used)
        unsafe core.pointee.statistics.scrubbed &+= UInt64(truncatingIfNeeded: used)
      }
      unsafe core.pointee.push(place)
    }
    if unsafe core.pointee.isOrphaned { unsafe DMAPoolCore.releaseIfUnused(core) }
  }

  @inlinable public var byteCount: Int { unsafe core.pointee.byteCount(place) }

  @inlinable var start: UnsafeMutableRawPointer {
    unsafe core.pointee.start + Int(place.granule) << 9
  }

  /// The guest page numbers of the buffer, one for each 4096 bytes, the first one's included.
  @inlinable var pageNumbers: UnsafePointer<GPN> {
    unsafe core.pointee.pageNumbers + Int(place.granule >> 3)
  }

  /// Bytes into the first page: other than 0 only for a buffer that lies within one page.
  @inlinable var byteOffset: UInt32 { (place.granule & 7) &<< 9 }

  /// The content. The device does not have the buffer now, but host-visible memory may change
  /// all the same: copy out, then validate.
  @inlinable
  public var bytes: RawSpan {
    @_lifetime(borrow self)
    get {
      unsafe _overrideLifetime(RawSpan(_unsafeStart: start, byteCount: byteCount), borrowing: self)
    }
  }

  /// Bytes from the start up to `count` may be other than zero; there are so many.
  @inlinable
  mutating func use(_ count: Int) { used = max(used, count) }

  /// Changes the first `count` bytes, at most all of them.
  @inlinable
  public mutating func withMutableBytes<Result: ~Copyable, Failure: Error>(
    _ count: Int, _ body: (inout MutableRawSpan) throws(Failure) -> Result
  ) throws(Failure) -> Result {
    let count = min(max(count, 0), byteCount)
    use(count)
    var span = unsafe MutableRawSpan(_unsafeStart: start, byteCount: count)
    return try body(&span)
  }

  // MARK: - Copies

  /// Copies bytes into the buffer, from `offset` on: as many as fit.
  @inlinable
  public mutating func copyIn(_ source: RawSpan, at offset: Int = 0) {
    let offset = min(max(offset, 0), byteCount)
    let count = min(source.byteCount, byteCount &- offset)
    guard count > 0 else { return }
    use(offset &+ count)
    unsafe core.pointee.statistics.copiedIn &+= UInt64(truncatingIfNeeded: count)
    unsafe source.withUnsafeBytes { bytes in
      if let from = bytes.baseAddress {
        unsafe (start + offset).copyMemory(from: from, byteCount: count)
      }
    }
  }

  /// Copies the buffer's first bytes out: as many as `target` holds.
  @inlinable
  public func copyOut(into target: inout MutableRawSpan) {
    let count = min(target.byteCount, byteCount)
    unsafe core.pointee.statistics.copiedOut &+= UInt64(truncatingIfNeeded: count)
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
    let count = min(target.byteCount, byteCount &- offset)
    unsafe core.pointee.statistics.copiedOut &+= UInt64(truncatingIfNeeded: count)
    // Beyond what was used nothing is other than zero.
    let scrubbed =
      unsafe core.pointee.scrubs ? min(max(used &- offset, 0), count) : 0
    unsafe core.pointee.statistics.scrubbed &+= UInt64(truncatingIfNeeded: scrubbed)
    unsafe target.withUnsafeMutableBytes { bytes in
      guard let to = bytes.baseAddress else { return }
      let from = unsafe start + offset
      var done = 0
      while done < scrubbed {
        // Measured beside memcpy, 1 MiB of buffers: pieces of 512 cost 1.4, of 2048 1.6; two passes 1.7.
        let piece = min(scrubbed &- done, 512)
        unsafe (to + done).copyMemory(from: from + done, byteCount: piece)
        unsafe (from + done).initializeMemory(as: UInt8.self, repeating: 0, count: piece)
        done &+= piece
      }
      if done < count {
        unsafe (to + done).copyMemory(from: from + done, byteCount: count &- done)
      }
    }
    if scrubbed > 0, offset &+ scrubbed == used {
      used = offset
    }
  }

  /// Makes bytes zero, from `offset` on: as many of `count` as there are. Where free memory is zero
  /// anyway, only those that were used are touched.
  public mutating func clear(from offset: Int, count: Int) {
    let offset = min(max(offset, 0), byteCount)
    var count = min(max(count, 0), byteCount &- offset)
    if unsafe core.pointee.scrubs { count = min(count, max(used &- offset, 0)) }
    _ = unsafe (start + offset).initializeMemory(as: UInt8.self, repeating: 0, count: count)
  }

  // MARK: - The device's use

  /// Where the device finds byte 0 of the buffer, and from its second page on each page: for a device that
  /// is told addresses. Its queue lends the buffer with them.
  @inlinable
  package func deviceAddress(ofPage index: Int) -> UInt64 {
    let pages = (byteCount &+ Int(byteOffset) &+ 4095) >> 12
    precondition(index >= 0 && index < pages)
    let page = unsafe pageNumbers[index] &<< 12
    return index == 0 ? page | UInt64(byteOffset) : page
  }

  /// The device gets `count` bytes, to read or to write.
  @inlinable
  package mutating func lend(_ count: Int) {
    use(count)
    place.isLent = true
  }

  /// The device is done with the buffer: its completion has been seen.
  @inlinable
  public mutating func takeBack() { place.isLent = false }
}
