// SPDX-License-Identifier: Apache-2.0

/// Work that a worker polls: the queue of a driver, or a device of the simulated host.
///
/// The value belongs to its worker from `Worker.attach` on; all calls come from the worker's
/// thread. A call costs one indirect jump and no reference counting.
public protocol Pollable: ~Copyable, SendableMetatype {
  /// Does what there is to do, at most about `budget` units, so that a busy channel can't starve
  /// the others.
  ///
  /// The worker knows the value by its metadata only. Where the value's type is generic, compile
  /// this method for each type that it will have (`@_specialize(where Ring == HostVisible, ...)`,
  /// once for each pair of memories): all that it calls is compiled with it then, and looks up no
  /// types for each packet. That was a factor of three.
  ///
  /// - Returns: units of work done: 0 tells the worker that it may sleep soon; nil that this
  ///   value is finished and is to be dropped. Whatever was taken from a ring is work, even if it
  ///   was dropped.
  mutating func poll(budget: Int) -> Int?

  /// Asks for an interrupt when work comes, then looks once more. It is called before each sleep, also
  /// of a value that is armed: what it waits for may be something else since its last poll.
  ///
  /// - Returns: true when there is work already: then the worker doesn't sleep.
  mutating func arm() -> Bool

  /// Interrupts are not needed: the worker polls again.
  mutating func disarm()

  /// When `expire` must be called, in nanoseconds of the monotonic clock; `UInt64.max` for never.
  var nextDeadline: UInt64 { get }

  /// `nextDeadline` is over.
  mutating func expire(now: UInt64)
}

extension Pollable where Self: ~Copyable {
  public var nextDeadline: UInt64 { .max }
  public mutating func expire(now: UInt64) {}
}

/// What a worker knows of a `Pollable` whose type it does not: static functions over its address.
/// A metatype is a plain address, so this erasure counts no references.
protocol ErasedPollable {
  static func poll(_ value: UnsafeMutableRawPointer, _ budget: Int) -> Int?
  static func arm(_ value: UnsafeMutableRawPointer) -> Bool
  static func disarm(_ value: UnsafeMutableRawPointer)
  static func nextDeadline(_ value: UnsafeMutableRawPointer) -> UInt64
  static func expire(_ value: UnsafeMutableRawPointer, _ now: UInt64)
  static func destroy(_ value: UnsafeMutableRawPointer)
}

/// Safe: `Worker.attach` allocated the value with this very type, and only the worker's thread,
/// one call at a time, comes here.
enum PollableOf<Value: Pollable & ~Copyable>: ErasedPollable {
  static func poll(_ value: UnsafeMutableRawPointer, _ budget: Int) -> Int? {
    unsafe value.assumingMemoryBound(to: Value.self).pointee.poll(budget: budget)
  }

  static func arm(_ value: UnsafeMutableRawPointer) -> Bool {
    unsafe value.assumingMemoryBound(to: Value.self).pointee.arm()
  }

  static func disarm(_ value: UnsafeMutableRawPointer) {
    unsafe value.assumingMemoryBound(to: Value.self).pointee.disarm()
  }

  static func nextDeadline(_ value: UnsafeMutableRawPointer) -> UInt64 {
    unsafe value.assumingMemoryBound(to: Value.self).pointee.nextDeadline
  }

  static func expire(_ value: UnsafeMutableRawPointer, _ now: UInt64) {
    unsafe value.assumingMemoryBound(to: Value.self).pointee.expire(now: now)
  }

  static func destroy(_ value: UnsafeMutableRawPointer) {
    let typed = unsafe value.assumingMemoryBound(to: Value.self)
    unsafe typed.deinitialize(count: 1)
    unsafe typed.deallocate()
  }
}

/// One value that a worker polls. Sent to the worker once, with the value that it points to.
@safe
struct PollEntry: @unchecked Sendable {
  let identifier: UInt64
  let value: UnsafeMutableRawPointer
  let type: any ErasedPollable.Type
  var isArmed = false
}
