// SPDX-License-Identifier: Apache-2.0

/// Where devices are found: the VMBus of this machine, or that of a simulated host.
public protocol DeviceBus: Sendable {
  /// For people.
  var name: String { get }

  /// The devices that are there now, by relid, whether they can be used or not.
  var devices: [any DeviceTransport] { get throws(TransportError) }

  /// Why there is no device at all, when there is none and the reason is known.
  var whyNoDevices: String? { get }

  /// What is there and could not be read: a line each.
  var complaints: [String] { get }

  /// Whether a device that was rescinded may be offered again.
  var bringsBack: Bool { get }

  /// Returns when a device that went away is there again and can be used; nil when the caller's task
  /// is cancelled.
  func comesBack(_ instance: GUID) async throws(TransportError) -> (any DeviceTransport)?

  /// Leaves the bus. The devices' drivers should be gone before.
  func disconnect() async
}

extension DeviceBus {
  public var whyNoDevices: String? { nil }

  public var complaints: [String] { [] }

  public var bringsBack: Bool { false }

  public func comesBack(_ instance: GUID) async throws(TransportError) -> (any DeviceTransport)? {
    nil
  }

  public func disconnect() async {}
}
