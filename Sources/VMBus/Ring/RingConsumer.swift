// SPDX-License-Identifier: Apache-2.0

/// Whether the 8 bytes behind each packet are looked at.
public enum TrailerCheck: Sendable {
  /// They must name the packet's offset, as Hyper-V and Linux write it.
  case verify
  /// The peer is known not to write them (QEMU's VMBus bridge seeks past them).
  case ignore
}

/// The end of a ring that reads packets.
///
/// A packet is copied out whole, into private memory, and then checked; nothing in the ring is
/// looked at twice. The space of received packets is given back all at once by `commit`, which
/// tells whether the peer waits for it and must be signalled.
public struct RingConsumer<Memory: RingMemory & ~Copyable>: ~Copyable {
  @usableFromInline let memory: Memory
  @usableFromInline let control: RingControl
  @usableFromInline let size: UInt32
  @usableFromInline let trailerCheck: TrailerCheck
  /// Where the next packet starts.
  @usableFromInline var next: UInt32
  /// What the peer was last told.
  @usableFromInline var committed: UInt32
  /// The peer's index when it was last read, checked.
  @usableFromInline var peer: UInt32

  /// Takes up a ring, with its interrupt masked until `arm`.
  public init(_ memory: consuming Memory, trailerCheck: TrailerCheck = .verify) throws(RingError) {
    let size = try checkedRingSize(memory.dataByteCount)
    // Safe: the memory promises a mapped control page for as long as it lives, and it lives here.
    let control = unsafe RingControl(page: memory.controlPage)
    let own = try checkedIndex(control.consumerIndex.load(), size)
    self.memory = memory
    self.control = control
    self.size = size
    self.trailerCheck = trailerCheck
    self.next = own
    self.committed = own
    self.peer = own
    control.interruptMask.store(1)
  }

  /// Copies the next packet out. Returns nil when there is none.
  ///
  /// After an error the ring is corrupt and the channel must end; the consumer stays where it was.
  @inlinable
  public mutating func receive(into buffer: inout PacketBuffer) throws(RingError) -> Packet? {
    var available = published
    if available == 0 {
      peer = try checkedIndex(control.producerIndex.load(), size)
      available = published
      if available == 0 { return nil }
    }
    guard available >= 24 else { throw .truncated(available: Int(available)) }

    let start = next
    var offset = start
    let first = load(at: &offset)
    let transactionID = load(at: &offset)
    let type = PacketType(rawValue: UInt16(truncatingIfNeeded: first))
    let dataOffset8 = UInt16(truncatingIfNeeded: first >> 16)
    let length8 = UInt16(truncatingIfNeeded: first >> 32)
    let flags = UInt16(truncatingIfNeeded: first >> 48)

    // A packet with its trailer may not end past the published index.
    guard dataOffset8 >= 2, length8 >= dataOffset8, UInt32(length8) &* 8 &+ 8 <= available else {
      throw .badLength(
        offset: start, length8: length8, dataOffset8: dataOffset8, available: Int(available))
    }
    // Types 6, 7, 9 and 11; the two with ranges have at least 8 bytes of them.
    let known: UInt64 = 1 << 6 | 1 << 7 | 1 << 9 | 1 << 11
    guard type.rawValue < 64, known >> type.rawValue & 1 != 0 else {
      throw .badType(offset: start, type: type.rawValue)
    }
    let hasRanges = type == .gpaDirect || type == .transferPages
    guard !hasRanges || dataOffset8 >= 3 else {
      throw .badLength(
        offset: start, length8: length8, dataOffset8: dataOffset8, available: Int(available))
    }
    guard flags & ~1 == 0 else { throw .badFlags(offset: start, flags: flags) }
    let body = (Int(length8) &- 2) &* 8
    guard body <= buffer.capacity else {
      throw .packetTooLarge(byteCount: body, limit: buffer.capacity)
    }
    copy(body, from: &offset, into: &buffer)
    let trailer = load(at: &offset)
    guard trailer >> 32 == UInt64(start) || trailerCheck == .ignore else {
      throw .badTrailer(offset: start, found: trailer)
    }
    next = offset
    let ranges = (Int(dataOffset8) &- 2) &* 8
    return Packet(
      type: type, completionRequested: flags & 1 != 0, transactionID: transactionID,
      rangesByteCount: ranges, payloadByteCount: body &- ranges)
  }

  /// Gives the space of what was received back. Returns whether the peer must be signalled: it
  /// waits for space, had too little before, and has enough now.
  @inlinable
  public mutating func commit() -> Bool {
    guard next != committed else { return false }
    let before = committed
    committed = next
    // Store, then load (law 6).
    control.consumerIndex.store(next)
    // Some peers set the ring's size less one.
    let pending = control.pendingSendSize.load() & ~7
    guard pending != 0 else { return false }
    let producer = control.producerIndex.load()
    // A corrupt index is found, and reported, by the next `receive`.
    guard producer < size else { return false }
    return free(producer, before) < pending && free(producer, next) >= pending
  }

  /// Asks for an interrupt at the next packet, and looks once more. Returns true when there is
  /// a packet already: then the caller goes on polling (the mask may stay as it is or be set
  /// again by `mask`), and must not sleep.
  @inlinable
  public mutating func arm() throws(RingError) -> Bool {
    control.interruptMask.store(0)
    // The store above, then this load (law 6).
    peer = try checkedIndex(control.producerIndex.load(), size)
    return peer != next
  }

  /// Asks for no interrupts while polling.
  @inlinable
  public mutating func mask() { control.interruptMask.store(1) }

  /// Whether the peer uses `pendingSendSize` (its feature bit).
  public var peerAsksForSpace: Bool { control.featureBits.load() & 1 != 0 }

  public var snapshot: RingSnapshot { RingSnapshot(control) }

  @inlinable var published: UInt32 { peer >= next ? peer &- next : size &- (next &- peer) }

  @inlinable
  func free(_ producer: UInt32, _ consumer: UInt32) -> UInt32 {
    (consumer > producer ? consumer &- producer : size &- (producer &- consumer)) &- 8
  }

  // MARK: - Copies. All offsets are our own and below `size`.

  @inlinable
  func load(at offset: inout UInt32) -> UInt64 {
    let value = unsafe memory.data.load(fromByteOffset: Int(offset), as: UInt64.self)
    offset &+= 8
    if offset == size { offset = 0 }
    return UInt64(littleEndian: value)
  }

  @inlinable
  func copy(_ count: Int, from offset: inout UInt32, into buffer: inout PacketBuffer) {
    let untilEnd = Int(size &- offset)
    // Safe: the caller checked `count` against the published bytes and the buffer.
    if count <= untilEnd {
      unsafe buffer.start.copyMemory(from: memory.data + Int(offset), byteCount: count)
    } else {
      unsafe buffer.start.copyMemory(from: memory.data + Int(offset), byteCount: untilEnd)
      unsafe (buffer.start + untilEnd).copyMemory(from: memory.data, byteCount: count &- untilEnd)
    }
    offset &+= UInt32(truncatingIfNeeded: count)
    if offset >= size { offset &-= size }
  }
}
