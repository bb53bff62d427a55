// SPDX-License-Identifier: Apache-2.0

import CLinux
public import NetworkProtocol
import Platform
import Synchronization
import SystemPackage

/// A network interface of this system whose other side is this process: what the network stack sends
/// comes out of its queues, and what is written to them the stack receives.
///
/// The interface goes with the value, unless it existed before (a persistent one, as `ip tuntap`
/// makes them, which a program without privileges can use).
public final class TapDevice: Sendable {
  public static let maximumNameByteCount = 15
  public static let maximumQueueCount = 256
  /// The kernel's: an Ethernet header and the MTU stay below 64 KiB.
  public static let mtuRange = 68...65521

  /// What the network stack may leave to the reader of this device. The writer may leave all of it to
  /// the stack in any case.
  public struct Offloads: OptionSet, Sendable {
    public let rawValue: UInt32
    public init(rawValue: UInt32) { self.rawValue = rawValue }

    /// Partial checksums; the others need it.
    public static let checksum = Offloads(rawValue: 1)
    /// TCP frames of up to 64 KiB.
    public static let tcpIPv4 = Offloads(rawValue: 2)
    public static let tcpIPv6 = Offloads(rawValue: 4)
  }

  public let name: String
  /// Whether it stays when this value goes.
  public let isPersistent: Bool
  /// All of them stay attached for as long as the device is this value's: closing one in the middle
  /// would give others new numbers, and flows other queues.
  private let queues: Lock<Queues>
  /// For calls that name the interface, in the network namespace in which it was made.
  private let control: OwnedDescriptor

  private struct Queues {
    var descriptors: [Int32]
  }

  /// Makes the device, or takes a persistent one of that name.
  public init(name: String, queueCount: Int = 1) throws(TapError) {
    try Self.check(name)
    guard 1...Self.maximumQueueCount ~= queueCount else { throw .tooManyQueues(queueCount) }
    let (first, isPersistent) = try Self.openFirst(name)
    let socket = vmbus_interface_socket()
    guard socket >= 0 else {
      _ = close(first)
      throw .system("a socket for the interface", Errno(rawValue: -socket))
    }
    control = OwnedDescriptor(owning: socket)
    self.name = name
    self.isPersistent = isPersistent
    queues = Lock(Queues(descriptors: [first]))
    try addQueues(to: queueCount)
  }

  deinit {
    queues.withLock { queues in
      for descriptor in queues.descriptors { _ = close(descriptor) }
    }
  }

  public var queueCount: Int { queues.withLock { $0.descriptors.count } }

  /// Adds queues until there are `count`; those that exist stay.
  public func addQueues(to count: Int) throws(TapError) {
    guard count <= Self.maximumQueueCount else { throw .tooManyQueues(count) }
    while queueCount < count {
      let more = try Self.openQueue(name, exclusive: false, asking: count)
      queues.withLock { $0.descriptors.append(more) }
    }
  }

  /// Closes queues until `count` are left, at least one: the stack sends nothing to them any more.
  public func removeQueues(to count: Int) {
    queues.withLock { queues in
      while queues.descriptors.count > max(count, 1) { _ = close(queues.descriptors.removeLast()) }
    }
  }

  /// A handle on one queue, for one thread at a time.
  public func queue(_ index: Int) throws(TapError) -> TapQueue {
    let descriptor = queues.withLock { queues in
      queues.descriptors.indices.contains(index)
        ? vmbus_duplicate(queues.descriptors[index]) : -EINVAL
    }
    return try TapQueue(
      owning: OwnedDescriptor(owning: Self.checked("a queue of the TAP device", descriptor)))
  }

  // MARK: - The interface

  /// What the stack may leave undone from here on.
  public func setOffloads(_ offloads: Offloads) throws(TapError) {
    try Self.checked(
      "the TAP device's offloads",
      withDescriptor { vmbus_tap_set_offload($0, offloads.rawValue) })
  }

  /// The most bytes of a frame of several segments.
  ///
  /// - Parameter byteCount: of the IP packet, at most 65536, which it is at first.
  public func setLargestSend(_ byteCount: Int) throws(TapError) {
    try Self.checked(
      "the TAP device's largest send",
      unsafe vmbus_interface_set_gso_limit(name, UInt32(clamping: byteCount)))
  }

  public func setMTU(_ mtu: Int) throws(TapError) {
    guard Self.mtuRange ~= mtu else { throw .mtuOutOfRange(mtu) }
    try Self.checked(
      "the TAP device's MTU", unsafe vmbus_interface_set_mtu(control.rawValue, name, Int32(mtu)))
  }

  public var mtu: Int {
    get throws(TapError) {
      try Int(
        Self.checked(
          "the TAP device's MTU", unsafe vmbus_interface_mtu(control.rawValue, name)))
    }
  }

  public func setAddress(_ address: MACAddress) throws(TapError) {
    guard !address.isGroup, address != MACAddress() else { throw .badAddress(address) }
    let bytes = address.bytes.indices.map { address.bytes[$0] }
    try Self.checked(
      "the TAP device's address",
      unsafe vmbus_interface_set_address(control.rawValue, name, bytes))
  }

  public var address: MACAddress {
    get throws(TapError) {
      var bytes = [UInt8](repeating: 0, count: 6)
      try Self.checked(
        "the TAP device's address",
        unsafe vmbus_interface_address(control.rawValue, name, &bytes))
      return MACAddress(InlineArray { bytes[$0] })
    }
  }

  /// Whether the cable is plugged in, as the stack sees it.
  public func setCarrier(_ isOn: Bool) throws(TapError) {
    try Self.checked(
      "the TAP device's link", withDescriptor { vmbus_tap_set_carrier($0, isOn) })
  }

  /// Whether the stack uses the interface, as `ip link set up` says.
  public func setUp(_ isUp: Bool) throws(TapError) {
    try Self.checked(
      "the TAP device's state", unsafe vmbus_interface_set_up(control.rawValue, name, isUp))
  }

  private func withDescriptor(_ body: (Int32) -> Int32) -> Int32 {
    queues.withLock { body($0.descriptors.first ?? -1) }
  }

  // MARK: - How it is had

  private static func check(_ name: String) throws(TapError) {
    guard name.utf8.count <= maximumNameByteCount else { throw .nameTooLong(name) }
    let isAllowed = name.utf8.allSatisfy { byte in
      // '%' would make the kernel choose a number.
      byte > 0x20 && byte != 0x7F && !"/:%".utf8.contains(byte)
    }
    guard !name.isEmpty, isAllowed, name != ".", name != ".." else { throw .badName(name) }
  }

  /// The first queue: of a new device, or of a persistent one.
  private static func openFirst(_ name: String) throws(TapError) -> (Int32, Bool) {
    do {
      return (try openQueue(name, exclusive: true, asking: 1), false)
    } catch .exists {
      let descriptor = try openQueue(name, exclusive: false, asking: 1)
      if vmbus_tap_is_persistent(descriptor) == 1 { return (descriptor, true) }
      // It is another program's, which would lose a part of its frames.
      _ = close(descriptor)
      throw .exists(name)
    }
  }

  /// - Parameter exclusive: only if no interface of that name exists.
  private static func openQueue(
    _ name: String, exclusive: Bool, asking count: Int
  ) throws(TapError) -> Int32 {
    let opened = vmbus_tun_open()
    switch -opened {
    case ...0: break
    case EACCES, EPERM: throw .notPermitted
    case ENOENT, ENXIO, ENODEV: throw .noTunDriver(Errno(rawValue: -opened))
    default: throw .system("/dev/net/tun", Errno(rawValue: -opened))
    }
    var result = unsafe vmbus_tap_attach(opened, name, exclusive)
    let step: TapError.StaticStep = result < 0 ? "the TAP device" : "the TAP device's header"
    if result >= 0 { result = vmbus_tap_set_header(opened) }
    guard result < 0 else { return opened }
    _ = close(opened)
    switch -result {
    case EPERM, EACCES: throw .notPermitted
    // The kernel's answers to one queue too many.
    case E2BIG: throw .tooManyQueues(count)
    case EBUSY where count > 1: throw .tooManyQueues(count)
    // EINVAL: an interface of another kind.
    case EBUSY, EEXIST, EINVAL: throw .exists(name)
    default: throw .system(step, Errno(rawValue: -result))
    }
  }

  @discardableResult
  private static func checked(
    _ step: TapError.StaticStep, _ result: Int32
  ) throws(TapError) -> Int32 {
    guard result < 0 else { return result }
    if result == -EPERM { throw .notPermitted }
    throw .system(step, Errno(rawValue: -result))
  }
}
