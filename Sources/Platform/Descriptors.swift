// SPDX-License-Identifier: Apache-2.0

import CLinux
public import SystemPackage

/// A file descriptor with one owner, closed when the owner goes.
public struct OwnedDescriptor: ~Copyable, Sendable {
  public let rawValue: Int32

  /// Takes over a descriptor that nobody else will close.
  public init(owning rawValue: Int32) { self.rawValue = rawValue }

  deinit { _ = close(rawValue) }

  /// For calls of swift-system; it does not own.
  public var descriptor: FileDescriptor { FileDescriptor(rawValue: rawValue) }

  /// Closes the file now. The number stays this value's, and those who have it still reach nothing by it.
  public func hollow() { _ = vmbus_hollow(rawValue) }

  /// A second descriptor of the same file.
  public func duplicate() throws(Errno) -> OwnedDescriptor {
    try OwnedDescriptor(owning: checked(vmbus_duplicate(rawValue)))
  }
}

/// Turns the `-errno` of the shims into an error.
@discardableResult
public func checked(_ result: Int32) throws(Errno) -> Int32 {
  guard result >= 0 else { throw Errno(rawValue: -result) }
  return result
}

/// An eventfd: what interrupts and doorbells are made of here.
public struct EventDescriptor: ~Copyable, Sendable {
  public let owned: OwnedDescriptor

  public init() throws(Errno) {
    owned = try OwnedDescriptor(owning: checked(vmbus_event_fd()))
  }

  public init(_ owned: consuming OwnedDescriptor) { self.owned = owned }

  public var rawValue: Int32 { owned.rawValue }

  public func signal() { vmbus_event_signal(rawValue) }

  /// How often it was signalled since the last call.
  @discardableResult
  public func drain() -> UInt64 { EventDescriptor.drain(rawValue) }

  /// The same for a descriptor whose owner is elsewhere.
  @discardableResult
  public static func drain(_ descriptor: Int32) -> UInt64 { vmbus_event_drain(descriptor) }

  /// The same for a descriptor that somebody else may have made blocking: what can't be counted
  /// any more need not be, and never blocks.
  public func signalWithoutBlocking() { vmbus_event_signal_if_ready(rawValue) }

  /// Whether a descriptor that a peer passed is an eventfd; makes it non-blocking.
  public static func adopt(_ descriptor: Int32) -> Bool { vmbus_adopt_event(descriptor) }

  /// Signals a descriptor whose owner is elsewhere.
  public static func signal(_ descriptor: Int32) { vmbus_event_signal(descriptor) }
}

/// Waits for several descriptors at once.
public struct Epoll: ~Copyable, Sendable {
  let owned: OwnedDescriptor

  public init() throws(Errno) {
    owned = try OwnedDescriptor(owning: checked(vmbus_epoll_create()))
  }

  /// Watches a descriptor for input, hang-up and errors. Level-triggered.
  public func add(
    _ descriptor: Int32, token: UInt64, hangUpOnly: Bool = false
  ) throws(Errno) {
    try checked(vmbus_epoll_add(owned.rawValue, descriptor, token, hangUpOnly))
  }

  public func remove(_ descriptor: Int32) {
    _ = vmbus_epoll_remove(owned.rawValue, descriptor)
  }

  /// Waits and calls `body` with the token of each descriptor that is ready.
  ///
  /// - Parameter milliseconds: -1 for ever.
  /// - Returns: how many were ready; 0 after a signal or when the time is over.
  @discardableResult
  public func wait(milliseconds: Int32, _ body: (UInt64) -> Void) throws(Errno) -> Int {
    var tokens = InlineArray<16, UInt64>(repeating: 0)
    var span = tokens.mutableSpan
    let count = try checked(
      unsafe span.withUnsafeMutableBufferPointer { buffer in
        unsafe vmbus_epoll_wait(
          owned.rawValue, buffer.baseAddress.unsafelyUnwrapped, 16, milliseconds)
      })
    for index in 0..<Int(count) { body(tokens[index]) }
    return Int(count)
  }
}
