// SPDX-License-Identifier: Apache-2.0

import NetworkProtocol
import VSC

/// One packet of the host, whose ranges are frames that are in use here.
@usableFromInline
struct ReceiveSlot {
  /// The host's word, which goes back to it and is looked at by nobody.
  @usableFromInline var transactionID: UInt64 = 0
  /// Frames that are in use, and one more while the packet is being read.
  @usableFromInline var users: UInt32 = 0
  @usableFromInline var status = NVSPStatus.success.rawValue

  @inlinable
  init(transactionID: UInt64 = 0, users: UInt32 = 0) {
    self.transactionID = transactionID
    self.users = users
  }
}

/// A further part of a coalesced frame.
@usableFromInline
struct ReceiveSegment {
  @usableFromInline var offset: UInt32
  @usableFromInline var byteCount: UInt32
  @usableFromInline var next: UInt32

  @inlinable
  init(offset: UInt32, byteCount: UInt32, next: UInt32) {
    self.offset = offset
    self.byteCount = byteCount
    self.next = next
  }
}

/// What a queue shares with the frames that it has handed out. Only the queue's worker touches it.
///
/// A packet of the host is completed exactly once: when its last frame has been let go of, it goes to the
/// list of those to be completed, and its slot is free again when the completion is in the ring.
@safe
@usableFromInline
struct ReceiveCore: ~Copyable {
  // First, since each queue has its own: Swift 6.3.1 tells ThreadSanitizer that a change of any field
  // is one of what the first field points to.
  @usableFromInline let slots: UnsafeMutablePointer<ReceiveSlot>
  /// The receive buffer.
  @usableFromInline let base: UnsafeMutableRawPointer
  /// Keeps the receive buffer.
  let owner: any AnyObject & Sendable
  /// Whether frames are zeroed where they lie before the host has their memory again: where it sees that and
  /// not all the rest.
  @usableFromInline let scrubs: Bool
  @usableFromInline var scrubbed: UInt64 = 0
  @usableFromInline let free: UnsafeMutablePointer<UInt32>
  @usableFromInline var freeCount: Int
  @usableFromInline let slotCount: Int
  /// Slots to be completed, in the order in which they were let go of: a circle.
  @usableFromInline let done: UnsafeMutablePointer<UInt32>
  @usableFromInline var doneStart = 0
  @usableFromInline var doneCount = 0
  @usableFromInline let segments: UnsafeMutablePointer<ReceiveSegment>
  @usableFromInline var freeSegment: UInt32
  /// Frames in use.
  @usableFromInline var handedOut = 0
  @usableFromInline var isOrphaned = false

  /// The receive buffer's id, as Linux has it: each packet of the host names it.
  @inlinable static var bufferID: UInt16 { 0xCAFE }
  /// No segment.
  @inlinable static var none: UInt32 { .max }

  /// - Parameter slotCount: packets of the host at one time.
  init(
    _ base: UnsafeMutableRawPointer, _ owner: any AnyObject & Sendable, slotCount: Int, scrubs: Bool
  ) {
    self.scrubs = scrubs
    unsafe self.base = base
    self.owner = owner
    self.slotCount = slotCount
    unsafe slots = .allocate(capacity: slotCount)
    unsafe slots.initialize(repeating: ReceiveSlot(), count: slotCount)
    unsafe free = .allocate(capacity: slotCount)
    for index in 0..<slotCount {
      unsafe (free + index).initialize(to: UInt32(slotCount - 1 - index))
    }
    freeCount = slotCount
    unsafe done = .allocate(capacity: slotCount)
    unsafe done.initialize(repeating: 0, count: slotCount)
    let segmentCount = 4096
    unsafe segments = .allocate(capacity: segmentCount)
    for index in 0..<segmentCount {
      unsafe (segments + index).initialize(
        to: ReceiveSegment(
          offset: 0, byteCount: 0,
          next: index + 1 < segmentCount ? UInt32(index + 1) : Self.none))
    }
    freeSegment = 0
  }

  deinit {
    unsafe slots.deallocate()
    unsafe free.deallocate()
    unsafe done.deallocate()
    unsafe segments.deallocate()
  }

  /// Takes a slot for a packet that is being read. There is one.
  @inlinable
  mutating func begin(_ transactionID: UInt64) -> UInt32 {
    freeCount &-= 1
    let slot = unsafe free[freeCount]
    unsafe slots[Int(slot)] = ReceiveSlot(transactionID: transactionID, users: 1)
    return slot
  }

  /// A frame is no longer in use: nobody reads it any more.
  @inlinable
  mutating func scrub(_ offset: UInt32, _ byteCount: UInt32) {
    scrubbed &+= UInt64(byteCount)
    // Safe: the frame was found to lie in the buffer.
    _ = unsafe (base + Int(offset)).initializeMemory(
      as: UInt8.self, repeating: 0, count: Int(byteCount))
  }

  @inlinable
  mutating func scrubSegments(from first: UInt32) {
    var index = first
    while index != Self.none {
      let segment = unsafe segments[Int(index)]
      scrub(segment.offset, segment.byteCount)
      index = segment.next
    }
  }

  /// One user fewer; the last one has it completed.
  @inlinable
  mutating func release(_ slot: UInt32) {
    let index = Int(slot)
    unsafe slots[index].users &-= 1
    guard unsafe slots[index].users == 0 else { return }
    var end = doneStart &+ doneCount
    if end >= slotCount { end &-= slotCount }
    unsafe done[end] = slot
    doneCount &+= 1
  }

  /// The slot that is to be completed first. There is one.
  @inlinable var firstDone: ReceiveSlot { unsafe slots[Int(done[doneStart])] }

  /// Its completion is in the ring.
  @inlinable
  mutating func popDone() {
    unsafe free[freeCount] = done[doneStart]
    freeCount &+= 1
    doneStart &+= 1
    if doneStart == slotCount { doneStart = 0 }
    doneCount &-= 1
  }

  @inlinable
  mutating func takeSegment(_ offset: UInt32, _ byteCount: UInt32) -> UInt32? {
    let index = freeSegment
    guard index != Self.none else { return nil }
    unsafe freeSegment = segments[Int(index)].next
    unsafe segments[Int(index)] = ReceiveSegment(
      offset: offset, byteCount: byteCount, next: Self.none)
    return index
  }

  @inlinable
  mutating func freeSegments(from first: UInt32) {
    var index = first
    while index != Self.none {
      let next = unsafe segments[Int(index)].next
      unsafe segments[Int(index)].next = freeSegment
      freeSegment = index
      index = next
    }
  }

  @usableFromInline
  static func freeIfUnused(_ core: UnsafeMutablePointer<ReceiveCore>) {
    guard unsafe core.pointee.isOrphaned && core.pointee.handedOut == 0 else { return }
    unsafe core.deinitialize(count: 1)
    unsafe core.deallocate()
  }
}

/// The queue's end of it: frames that outlive the queue keep the core.
@safe
@usableFromInline
struct ReceiveCoreOwner: ~Copyable {
  @usableFromInline let core: UnsafeMutablePointer<ReceiveCore>

  init(
    _ base: UnsafeMutableRawPointer, _ owner: any AnyObject & Sendable, slotCount: Int, scrubs: Bool
  ) {
    unsafe core = .allocate(capacity: 1)
    unsafe core.initialize(to: ReceiveCore(base, owner, slotCount: slotCount, scrubs: scrubs))
  }

  @usableFromInline
  deinit {
    unsafe core.pointee.isOrphaned = true
    unsafe ReceiveCore.freeIfUnused(core)
  }
}
