// SPDX-License-Identifier: Apache-2.0

/// Requests that are under way, by transaction id.
///
/// An id is a slot with a generation, never an address: an unknown, stale or repeated one finds
/// nothing (law 7). A request keeps its payload (above all its DMA memory) until its completion
/// has been seen: one that timed out is reported, but stays (law 3).
@safe
public struct Requests<Payload: ~Copyable>: ~Copyable {
  @usableFromInline let slots: UnsafeMutablePointer<RequestSlot<Payload>>
  @usableFromInline let free: UnsafeMutablePointer<UInt32>
  @usableFromInline var freeCount: Int
  public let capacity: Int
  /// Requests that timed out and whose completion has not come.
  @inlinable public var abandoned: Int { abandonedCount }
  @usableFromInline var abandonedCount = 0

  /// The generation after which a slot begins with 1 again.
  @usableFromInline let lastGeneration: UInt32

  /// - Parameters:
  ///   - capacity: requests at one time, 1 to 65536.
  ///   - lastGeneration: the largest one, for a wire whose ids are narrow.
  public init(capacity: Int, lastGeneration: UInt32 = .max) {
    let capacity = min(max(capacity, 1), 65536)
    self.lastGeneration = max(lastGeneration, 1)
    self.capacity = capacity
    freeCount = capacity
    unsafe slots = .allocate(capacity: capacity)
    unsafe free = .allocate(capacity: capacity)
    for index in 0..<capacity {
      unsafe (slots + index).initialize(to: RequestSlot())
      unsafe (free + index).initialize(to: UInt32(capacity - 1 - index))
    }
  }

  @inlinable
  deinit {
    unsafe slots.deinitialize(count: capacity)
    unsafe slots.deallocate()
    unsafe free.deallocate()
  }

  @inlinable public var isFull: Bool { freeCount == 0 }
  @inlinable public var isEmpty: Bool { freeCount == capacity }
  /// Requests under way, abandoned ones included.
  @inlinable public var count: Int { capacity &- freeCount }

  /// The id that the next `insert` will use; nil when all slots are in use. Never 0, which hosts
  /// use for what they send unasked.
  @inlinable public var nextID: UInt64? {
    guard freeCount > 0 else { return nil }
    let index = unsafe free[freeCount &- 1]
    return unsafe UInt64(slots[Int(index)].generation) << 32 | UInt64(index)
  }

  /// Keeps the payload of a request that was sent with `nextID`.
  ///
  /// - Parameter deadline: nanoseconds of the monotonic clock; `UInt64.max` for none.
  /// - Returns: false when there was no room; then the payload is gone. `nextID` tells before.
  @inlinable
  @discardableResult
  public mutating func insert(_ payload: consuming Payload, deadline: UInt64 = .max) -> Bool {
    guard freeCount > 0 else { return false }
    freeCount &-= 1
    let index = unsafe Int(free[freeCount])
    unsafe slots[index].payload = consume payload
    unsafe slots[index].deadline = deadline
    unsafe slots[index].isAbandoned = false
    return true
  }

  /// Ends the request with that id. Returns nil when no such request is under way: count it, drop
  /// the completion.
  @inlinable
  public mutating func complete(_ id: UInt64) -> CompletedRequest<Payload>? {
    let index = Int(id & 0xFFFF_FFFF)
    // The id is the peer's word: a slot that is not there, not in use, or in use again for
    // another request.
    guard index < capacity else { return nil }
    let slot = unsafe slots + index
    guard unsafe slot.pointee.generation == UInt32(truncatingIfNeeded: id >> 32) else {
      return nil
    }
    guard let payload = unsafe slot.pointee.payload.take() else { return nil }
    let wasAbandoned = unsafe slot.pointee.isAbandoned
    if wasAbandoned { abandonedCount &-= 1 }
    unsafe slot.pointee.generation =
      slot.pointee.generation >= lastGeneration ? 1 : slot.pointee.generation &+ 1
    unsafe free[freeCount] = UInt32(truncatingIfNeeded: index)
    freeCount &+= 1
    return CompletedRequest(payload: payload, wasAbandoned: wasAbandoned)
  }

  /// The earliest deadline of a request that is not abandoned yet.
  public var nextDeadline: UInt64 {
    var earliest = UInt64.max
    guard !isEmpty else { return earliest }
    for index in 0..<capacity {
      if unsafe slots[index].isUnderWay && !slots[index].isAbandoned {
        earliest = min(earliest, unsafe slots[index].deadline)
      }
    }
    return earliest
  }

  /// Abandons requests whose deadline is over and calls `body` for each. The payload stays here.
  ///
  /// - Parameter limit: how many at most in this call.
  public mutating func expire<Failure: Error>(
    now: UInt64, limit: Int = .max, _ body: (inout Payload) throws(Failure) -> Void
  ) throws(Failure) {
    var left = limit
    for index in 0..<capacity where left > 0 && !isEmpty {
      guard unsafe slots[index].isUnderWay && !slots[index].isAbandoned,
        unsafe slots[index].deadline <= now, var payload = unsafe slots[index].payload.take()
      else { continue }
      unsafe slots[index].isAbandoned = true
      abandonedCount &+= 1
      left &-= 1
      do throws(Failure) {
        try body(&payload)
      } catch {
        unsafe slots[index].payload = consume payload
        throw error
      }
      unsafe slots[index].payload = consume payload
    }
  }

  /// Ends every request because the channel is over and the device known to be quiet, and calls
  /// `body` for each that was not abandoned.
  public mutating func drain(_ body: (consuming Payload) -> Void) {
    drainAll { payload, wasAbandoned in
      if !wasAbandoned { body(payload) }
    }
  }

  /// The same with those that were abandoned.
  public mutating func drainAll(_ body: (consuming Payload, _ wasAbandoned: Bool) -> Void) {
    for index in 0..<capacity {
      let id = unsafe UInt64(slots[index].generation) << 32 | UInt64(index)
      guard let request = complete(id) else { continue }
      body(request.payload, request.wasAbandoned)
    }
  }
}

/// A request whose completion has come.
@frozen
public struct CompletedRequest<Payload: ~Copyable>: ~Copyable {
  public var payload: Payload
  /// It had timed out: its user was told so, and only its memory is of interest.
  public let wasAbandoned: Bool

  @inlinable
  init(payload: consuming Payload, wasAbandoned: Bool) {
    self.payload = payload
    self.wasAbandoned = wasAbandoned
  }
}

@usableFromInline
struct RequestSlot<Payload: ~Copyable>: ~Copyable {
  @usableFromInline var payload: Payload?
  @usableFromInline var deadline = UInt64.max
  @usableFromInline var generation: UInt32 = 1
  @usableFromInline var isAbandoned = false

  init() { payload = nil }

  var isUnderWay: Bool {
    switch payload {
    case .some: true
    case .none: false
    }
  }
}
