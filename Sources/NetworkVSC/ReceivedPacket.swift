// SPDX-License-Identifier: Apache-2.0

public import NetworkProtocol
import VSC

/// A frame in the receive buffer. Dropping it gives the memory back to the host, with the next `publish`
/// of its queue: zeroed, where the host sees it and not the rest of the machine. It belongs to the queue's worker.
///
/// The host can change the bytes at any time: copy them out, then validate the copy.
@safe
public struct ReceivedPacket: ~Copyable {
  @usableFromInline let core: UnsafeMutablePointer<ReceiveCore>
  @usableFromInline let slot: UInt32
  @usableFromInline let offset: UInt32
  @usableFromInline let firstByteCount: UInt32
  @usableFromInline let next: UInt32
  /// Bytes of the whole frame.
  public let byteCount: Int
  /// Parts that the frame lies in: more than one only where the host made it of several.
  public let segmentCount: Int
  /// What the host says of it.
  public let info: PerPacketInfo

  @inlinable
  init(
    core: UnsafeMutablePointer<ReceiveCore>, slot: UInt32, offset: UInt32, firstByteCount: UInt32,
    next: UInt32, byteCount: Int, segmentCount: Int, info: PerPacketInfo
  ) {
    unsafe self.core = core
    self.slot = slot
    self.offset = offset
    self.firstByteCount = firstByteCount
    self.next = next
    self.byteCount = byteCount
    self.segmentCount = segmentCount
    self.info = info
    unsafe core.pointee.slots[Int(slot)].users &+= 1
    unsafe core.pointee.handedOut &+= 1
  }

  @inlinable
  deinit {
    // Safe: the core outlives its last frame, and only this worker touches it.
    if unsafe core.pointee.scrubs {
      unsafe core.pointee.scrub(offset, firstByteCount)
      if next != ReceiveCore.none { unsafe core.pointee.scrubSegments(from: next) }
    }
    if next != ReceiveCore.none { unsafe core.pointee.freeSegments(from: next) }
    unsafe core.pointee.release(slot)
    unsafe core.pointee.handedOut &-= 1
    if unsafe core.pointee.isOrphaned { unsafe ReceiveCore.freeIfUnused(core) }
  }

  @inlinable public var isCoalesced: Bool { segmentCount > 1 }

  /// The first segment: the whole frame, unless it is coalesced. Its headers lie here.
  @inlinable
  public var bytes: RawSpan {
    @_lifetime(borrow self)
    get {
      // Safe: the range was found to lie in the buffer, which lives as long as this.
      unsafe _overrideLifetime(
        RawSpan(
          _unsafeStart: UnsafeRawPointer(core.pointee.base + Int(offset)),
          byteCount: Int(firstByteCount)), borrowing: self)
    }
  }

  /// Calls `body` for each segment, in the order of the frame.
  @inlinable
  public func forEachSegment<Failure: Error>(
    _ body: (RawSpan) throws(Failure) -> Void
  ) throws(Failure) {
    try body(bytes)
    var index = next
    while index != ReceiveCore.none {
      let segment = unsafe core.pointee.segments[Int(index)]
      unsafe try body(
        RawSpan(
          _unsafeStart: UnsafeRawPointer(core.pointee.base + Int(segment.offset)),
          byteCount: Int(segment.byteCount)))
      index = segment.next
    }
  }

  /// Copies the whole frame out, or as much as fits.
  ///
  /// - Returns: bytes copied.
  @inlinable
  @discardableResult
  public func copy(into target: inout MutableRawSpan) -> Int {
    unsafe target.withUnsafeMutableBytes { target in
      var done = 0
      guard let start = target.baseAddress else { return 0 }
      let limit = target.count
      forEachSegment { segment in
        unsafe segment.withUnsafeBytes { bytes in
          let count = min(bytes.count, limit &- done)
          if count > 0, let from = bytes.baseAddress {
            unsafe (start + done).copyMemory(from: from, byteCount: count)
            done &+= count
          }
        }
      }
      return done
    }
  }
}

/// Received frames, as many as a queue had and there was room for.
@safe
public struct ReceiveBurst: ~Copyable {
  @usableFromInline let packets: UnsafeMutablePointer<ReceivedPacket>
  @usableFromInline var start = 0
  @usableFromInline var used = 0
  public let capacity: Int

  public init(capacity: Int = 32) {
    self.capacity = max(capacity, 1)
    unsafe packets = .allocate(capacity: self.capacity)
  }

  @inlinable
  deinit {
    for index in 0..<used { unsafe (packets + place(index)).deinitialize(count: 1) }
    unsafe packets.deallocate()
  }

  /// Frames in it now.
  @inlinable public var count: Int { used }
  @inlinable public var isEmpty: Bool { used == 0 }
  @inlinable public var isFull: Bool { used == capacity }

  @inlinable
  func place(_ index: Int) -> Int {
    let place = start &+ index
    return place >= capacity ? place &- capacity : place
  }

  /// Calls `body` with each frame, from the first on, and drops it then.
  @inlinable
  public mutating func drain<Failure: Error>(
    _ body: (borrowing ReceivedPacket) throws(Failure) -> Void
  ) throws(Failure) {
    while used > 0 {
      let index = start
      start = place(1)
      used &-= 1
      // Safe: the frame has left the burst, and is dropped here whatever happens.
      defer { unsafe (packets + index).deinitialize(count: 1) }
      unsafe try body(packets[index])
    }
  }

  /// The frame that came first, for one who keeps it. Pass it to a function before you look at its bytes:
  /// the compiler puts a variable on the heap that a span was taken of.
  @inlinable
  public mutating func popFirst() -> ReceivedPacket? {
    guard used > 0 else { return nil }
    let packet = unsafe (packets + start).move()
    start = place(1)
    used &-= 1
    return packet
  }

  /// There is room for it.
  @inlinable
  mutating func append(_ packet: consuming ReceivedPacket) {
    unsafe (packets + place(used)).initialize(to: packet)
    used &+= 1
  }
}
