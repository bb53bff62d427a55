// SPDX-License-Identifier: Apache-2.0

public import VMBus

/// Why a device is not in the hands of a driver that gives it to user space, or its node is of no use, and
/// what to do about it.
public enum BindingObstacle: Error, Sendable, Equatable {
  case notLoaded(driver: String)
  case unbound(GUID, driver: String)
  /// To another driver of the kernel's.
  case boundTo(driver: String, GUID, wanted: String)
  case noNode(String)
  case noPermission(node: String, mode: UInt32, owner: UInt32, group: UInt32, subsystem: String)
  /// Another process drives it.
  case locked(node: String, process: Int32)
}

extension BindingObstacle: CustomStringConvertible {
  /// What is wrong: a plain sentence without an end.
  public var description: String {
    switch self {
    case .notLoaded(let driver): "the kernel module \(driver) is not loaded"
    case .unbound: "not bound to a driver"
    case .boundTo(let driver, _, _): "bound to the kernel's driver \(driver)"
    case .noNode(let node): "\(node) is missing"
    case .noPermission(let node, let mode, let owner, let group, _):
      "no permission on \(node) (mode \(String(mode, radix: 8)), user \(owner), group \(group))"
    case .locked(let node, let process): "\(node) is in use by process \(process)"
    }
  }

  /// What to do.
  public var remedy: String {
    switch self {
    case .notLoaded(let driver): "modprobe \(driver)"
    case .unbound(let device, let driver): Self.bind(device, driver)
    case .boundTo(_, let device, let driver):
      "stop using it (a network interface: ip link set down), then "
        + "echo \(device) > \(Self.bus)/devices/\(device)/driver/unbind; "
        + Self.bind(device, driver)
    case .noNode: "start udevd, or make the node from the numbers in its dev file"
    case .noPermission(_, _, _, _, let subsystem):
      "run as root, or give the user the node by a udev rule (SUBSYSTEM==\"\(subsystem)\", GROUP=...)"
    case .locked(_, let process): "end process \(process) first"
    }
  }

  private static let bus = "/sys/bus/vmbus"

  private static func bind(_ device: GUID, _ driver: String) -> String {
    "echo \(driver) > \(bus)/devices/\(device)/driver_override; "
      + "echo \(device) > \(bus)/drivers_probe"
  }
}

extension VMBusDeviceRecord {
  /// What stands in the way of having this device from that driver; nil when it has it.
  package func obstacle(to wanted: String, _ kernel: KernelFacts) -> BindingObstacle? {
    guard kernel.drivers.contains(wanted) else { return .notLoaded(driver: wanted) }
    guard let driver else { return .unbound(instance, driver: wanted) }
    return driver == wanted ? nil : .boundTo(driver: driver, instance, wanted: wanted)
  }
}

extension NodeFacts {
  /// What stands in the way of opening a node; nil when nothing does.
  ///
  /// - Parameters:
  ///   - facts: nil when it is not there.
  ///   - subsystem: whose nodes a udev rule would give away.
  package static func obstacle(
    _ facts: NodeFacts?, node: String, subsystem: String
  ) -> BindingObstacle? {
    guard let facts else { return .noNode(node) }
    guard facts.isAccessible else {
      return .noPermission(
        node: node, mode: facts.mode, owner: facts.owner, group: facts.group, subsystem: subsystem)
    }
    return facts.lockedBy.map { .locked(node: node, process: $0) }
  }
}
