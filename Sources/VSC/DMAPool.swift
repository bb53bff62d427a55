// SPDX-License-Identifier: Apache-2.0

/// The DMA memory of one worker, of one visibility, out of which buffers of any size are taken. Where
/// the host sees this memory and nothing else of the machine, it is the worker's bounce pool.
///
/// It is made of blocks as large as the largest buffer. A smaller buffer is a piece of a block that is
/// cut up: a power of two, from 512 bytes on, so that it fills whole pages or crosses none. The block
/// is whole again when its last piece is back. No buffer ties up more than one block: so a pool with as
/// many blocks as there are requests at one time has always room, and one with fewer blocks is full
/// only while requests are under way, whose completions make room.
///
/// A buffer that goes out of use comes back by itself. If the host could see it, what it could see is
/// zeroed first, so that free host-visible memory is always zero (law 2).
@safe
public struct DMAPool<Memory: Visibility>: ~Copyable {
  @usableFromInline let core: UnsafeMutablePointer<DMAPoolCore>
  /// Bytes of the largest buffer, a multiple of 4096.
  public let bufferByteCount: Int

  /// - Parameters:
  ///   - pages: for this pool alone, which its transport keeps until the device is closed.
  ///   - bufferByteCount: a multiple of 4096, below 4 GiB.
  package init(_ pages: DMAPages, bufferByteCount: Int) {
    self.bufferByteCount = bufferByteCount
    unsafe core = .allocate(capacity: 1)
    // Encrypted memory hides what is in it by itself.
    let scrubs = pages.isScrubbed && Memory.memory == .hostVisible
    unsafe core.initialize(
      to: DMAPoolCore(pages, blockByteCount: bufferByteCount, scrubs: scrubs))
  }

  deinit {
    unsafe core.pointee.isOrphaned = true
    unsafe DMAPoolCore.releaseIfUnused(core)
  }

  /// Whether the host sees this memory and not the rest of the machine: data must be copied there and
  /// back, and does not stay. Else it may be built and used where it is.
  public var isBounced: Bool { unsafe core.pointee.scrubs }

  /// Whether the machine has memory that the host does not see.
  public var isIsolated: Bool { isBounced || Memory.memory == .encrypted }

  /// Buffers of the largest size that can be taken now.
  @inlinable public var available: Int { unsafe core.pointee.freeCount }

  public var statistics: DMAStatistics { unsafe core.pointee.currentStatistics }

  /// Zeroes memory of the same visibility that is not the pool's and comes back from the device, if
  /// the host could see it. The caller has that memory for itself.
  @unsafe
  @inlinable
  public mutating func scrub(_ start: UnsafeMutableRawPointer, byteCount: Int) {
    guard unsafe core.pointee.scrubs && byteCount > 0 else { return }
    unsafe core.pointee.statistics.scrubbed &+= UInt64(truncatingIfNeeded: byteCount)
    _ = unsafe start.initializeMemory(as: UInt8.self, repeating: 0, count: byteCount)
  }

  /// A buffer of the largest size, or nil when there is none: a completion has to be waited for.
  /// Host-visible ones are all zero.
  @inlinable
  public mutating func take() -> DMABuffer<Memory>? {
    guard let place = unsafe core.pointee.popBlock() else { return nil }
    return unsafe DMABuffer(core: core, place)
  }

  /// A buffer of at least `byteCount` bytes and not much more, or nil when there is no room for it
  /// now, or never: no buffer is larger than `bufferByteCount`. Host-visible ones are all zero.
  @inlinable
  public mutating func take(_ byteCount: Int) -> DMABuffer<Memory>? {
    guard let place = unsafe core.pointee.pop(byteCount) else { return nil }
    return unsafe DMABuffer(core: core, place)
  }
}
