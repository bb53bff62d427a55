// SPDX-License-Identifier: Apache-2.0

/// The end of a ring that writes packets.
///
/// Packets are written behind each other and become visible to the peer all at once by `commit`,
/// which tells whether the peer must be signalled; the caller signals. The producer's own index
/// is private: what lies in the shared page is never read again after the start.
public struct RingProducer<Memory: RingMemory & ~Copyable>: ~Copyable {
  @usableFromInline let memory: Memory
  @usableFromInline let control: RingControl
  @usableFromInline let size: UInt32
  /// Where the next packet goes.
  @usableFromInline var next: UInt32
  /// What the peer was last told.
  @usableFromInline var committed: UInt32
  /// The peer's index when it was last read, checked.
  @usableFromInline var peer: UInt32

  /// Takes up a ring that was just opened, or one that this side produced into before.
  ///
  /// Sets the feature bit for `pendingSendSize`; the memory must have been zero before its first
  /// use.
  public init(_ memory: consuming Memory) throws(RingError) {
    let size = try checkedRingSize(memory.dataByteCount)
    // Safe: the memory promises a mapped control page for as long as it lives, and it lives here.
    let control = unsafe RingControl(page: memory.controlPage)
    let own = try checkedIndex(control.producerIndex.load(), size)
    self.peer = try checkedIndex(control.consumerIndex.load(), size)
    self.memory = memory
    self.control = control
    self.size = size
    self.next = own
    self.committed = own
    control.pendingSendSize.store(0)
    control.featureBits.store(1)
  }

  /// Bytes that a packet can take at most (`Packet.byteCount`), even in an empty ring: eight
  /// bytes always stay free, since equal indices mean empty.
  @inlinable public var maximumPacketByteCount: Int { Int(size) &- 8 }

  /// Bytes free as far as this side knows; may be more in truth.
  @inlinable var knownFree: UInt32 {
    (peer > next ? peer &- next : size &- (next &- peer)) &- 8
  }

  /// Writes one packet, invisible to the peer until `commit`.
  ///
  /// - Parameters:
  ///   - ranges: what goes between descriptor and payload, a multiple of 8 bytes; see `GPARanges`.
  ///   - payload: any number of bytes; the padding up to a multiple of 8 is zero, so that nothing
  ///     of our memory is disclosed.
  /// - Throws: `full` or `packetTooLarge`; `badIndex` when the peer corrupted the ring.
  @inlinable
  public mutating func write(
    _ type: PacketType, transactionID: UInt64, completionRequested: Bool = false,
    ranges: RawSpan = RawSpan(), payload: RawSpan
  ) throws(RingError) {
    let length = 16 &+ ranges.byteCount &+ ((payload.byteCount &+ 7) & ~7)
    let needed = length &+ 8
    guard needed <= maximumPacketByteCount, length < 1 << 19, ranges.byteCount & 7 == 0 else {
      throw .packetTooLarge(byteCount: needed, limit: min(maximumPacketByteCount, 1 << 19))
    }
    if needed > Int(knownFree) {
      peer = try checkedIndex(control.consumerIndex.load(), size)
      guard needed <= Int(knownFree) else { throw .full(needed: needed, free: Int(knownFree)) }
    }
    let dataOffset8 = UInt64(truncatingIfNeeded: 16 &+ ranges.byteCount) >> 3
    let length8 = UInt64(truncatingIfNeeded: length) >> 3
    let start = next
    var offset = start
    store(
      UInt64(type.rawValue) | dataOffset8 << 16 | length8 << 32
        | (completionRequested ? 1 << 48 : 0),
      at: &offset)
    store(transactionID, at: &offset)
    if ranges.byteCount > 0 { copy(ranges, to: &offset) }
    copyPadded(payload, to: &offset)
    store(UInt64(start) << 32, at: &offset)
    next = offset
  }

  /// Publishes what was written. Returns whether the peer must be signalled: it had not masked
  /// its interrupt, and it had read all that was published before.
  @inlinable
  public mutating func commit() -> Bool {
    guard next != committed else { return false }
    let before = committed
    committed = next
    // Store, then load: both sequentially consistent, or the peer could mask, look and sleep
    // between them (law 6).
    control.producerIndex.store(next)
    guard control.interruptMask.load() == 0 else { return false }
    return control.consumerIndex.load() == before
  }

  /// Drops what was written since the last `commit`.
  public mutating func revert() { next = committed }

  /// Asks the peer for a signal when `byteCount` bytes are free. Returns true when they are free
  /// already: then nothing was asked, and the caller goes on.
  public mutating func waitForSpace(_ byteCount: Int) throws(RingError) -> Bool {
    guard byteCount <= maximumPacketByteCount else {
      throw .packetTooLarge(byteCount: byteCount, limit: maximumPacketByteCount)
    }
    control.pendingSendSize.store(UInt32(truncatingIfNeeded: byteCount))
    // The store above, then this load: the peer does them the other way round (law 6).
    peer = try checkedIndex(control.consumerIndex.load(), size)
    guard Int(knownFree) >= byteCount else { return false }
    control.pendingSendSize.store(0)
    return true
  }

  /// Takes the wish for a signal back.
  public mutating func stopWaitingForSpace() { control.pendingSendSize.store(0) }

  /// Bytes that a packet may take now.
  public mutating func free() throws(RingError) -> Int {
    peer = try checkedIndex(control.consumerIndex.load(), size)
    return Int(knownFree)
  }

  public var snapshot: RingSnapshot { RingSnapshot(control) }

  // MARK: - Copies. All offsets are our own and below `size`.

  @inlinable
  func store(_ value: UInt64, at offset: inout UInt32) {
    unsafe memory.data.storeBytes(
      of: value.littleEndian, toByteOffset: Int(offset), as: UInt64.self)
    offset &+= 8
    if offset == size { offset = 0 }
  }

  @inlinable
  func copy(_ bytes: RawSpan, to offset: inout UInt32) {
    let count = bytes.byteCount
    let untilEnd = Int(size &- offset)
    // Safe: `write` made sure that so many bytes are free from `offset` on, round the end.
    unsafe bytes.withUnsafeBytes { source in
      let start = unsafe source.baseAddress.unsafelyUnwrapped
      if count <= untilEnd {
        unsafe (memory.data + Int(offset)).copyMemory(from: start, byteCount: count)
      } else {
        unsafe (memory.data + Int(offset)).copyMemory(from: start, byteCount: untilEnd)
        unsafe memory.data.copyMemory(from: start + untilEnd, byteCount: count &- untilEnd)
      }
    }
    offset &+= UInt32(truncatingIfNeeded: count)
    if offset >= size { offset &-= size }
  }

  /// The last word is zeroed before the copy, so that the padding is zero.
  @inlinable
  func copyPadded(_ bytes: RawSpan, to offset: inout UInt32) {
    let count = bytes.byteCount
    guard count > 0 else { return }
    if count & 7 != 0 {
      var last = offset &+ UInt32(truncatingIfNeeded: count & ~7)
      if last >= size { last &-= size }
      store(0, at: &last)
    }
    copy(bytes, to: &offset)
    offset = (offset &+ 7) & ~7
    if offset == size { offset = 0 }
  }
}

/// Ring sizes are our own or the kernel's, and checked once.
@usableFromInline
func checkedRingSize(_ byteCount: Int) throws(RingError) -> UInt32 {
  guard byteCount >= 4096, byteCount < 1 << 31, byteCount & 4095 == 0 else {
    throw .badSize(byteCount)
  }
  return UInt32(byteCount)
}

/// The peer's index, checked at every load: in range and a multiple of 8.
@inlinable
func checkedIndex(_ index: UInt32, _ size: UInt32) throws(RingError) -> UInt32 {
  guard index < size, index & 7 == 0 else { throw .badIndex(index, ringByteCount: Int(size)) }
  return index
}
