// SPDX-License-Identifier: Apache-2.0

/// The end of a ring that writes packets.
///
/// Packets are written behind each other and become visible to the peer all at once by `commit`,
/// which tells whether the peer must be signalled; the caller signals. The producer's own index
/// is private: what lies in the shared page is never read again after the start.
@safe
public struct RingProducer<Memory: RingMemory & ~Copyable>: ~Copyable {
  @usableFromInline let memory: Memory
  @usableFromInline let control: RingControl
  /// The data area: `memory.data`, asked once.
  @usableFromInline let data: UnsafeMutableRawPointer
  @usableFromInline let size: Int
  /// Bytes that a packet can take at most (`Packet.byteCount`), even in an empty ring.
  public let maximumPacketByteCount: Int
  /// Where the next packet goes.
  @usableFromInline var next: Int
  /// What the peer was last told.
  @usableFromInline var committed: Int
  /// The peer's index when it was last read, checked.
  @usableFromInline var peer: Int
  /// Bytes free from `next` on, as far as this side knows, or fewer; never more than the largest
  /// packet has, so that one comparison tells both.
  @usableFromInline var room: Int

  /// Takes up a ring that was just opened, or one that this side produced into before.
  ///
  /// Sets the feature bit for `pendingSendSize`; the memory must have been zero before its first
  /// use.
  public init(_ memory: consuming Memory) throws(RingError) {
    let size = try checkedRingSize(memory.dataByteCount)
    // Safe: the memory promises a mapped control page for as long as it lives, and it lives here.
    let control = unsafe RingControl(page: memory.controlPage)
    let own = try checkedIndex(control.producerIndex.load(), size)
    let peer = try checkedIndex(control.consumerIndex.load(), size)
    unsafe self.data = memory.data
    self.memory = memory
    self.control = control
    self.size = size
    self.maximumPacketByteCount = RingMath.maximumPacketByteCount(size)
    self.next = own
    self.committed = own
    self.peer = peer
    self.room = min(size - 8 - RingMath.distance(from: peer, to: own, size), maximumPacketByteCount)
    control.pendingSendSize.store(0)
    control.featureBits.store(1)
  }

  /// Writes one packet, invisible to the peer until `commit`.
  ///
  /// - Parameters:
  ///   - ranges: what goes between descriptor and payload, a multiple of 8 bytes; see `GPARanges`.
  ///   - payload: any number of bytes; the padding up to a multiple of 8 is zero, so that nothing
  ///     of our memory is disclosed.
  /// - Throws: `full`, `packetTooLarge` or `unalignedRanges`, which leave the ring as it was;
  ///   `badIndex` or `indexMovedBack` when the peer corrupted the ring.
  @inlinable
  @inline(__always)
  public mutating func write(
    _ type: PacketType, transactionID: UInt64, completionRequested: Bool = false,
    ranges: RawSpan = RawSpan(), payload: RawSpan
  ) throws(RingError) {
    let dataOffset = 16 &+ ranges.byteCount
    let length = (dataOffset &+ payload.byteCount &+ 7) & ~7
    let needed = length &+ 8
    if needed > room || ranges.byteCount & 7 != 0 {
      peer = try control.makeRoom(
        needed, ranges: ranges.byteCount, size, peer: peer, committed: committed, next: next)
      room = min(
        size &- 8 &- RingMath.distance(from: peer, to: next, size), maximumPacketByteCount)
    }
    let first =
      UInt64(type.rawValue) | UInt64(truncatingIfNeeded: dataOffset) << 13
      | UInt64(truncatingIfNeeded: length) << 29 | (completionRequested ? 1 << 48 : 0)
    let start = next
    let end = start &+ needed
    room &-= needed
    if end <= size {
      next = end == size ? 0 : end
      // Safe: the bytes from `start` to `end` are within the data area, and free.
      unsafe RingMath.store(first, data + start)
      unsafe RingMath.store(transactionID, data + start + 8)
      if ranges.byteCount > 0 { unsafe RingMath.copyRanges(ranges, to: data + start + 16) }
      if payload.byteCount & 7 != 0 { unsafe RingMath.store(0, data + end - 16) }
      unsafe RingMath.copy(payload, to: data + start + dataOffset)
      unsafe RingMath.store(UInt64(truncatingIfNeeded: start) << 32, data + end - 8)
    } else {
      next = end &- size
      unsafe RingSlowPath.write(first, transactionID, ranges, payload, data, size, start)
    }
  }

  /// Publishes what was written. Returns whether the peer must be signalled: it had not masked
  /// its interrupt, and it had read all that was published before.
  @inlinable
  @inline(__always)
  public mutating func commit() -> Bool {
    let before = committed
    guard next != before else { return false }
    committed = next
    // Store, then load: both sequentially consistent, or the peer could mask, look and sleep
    // between them (law 6).
    control.producerIndex.store(UInt32(truncatingIfNeeded: next))
    guard control.interruptMask.load() == 0 else { return false }
    return control.consumerIndex.load() == UInt32(truncatingIfNeeded: before)
  }

  /// Drops what was written since the last `commit`.
  public mutating func revert() {
    room = min(
      room &+ RingMath.distance(from: committed, to: next, size), maximumPacketByteCount)
    next = committed
  }

  /// Asks the peer for a signal when `byteCount` bytes are free. Returns true when they are free
  /// already: then nothing is asked, and the caller goes on.
  ///
  /// Commit first: a peer that has not seen the packets cannot make room for more. The wish
  /// stands until it is granted here or taken back.
  public mutating func waitForSpace(_ byteCount: Int) throws(RingError) -> Bool {
    guard byteCount <= maximumPacketByteCount else {
      throw .packetTooLarge(byteCount: byteCount, limit: maximumPacketByteCount)
    }
    // Rounded up, since peers round it down to a multiple of 8 and would signal too early, and
    // then, as the ring is not too full any more, never again.
    let wish = (max(byteCount, 0) &+ 7) & ~7
    control.pendingSendSize.store(UInt32(truncatingIfNeeded: wish))
    // The store above, then this load: the peer does them the other way round (law 6).
    guard try free() >= wish else { return false }
    control.pendingSendSize.store(0)
    return true
  }

  /// Takes the wish for a signal back.
  public mutating func stopWaitingForSpace() { control.pendingSendSize.store(0) }

  /// Bytes that a packet may take now.
  public mutating func free() throws(RingError) -> Int {
    peer = try RingSlowPath.consumerIndex(control, size, peer, committed)
    let free = size &- 8 &- RingMath.distance(from: peer, to: next, size)
    room = min(free, maximumPacketByteCount)
    return free
  }

  public var snapshot: RingSnapshot { RingSnapshot(control) }
}

// Safe: an end is one value that cannot be copied; whoever holds it is alone with it, and what it
// shares with the peer is made for two threads.
extension RingProducer: @unchecked Sendable where Memory: Sendable & ~Copyable {}
