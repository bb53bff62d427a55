// SPDX-License-Identifier: Apache-2.0

public import NetworkProtocol
public import PacketIO
import Platform
import Synchronization
import SystemPackage

/// What goes with a frame beside its bytes.
public struct FrameInfo: Equatable, Sendable {
  public var byteCount: Int
  /// What is left to do to it.
  public var offload = FrameOffload()
  /// The 802.1Q tag that is not in the frame's bytes.
  public var vlan: VLANInfo?
  /// What it was spread over queues by, and what of it that is; none where it was not.
  public var hashValue: UInt32 = 0
  public var hash: RSSHash = []

  public init(
    byteCount: Int, offload: FrameOffload = FrameOffload(), vlan: VLANInfo? = nil
  ) {
    self.byteCount = byteCount
    self.offload = offload
    self.vlan = vlan
  }

  /// Bytes of the largest frame: an IP packet of 64 KiB, an Ethernet header and a tag.
  public static let maximumByteCount = 65535 + 18
}

/// Frames on their way to one channel of a guest: any thread puts some in, one takes them out.
///
/// A bounded queue without a lock: each place has a number that says whose turn it is. What does not
/// fit is dropped, as in any switch. This is a plain address; the memory belongs to a
/// `FrameQueueOwner`.
@safe
struct FrameQueue: @unchecked Sendable {
  /// Behind it lie the places.
  @safe
  fileprivate struct Control: ~Copyable {
    let tail = Atomic<Int>(0)
    let isWaiting = Atomic<Bool>(false)
    let dropped = Atomic<UInt64>(0)
    var head = 0
    let event: Int32
    let mask: Int
    let places: UnsafeMutableRawPointer
  }

  private let control: UnsafeMutablePointer<Control>

  fileprivate init(_ control: UnsafeMutablePointer<Control>) { unsafe self.control = control }

  /// Bytes of a place: its number, the frame's info, and the frame.
  static let stride = (maximumFrame + frameOffset + 63) & ~63
  private static let maximumFrame = FrameInfo.maximumByteCount
  private static let infoOffset = 8
  private static let frameOffset = 128

  // MARK: - Any thread

  /// Copies a frame in. Returns false, and counts it, if there is no room.
  func push(_ frame: RawSpan, _ info: FrameInfo) -> Bool {
    guard frame.byteCount <= Self.maximumFrame else { return false }
    var position = unsafe control.pointee.tail.load(ordering: .relaxed)
    while true {
      let place = unsafe place(position)
      let turn = unsafe number(place).pointee.load(ordering: .acquiring)
      if turn == position {
        let (won, current) = unsafe control.pointee.tail.weakCompareExchange(
          expected: position, desired: position &+ 1, ordering: .relaxed)
        guard won else {
          position = current
          continue
        }
        // Safe: the place is this thread's until its number says otherwise, and has the room.
        unsafe (place + Self.infoOffset).storeBytes(of: info, as: FrameInfo.self)
        unsafe frame.withUnsafeBytes { bytes in
          guard let start = bytes.baseAddress else { return }
          unsafe (place + Self.frameOffset).copyMemory(from: start, byteCount: bytes.count)
        }
        // Then the look whether somebody sleeps: a store, then a load (law 6).
        unsafe number(place).pointee.store(position &+ 1, ordering: .sequentiallyConsistent)
        wake()
        return true
      }
      guard turn > position else {
        unsafe control.pointee.dropped.add(1, ordering: .relaxed)
        return false
      }
      position = unsafe control.pointee.tail.load(ordering: .relaxed)
    }
  }

  private func wake() {
    guard unsafe control.pointee.isWaiting.load(ordering: .sequentiallyConsistent),
      unsafe control.pointee.isWaiting.exchange(false, ordering: .sequentiallyConsistent)
    else { return }
    unsafe EventDescriptor.signal(control.pointee.event)
  }

  /// Whether so many frames more find room, or half of all, unless others put some in.
  func hasRoom(_ count: Int) -> Bool {
    let count = min(count, unsafe control.pointee.mask / 2)
    let position = unsafe control.pointee.tail.load(ordering: .relaxed) &+ count
    // Places are given back in order. One that is ahead is so because others have put frames in.
    return unsafe number(place(position)).pointee.load(ordering: .acquiring) >= position
  }

  /// Frames that found no room.
  var dropped: UInt64 { unsafe control.pointee.dropped.load(ordering: .relaxed) }

  // MARK: - The one who takes out

  /// The oldest frame, which stays until `release`.
  func next() -> FrameInfo? {
    let head = unsafe control.pointee.head
    let place = unsafe place(head)
    guard unsafe number(place).pointee.load(ordering: .acquiring) == head &+ 1 else { return nil }
    return unsafe (place + Self.infoOffset).load(as: FrameInfo.self)
  }

  /// The bytes of the frame that `next` has told of.
  @unsafe
  func frame(_ byteCount: Int) -> UnsafeMutableRawBufferPointer {
    unsafe UnsafeMutableRawBufferPointer(
      start: place(control.pointee.head) + Self.frameOffset,
      count: min(max(byteCount, 0), Self.maximumFrame))
  }

  /// Gives the place of the oldest frame back.
  func release() {
    let head = unsafe control.pointee.head
    unsafe control.pointee.head = head &+ 1
    unsafe number(place(head)).pointee.store(
      head &+ control.pointee.mask &+ 1, ordering: .releasing)
  }

  /// Asks for the event when a frame comes. Returns true when one is there.
  func arm() -> Bool {
    unsafe control.pointee.isWaiting.store(true, ordering: .sequentiallyConsistent)
    let head = unsafe control.pointee.head
    return unsafe number(place(head)).pointee.load(ordering: .sequentiallyConsistent)
      == head &+ 1
  }

  func disarm() { unsafe control.pointee.isWaiting.store(false, ordering: .relaxed) }

  // MARK: - Places

  @unsafe
  private func place(_ position: Int) -> UnsafeMutableRawPointer {
    unsafe control.pointee.places + (position & control.pointee.mask) &* Self.stride
  }

  @unsafe
  private func number(_ place: UnsafeMutableRawPointer) -> UnsafeMutablePointer<Atomic<Int>> {
    unsafe place.assumingMemoryBound(to: Atomic<Int>.self)
  }

  /// Allocates a queue's memory. Untouched places take no memory.
  fileprivate static func allocate(_ capacity: Int, event: Int32) -> FrameQueue {
    let places = UnsafeMutableRawPointer.allocate(byteCount: capacity * stride, alignment: 64)
    for index in 0..<capacity {
      // Safe: each number is the first word of its place.
      unsafe (places + index * stride).bindMemory(to: Atomic<Int>.self, capacity: 1)
        .initialize(to: Atomic(index))
    }
    let control = UnsafeMutablePointer<Control>.allocate(capacity: 1)
    unsafe control.initialize(to: Control(event: event, mask: capacity - 1, places: places))
    return unsafe FrameQueue(control)
  }

  fileprivate func deallocate() {
    unsafe control.pointee.places.deallocate()
    unsafe control.deinitialize(count: 1)
    unsafe control.deallocate()
  }
}

/// Owns the memory and the event of a queue, longer than anybody has its address.
final class FrameQueueOwner: Sendable {
  let queue: FrameQueue
  let event: EventDescriptor

  /// - Parameter capacity: a power of two of frames.
  init(capacity: Int) throws(Errno) {
    let event = try EventDescriptor()
    queue = .allocate(capacity, event: event.rawValue)
    self.event = event
  }

  deinit { queue.deallocate() }
}
