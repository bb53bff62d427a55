// SPDX-License-Identifier: Apache-2.0

public import VMBus
public import VMBusLinux

/// Why a device cannot be driven through `uio_hv_generic` as things are, and what to do about it.
public enum Obstacle: Error, Sendable, Equatable {
  case binding(BindingObstacle)
  /// Linux before 6.10 does not give user space a channel that is not monitored.
  case refusedByKernel(KernelRelease)
  /// Bound, but the driver has not made its UIO device, or not yet.
  case noUIODevice(GUID)
  case severalUIODevices([String])
  case wrongLayout(node: String, UIOLayoutError)
  /// The kernel has the primary channel open, and no driver has the node's lock.
  case openAlready(GUID)
  /// Nobody can say whether the rings are encrypted, and a wrong guess maps them wrongly.
  case confidentialityUnknown(ConfidentialityUnknown)
}

extension Obstacle: CustomStringConvertible {
  /// What is wrong: a plain sentence without an end.
  public var description: String {
    switch self {
    case .binding(let obstacle): obstacle.description
    case .refusedByKernel(let release):
      "Linux \(release) does not give user space a channel without a monitor"
    case .noUIODevice: "bound to uio_hv_generic, which has made no UIO device of it"
    case .severalUIODevices(let names):
      "\(names.count) UIO devices (\(names.joined(separator: ", "))), where one is expected"
    case .wrongLayout(let node, let error): "\(node): \(error)"
    case .openAlready:
      "its channel is open, but no driver has it: a program that takes no lock does, or it was unbound while it was in use, and Linux then never closes the channel"
    case .confidentialityUnknown(let error): error.description
    }
  }

  /// What to do.
  public var remedy: String {
    switch self {
    case .binding(let obstacle): obstacle.remedy
    case .refusedByKernel: "use Linux 6.10 or newer"
    case .noUIODevice(let device):
      "look at the kernel's log (dmesg) for \(device)"
    case .severalUIODevices, .wrongLayout:
      "the driver that made this is not the uio_hv_generic that this program knows"
    case .openAlready: "end that program, or restart this machine"
    case .confidentialityUnknown: "say it: --confidentiality host-visible, ring or ring+external"
    }
  }
}

extension VMBusDeviceRecord {
  /// The first thing that stands in the way of driving this device, in the order in which they are
  /// put right; nil when there is none. Confidentiality is judged elsewhere.
  ///
  /// - Parameter node: what is known of the node with that path, nil when it is not there.
  package func obstacle(
    _ kernel: KernelFacts, node: (String) throws(DiscoveryError) -> NodeFacts?
  ) throws(DiscoveryError) -> Obstacle? {
    if let obstacle = obstacle(to: UIODriver.name, kernel) {
      // A refused probe leaves the device unbound: what was asked for, and the kernel's age, tell
      // it from one that nobody tried to bind.
      if case .unbound = obstacle, driverOverride == UIODriver.name, monitor == nil,
        kernel.release < KernelRelease(6, 10)
      {
        return .refusedByKernel(kernel.release)
      }
      return .binding(obstacle)
    }
    guard let first = nodes.first else { return .noUIODevice(instance) }
    guard nodes.count == 1 else { return .severalUIODevices(nodes.map(\.name)) }
    do throws(UIOLayoutError) {
      _ = try UIOLayout(first.maps)
    } catch {
      return .wrongLayout(node: first.node, error)
    }
    if let obstacle = NodeFacts.obstacle(
      try node(first.node), node: first.node, subsystem: "uio")
    {
      return .binding(obstacle)
    }
    return state == .opened ? .openAlready(instance) : nil
  }

  /// The same, asking the running system.
  func obstacle() throws(DiscoveryError) -> Obstacle? {
    try obstacle(.running()) { path throws(DiscoveryError) in try NodeFacts(ofNode: path) }
  }

  /// The channel is open and no driver has it: perhaps because it is just being closed.
  var isClosing: Bool {
    get throws(DiscoveryError) {
      if case .openAlready? = try obstacle() { true } else { false }
    }
  }
}
