// SPDX-License-Identifier: Apache-2.0

public import LinuxDevices
public import PCIFunction
import VSC

/// Why a PCI function cannot be driven from user space as things are, and what to do about it.
public enum VFIOObstacle: Error, Sendable, Equatable {
  case moduleNotLoaded
  case unbound(PCIAddress)
  case boundTo(driver: String, PCIAddress)
  /// Nothing keeps the function from the machine's memory, and VFIO was not told to do without.
  case noIOMMU(PCIAddress)
  case sharedGroup(Int, with: [String])
  /// The kernel does not offer the way that was asked for.
  case noSuchWay(VFIOWay, PCIAddress)
  case noNode(String)
  case noPermission(node: String, mode: UInt32, owner: UInt32, group: UInt32)
}

extension VFIOObstacle: CustomStringConvertible {
  /// What is wrong: a plain sentence without an end.
  public var description: String {
    switch self {
    case .moduleNotLoaded: "the kernel module vfio-pci is not loaded"
    case .unbound: "not bound to a driver"
    case .boundTo(let driver, _): "bound to the kernel's driver \(driver)"
    case .noIOMMU: "no IOMMU keeps it from the machine's memory, and VFIO does not do without"
    case .sharedGroup(let group, let others):
      "its IOMMU group \(group) has other functions with drivers: \(others.joined(separator: ", "))"
    case .noSuchWay(let way, _): "this kernel does not offer it by \(way.rawValue)"
    case .noNode(let node): "\(node) is missing"
    case .noPermission(let node, let mode, let owner, let group):
      "no permission on \(node) (mode \(String(mode, radix: 8)), user \(owner), group \(group))"
    }
  }

  /// What to do.
  public var remedy: String {
    switch self {
    case .moduleNotLoaded: "modprobe vfio-pci"
    case .unbound(let address): Self.bind(address)
    case .boundTo(_, let address):
      "stop using it, then echo \(address) > \(Self.bus)/devices/\(address)/driver/unbind; "
        + Self.bind(address)
    case .noIOMMU(let address):
      "turn the IOMMU on (intel_iommu=on, amd_iommu=on), or, in a machine without one, "
        + "echo 1 > /sys/module/vfio/parameters/enable_unsafe_noiommu_mode where the kernel has that; "
        + "then " + Self.bind(address)
    case .sharedGroup: "bind them to vfio-pci too, or unbind them"
    case .noSuchWay: "leave the choice to this program, or use a kernel that has it"
    case .noNode: "start udevd, or make the node from the numbers in its dev file"
    case .noPermission:
      "run as root, or give the user the node by a udev rule (SUBSYSTEM==\"vfio\" or \"vfio-dev\", GROUP=...)"
    }
  }

  private static let bus = "/sys/bus/pci"

  private static func bind(_ address: PCIAddress) -> String {
    "echo \(PCIRecord.vfioDriver) > \(bus)/devices/\(address)/driver_override; "
      + "echo \(address) > \(bus)/drivers_probe"
  }

  var forPeople: DeviceObstacle { DeviceObstacle(description, remedy: remedy) }
}

extension PCIRecord {
  /// The way to this function.
  ///
  /// - Parameter wanted: nil for the best one.
  /// - Throws: the first thing that stands in the way, in the order in which they are put right.
  public func way(
    _ wanted: VFIOWay? = nil, _ paths: SystemPaths = SystemPaths()
  ) throws(VFIOObstacle) -> VFIOWay {
    guard SysfsDirectory("\(paths.sysfs)/bus/pci/drivers/\(Self.vfioDriver)").exists else {
      throw .moduleNotLoaded
    }
    guard let driver else {
      // A refused probe leaves the function unbound: what was asked for tells it from one that nobody
      // tried to bind.
      throw driverOverride == Self.vfioDriver && group == nil
        ? .noIOMMU(address) : .unbound(address)
    }
    guard isBoundToVFIO else { throw .boundTo(driver: driver, address) }
    let offered = ways(paths)
    guard let way = wanted ?? offered.first else { throw .noIOMMU(address) }
    guard offered.contains(way) else { throw .noSuchWay(way, address) }
    if let group, !group.strangers.isEmpty {
      throw .sharedGroup(group.number, with: group.strangers)
    }
    let path = node(way, paths)
    guard let facts = try? NodeFacts(ofNode: path) else { throw .noNode(path) }
    guard facts.isAccessible else {
      throw .noPermission(node: path, mode: facts.mode, owner: facts.owner, group: facts.group)
    }
    return way
  }
}
