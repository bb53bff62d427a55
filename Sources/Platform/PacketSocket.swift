// SPDX-License-Identifier: Apache-2.0

import CLinux
import Synchronization
public import SystemPackage

/// A Unix socket that keeps message boundaries and passes descriptors.
public struct PacketSocket: ~Copyable, Sendable {
  public let owned: OwnedDescriptor

  public init(_ owned: consuming OwnedDescriptor) { self.owned = owned }

  /// Connects to somebody who listens at a path.
  public init(connectingTo path: String) throws(Errno) {
    owned = try OwnedDescriptor(owning: checked(unsafe vmbus_connect(path)))
  }

  /// One end of a connection, which does not block. `pass` sends the other end to whoever is to have
  /// it; here it is closed then.
  public init(passing pass: (Int32) throws(Errno) -> Void) throws(Errno) {
    var (first, second): (Int32, Int32) = (-1, -1)
    try checked(unsafe vmbus_socket_pair(&first, &second))
    let own = OwnedDescriptor(owning: first)
    let other = OwnedDescriptor(owning: second)
    try pass(other.rawValue)
    owned = own
  }

  public var rawValue: Int32 { owned.rawValue }

  /// Sends one message of at least one byte, with descriptors that stay the caller's.
  public func send(_ bytes: [UInt8], descriptors: [Int32] = []) throws(Errno) {
    try checked(
      unsafe bytes.withUnsafeBytes { buffer in
        unsafe vmbus_send(
          owned.rawValue, buffer.baseAddress.unsafelyUnwrapped, buffer.count, descriptors,
          Int32(descriptors.count))
      })
  }

  /// Ends the connection for both sides; the descriptor stays open.
  public func shutDown() { _ = shutdown(rawValue, Int32(SHUT_RDWR)) }

  /// Receives one message of at most 4096 bytes. Returns nil when the other side has closed.
  public func receive() throws(Errno) -> SocketMessage? {
    var bytes = [UInt8](repeating: 0, count: 4096)
    var descriptors = [Int32](repeating: -1, count: Int(VMBUS_MAX_FDS))
    var count: Int32 = 0
    let length = unsafe bytes.withUnsafeMutableBytes { buffer in
      unsafe vmbus_receive(
        owned.rawValue, buffer.baseAddress.unsafelyUnwrapped, buffer.count, &descriptors, &count)
    }
    guard length >= 0 else { throw Errno(rawValue: Int32(-length)) }
    bytes.removeLast(bytes.count - Int(length))
    // It owns the descriptors, which come with an empty message too.
    let message = SocketMessage(bytes: bytes, descriptors: Array(descriptors.prefix(Int(count))))
    return length > 0 ? message : nil
  }
}

/// A message with the descriptors that came along; those that nobody takes are closed.
public final class SocketMessage {
  public let bytes: [UInt8]
  private var descriptors: [Int32?]

  init(bytes: [UInt8], descriptors: [Int32]) {
    self.bytes = bytes
    self.descriptors = descriptors
  }

  deinit {
    for case let descriptor? in descriptors { _ = close(descriptor) }
  }

  public var descriptorCount: Int { descriptors.count }

  /// The nth descriptor, once.
  public func takeDescriptor(_ index: Int) -> OwnedDescriptor? {
    guard descriptors.indices.contains(index), let descriptor = descriptors[index] else {
      return nil
    }
    descriptors[index] = nil
    return OwnedDescriptor(owning: descriptor)
  }
}

/// A path at which a program accepts connections. The path is removed when the value goes.
public struct PacketListener: ~Copyable, Sendable {
  public let owned: OwnedDescriptor
  public let path: String
  private let isRemoved = Atomic<Bool>(false)

  /// Listens at `path`; a socket that a dead program left there is replaced, a living one is not.
  public init(path: String) throws(Errno) {
    owned = try OwnedDescriptor(owning: checked(unsafe vmbus_listen(path)))
    self.path = path
  }

  deinit { removePath() }

  /// Nobody finds the listener any more. Once: another one may have the path by now.
  public func removePath() {
    if !isRemoved.exchange(true, ordering: .relaxed) { _ = unsafe unlink(path) }
  }

  /// The next connection, or nil when none waits.
  public func accept() throws(Errno) -> PacketSocket? {
    let result = vmbus_accept(owned.rawValue)
    if result == -EAGAIN || result == -ECONNABORTED || result == -EINTR { return nil }
    return try PacketSocket(OwnedDescriptor(owning: checked(result)))
  }
}
