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
/// A packet's descriptor is copied out and checked, then its bytes are copied out whole, into
/// private memory; nothing in the ring is looked at twice. The space of received packets is given
/// back all at once by `commit`, which tells whether the peer waits for it and must be signalled.
@safe
public struct RingConsumer<Memory: RingMemory & ~Copyable>: ~Copyable {
  @usableFromInline let memory: Memory
  @usableFromInline let control: RingControl
  /// The data area: `memory.data`, asked once.
  @usableFromInline let data: UnsafeMutableRawPointer
  @usableFromInline let size: Int
  @usableFromInline let trailerCheck: TrailerCheck
  /// Where the next packet starts.
  @usableFromInline var next: Int
  /// What the peer was last told.
  @usableFromInline var committed: Int
  /// Bytes from `next` on that the peer is known to have published.
  @usableFromInline var available: Int

  /// Takes up a ring, with its interrupt masked until `arm`.
  public init(_ memory: consuming Memory, trailerCheck: TrailerCheck = .verify) throws(RingError) {
    let size = try checkedRingSize(memory.dataByteCount)
    // Safe: the memory promises a mapped control page for as long as it lives, and it lives here.
    let control = unsafe RingControl(page: memory.controlPage)
    let own = try checkedIndex(control.consumerIndex.load(), size)
    unsafe self.data = memory.data
    self.memory = memory
    self.control = control
    self.size = size
    self.trailerCheck = trailerCheck
    self.next = own
    self.committed = own
    self.available = 0
    control.interruptMask.store(1)
  }

  /// Copies the next packet out. Returns nil when there is none.
  ///
  /// After an error the ring is corrupt and the channel must end; the consumer stays where it was.
  @_transparent
  public mutating func receive(into buffer: inout PacketBuffer) throws(RingError) -> Packet? {
    if available == 0 {
      available = try publishedByPeer()
      if available == 0 { return nil }
    }
    guard available >= 24 else { throw .truncated(available: available) }

    let start = next
    // Safe: indices are multiples of 8 below `size`.
    let first = unsafe RingMath.load(data + start)
    let dataOffset = Int(truncatingIfNeeded: first >> 13 & 0x7fff8)
    let length = Int(truncatingIfNeeded: first >> 29 & 0x7fff8)

    // A packet with its trailer may not end past the published index. Neither the body nor the
    // capacity is negative: compared as unsigned, they need no second comparison in `payload`.
    let body = length &- 16
    let left = available &- length &- 8
    guard RingMath.isKnown(UInt32(truncatingIfNeeded: first)), length >= dataOffset, left >= 0,
      UInt(bitPattern: body) <= UInt(bitPattern: buffer.capacity), first >> 49 == 0
    else { throw RingSlowPath.fault(first, start, available, buffer.capacity) }

    // The state goes first and the copy second: the next packet's address waits for nothing else.
    available = left
    let end = start &+ length
    let transactionID: UInt64
    let trailer: UInt64
    if end < size {
      next = end &+ 8 == size ? 0 : end &+ 8
      // Safe: descriptor, body and trailer end at or before the end of the data area, and the
      // buffer has room for the body.
      transactionID = unsafe RingMath.load(data + start + 8)
      unsafe RingMath.copy(from: data + start + 16, to: buffer.start, body)
      trailer = unsafe RingMath.load(data + end)
    } else {
      next = end &+ 8 &- size
      transactionID = unsafe RingMath.load(data + (start &+ 8 == size ? 0 : start &+ 8))
      trailer = unsafe RingSlowPath.copy(body, of: start, data, size, to: buffer.start)
    }
    guard trailer >> 32 == UInt64(truncatingIfNeeded: start) || trailerCheck == .ignore else {
      available &+= length &+ 8
      next = start
      throw .badTrailer(offset: UInt32(truncatingIfNeeded: start), found: trailer)
    }
    return Packet(
      type: PacketType(rawValue: UInt16(truncatingIfNeeded: first)),
      completionRequested: first >> 48 != 0, transactionID: transactionID,
      rangesByteCount: dataOffset &- 16, payloadByteCount: length &- dataOffset)
  }

  /// Gives the space of what was received back. Returns whether the peer must be signalled: it
  /// waits for space, had too little before, and has enough now.
  @inlinable
  @inline(__always)
  public mutating func commit() -> Bool {
    let before = committed
    guard next != before else { return false }
    committed = next
    // Store, then load (law 6).
    control.consumerIndex.store(UInt32(truncatingIfNeeded: next))
    // Some peers set the ring's size less one.
    let pending = control.pendingSendSize.load() & ~7
    guard pending != 0 else { return false }
    return RingSlowPath.frees(Int(pending), control, size, from: before, to: next)
  }

  /// Asks for an interrupt at the next packet, and looks once more. Returns true when there is
  /// a packet already: then the caller goes on polling (the mask may stay as it is or be set
  /// again by `mask`), and must not sleep.
  ///
  /// Commit first: a peer signals only when all of its packets were given back. While some were
  /// not, this returns true, so that nobody sleeps who could not be woken.
  @inlinable
  public mutating func arm() throws(RingError) -> Bool {
    control.interruptMask.store(0)
    // The store above, then this load (law 6).
    available = try publishedByPeer()
    return available != 0 || next != committed
  }

  /// Asks for no interrupts while polling.
  @inlinable
  public mutating func mask() { control.interruptMask.store(1) }

  /// Masks again where somebody else has unmasked. Costs a load when nobody has.
  @inlinable
  public mutating func keepMasked() {
    if control.interruptMask.loadRelaxed() == 0 { mask() }
  }

  /// Whether the peer uses `pendingSendSize` (its feature bit).
  public var peerAsksForSpace: Bool { control.featureBits.load() & 1 != 0 }

  public var snapshot: RingSnapshot { RingSnapshot(control) }

  /// Bytes that the peer has published beyond `next`.
  @inlinable
  @inline(__always)
  func publishedByPeer() throws(RingError) -> Int {
    let index = try checkedIndex(control.producerIndex.load(), size)
    return RingMath.distance(from: next, to: index, size)
  }
}

// Safe: see `RingProducer`.
extension RingConsumer: @unchecked Sendable where Memory: Sendable & ~Copyable {}
