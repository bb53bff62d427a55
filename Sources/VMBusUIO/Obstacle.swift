// SPDX-License-Identifier: Apache-2.0

public import VMBus

/// Why a device cannot be driven from user space as things are, and what to do about it.
public enum Obstacle: Error, Sendable, Equatable {
  case moduleNotLoaded
  case unbound(GUID)
  case boundTo(driver: String, GUID)
  /// Linux before 6.10 does not give user space a channel that is not monitored.
  case refusedByKernel(KernelRelease)
  /// Bound, but the driver has not made its UIO device, or not yet.
  case noUIODevice(GUID)
  case severalUIODevices([String])
  case wrongLayout(node: String, UIOLayoutError)
  case noNode(String)
  case noPermission(node: String, mode: UInt32, owner: UInt32, group: UInt32)
  /// Another driver has it.
  case locked(node: String, process: Int32)
  /// The kernel has the primary channel open, and no driver has the node's lock.
  case openAlready(GUID)
  /// Nobody can say whether the rings are encrypted, and a wrong guess maps them wrongly.
  case confidentialityUnknown(ConfidentialityUnknown)
}

extension Obstacle: CustomStringConvertible {
  /// What is wrong: a plain sentence without an end.
  public var description: String {
    switch self {
    case .moduleNotLoaded: "the kernel module uio_hv_generic is not loaded"
    case .unbound: "not bound to a driver"
    case .boundTo(let driver, _): "bound to the kernel's driver \(driver)"
    case .refusedByKernel(let release):
      "Linux \(release) does not give user space a channel without a monitor"
    case .noUIODevice: "bound to uio_hv_generic, which has made no UIO device of it"
    case .severalUIODevices(let names):
      "\(names.count) UIO devices (\(names.joined(separator: ", "))), where one is expected"
    case .wrongLayout(let node, let error): "\(node): \(error)"
    case .noNode(let node): "\(node) is missing"
    case .noPermission(let node, let mode, let owner, let group):
      "no permission on \(node) (mode \(String(mode, radix: 8)), user \(owner), group \(group))"
    case .locked(let node, let process): "\(node) is in use by process \(process)"
    case .openAlready:
      "its channel is open, but no driver has it: a program that takes no lock does, or it was unbound while it was in use, and Linux then never closes the channel"
    case .confidentialityUnknown(let error): error.description
    }
  }

  /// What to do.
  public var remedy: String {
    switch self {
    case .moduleNotLoaded: "modprobe uio_hv_generic"
    case .unbound(let device): Self.bind(device)
    case .boundTo(_, let device):
      "stop using it (a network interface: ip link set down), then "
        + "echo \(device) > \(Self.bus)/devices/\(device)/driver/unbind; " + Self.bind(device)
    case .refusedByKernel: "use Linux 6.10 or newer"
    case .noUIODevice(let device):
      "look at the kernel's log (dmesg) for \(device)"
    case .severalUIODevices, .wrongLayout:
      "the driver that made this is not the uio_hv_generic that this program knows"
    case .noNode: "start udevd, or make the node from the numbers in its dev file"
    case .noPermission:
      "run as root, or give the user the node by a udev rule (SUBSYSTEM==\"uio\", GROUP=...)"
    case .locked(_, let process): "end process \(process) first"
    case .openAlready: "end that program, or restart this machine"
    case .confidentialityUnknown: "say it: --confidentiality host-visible, ring or ring+external"
    }
  }

  private static let bus = "/sys/bus/vmbus"

  private static func bind(_ device: GUID) -> String {
    "echo \(VMBusDeviceRecord.uioDriver) > \(bus)/devices/\(device)/driver_override; "
      + "echo \(device) > \(bus)/drivers_probe"
  }
}

extension VMBusDeviceRecord {
  /// The first thing that stands in the way of driving this device, in the order in which they are
  /// put right; nil when there is none. Confidentiality is judged elsewhere.
  ///
  /// - Parameter node: what is known of the node with that path, nil when it is not there.
  public func obstacle(
    _ kernel: KernelFacts, node: (String) throws(DiscoveryError) -> NodeFacts?
  ) throws(DiscoveryError) -> Obstacle? {
    guard kernel.hasUIODriver else { return .moduleNotLoaded }
    guard let driver else {
      // A refused probe leaves the device unbound: what was asked for, and the kernel's age, tell
      // it from one that nobody tried to bind.
      let wasAsked = driverOverride == Self.uioDriver
      return wasAsked && monitor == nil && kernel.release < KernelRelease(6, 10)
        ? .refusedByKernel(kernel.release) : .unbound(instance)
    }
    guard isBoundToUIO else { return .boundTo(driver: driver, instance) }
    guard let first = nodes.first else { return .noUIODevice(instance) }
    guard nodes.count == 1 else { return .severalUIODevices(nodes.map(\.name)) }
    do throws(UIOLayoutError) {
      _ = try UIOLayout(first.maps)
    } catch {
      return .wrongLayout(node: first.node, error)
    }
    guard let facts = try node(first.node) else { return .noNode(first.node) }
    guard facts.isAccessible else {
      return .noPermission(
        node: first.node, mode: facts.mode, owner: facts.owner, group: facts.group)
    }
    if let process = facts.lockedBy { return .locked(node: first.node, process: process) }
    return state == .opened ? .openAlready(instance) : nil
  }

  /// The same, asking the running system.
  public func obstacle() throws(DiscoveryError) -> Obstacle? {
    try obstacle(.running()) { path throws(DiscoveryError) in try NodeFacts(ofNode: path) }
  }

  /// The channel is open and no driver has it: perhaps because it is just being closed.
  var isClosing: Bool {
    get throws(DiscoveryError) {
      if case .openAlready? = try obstacle() { true } else { false }
    }
  }
}
