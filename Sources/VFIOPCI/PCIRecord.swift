// SPDX-License-Identifier: Apache-2.0

public import LinuxDevices
public import PCIFunction
import VMBus

extension SystemPaths {
  package func directory(of address: PCIAddress) -> SysfsDirectory {
    SysfsDirectory("\(sysfs)/bus/pci/devices/\(address)")
  }
}

/// What Linux tells of a PCI function.
public struct PCIRecord: Sendable, Equatable {
  public var address: PCIAddress
  public var vendor: UInt16
  public var device: UInt16
  /// Base class, subclass and programming interface.
  public var classCode: UInt32
  public var revision: UInt8
  /// Which driver has it, if one has.
  public var driver: String?
  /// Which driver it is kept for.
  public var driverOverride: String?
  public var group: Group?
  /// The name of its own file of VFIO, where the kernel makes one: "vfio0", "noiommu-vfio0".
  public var file: String?

  /// Functions that an IOMMU can't keep apart.
  public struct Group: Sendable, Equatable {
    public var number: Int
    /// VFIO made it up for a function without an IOMMU.
    public var isMadeUp: Bool
    /// Other functions of the group that drivers have which do not share.
    public var strangers: [String]
  }

  public static let vfioDriver = "vfio-pci"

  public var isBoundToVFIO: Bool { driver == Self.vfioDriver }

  /// Reads what is known of a function; nil when it is not there.
  public init?(
    _ address: PCIAddress, _ paths: SystemPaths = SystemPaths()
  ) throws(DiscoveryError) {
    let directory = paths.directory(of: address)
    guard directory.exists else { return nil }
    self.address = address
    vendor = try directory.value("vendor", "a number in hexadecimal", SysfsNumber.hexadecimal)
    device = try directory.value("device", "a number in hexadecimal", SysfsNumber.hexadecimal)
    classCode = try directory.value("class", "a number in hexadecimal", SysfsNumber.hexadecimal)
    revision =
      try directory.valueIfPresent("revision", "a number in hexadecimal", SysfsNumber.hexadecimal)
      ?? 0
    driver = try directory.linkedName("driver")
    let override = try directory.textIfPresent("driver_override")
    driverOverride = override == "(null)" || override == "" ? nil : override
    group = try Self.group(directory, of: address)
    file = try directory.names(in: "vfio-dev").first
  }

  private static func group(
    _ directory: SysfsDirectory, of address: PCIAddress
  ) throws(DiscoveryError) -> Group? {
    guard let name = try directory.linkedName("iommu_group") else { return nil }
    guard let number: Int = SysfsNumber.decimal(name) else {
      throw .malformed(
        file: "\(directory.path)/iommu_group", content: name, expected: "a group's number")
    }
    var strangers: [String] = []
    for member in try directory.names(in: "iommu_group/devices") where member != "\(address)" {
      let driver = try directory.directory("iommu_group/devices/\(member)").linkedName("driver")
      // Ports of bridges transfer nothing by themselves, and VFIO lets them be.
      if let driver, driver != vfioDriver, driver != "pcieport", driver != "pci-stub" {
        strangers.append("\(member) (\(driver))")
      }
    }
    let isMadeUp = try directory.textIfPresent("iommu_group/name") == "vfio-noiommu"
    return Group(number: number, isMadeUp: isMadeUp, strangers: strangers)
  }

  /// All functions of the machine, by address.
  public static func all(
    _ paths: SystemPaths = SystemPaths()
  ) throws(DiscoveryError) -> [PCIRecord] {
    var records: [PCIRecord] = []
    for name in try SysfsDirectory("\(paths.sysfs)/bus/pci").names(in: "devices") {
      guard let address = PCIAddress(name) else { continue }
      // One that goes away meanwhile is not there.
      if let record = try? PCIRecord(address, paths) { records.append(record) }
    }
    return records.sorted { $0.address < $1.address }
  }
}

/// The ways to a function that VFIO has.
public enum VFIOWay: String, Sendable, CaseIterable {
  /// The function's own file, with an address space of iommufd.
  case file = "iommufd"
  /// The group's file, with a container whose IOMMU is of type 1.
  case group
  /// The function's own file where there is no IOMMU: the kernel tells physical addresses.
  case unguardedFile = "iommufd-noiommu"
  /// The group's file where there is no IOMMU.
  case unguardedGroup = "noiommu"
}

extension PCIRecord {
  /// The ways to this function that the kernel offers, the best one first.
  public func ways(_ paths: SystemPaths = SystemPaths()) -> [VFIOWay] {
    var ways: [VFIOWay] = []
    let hasSpaces = SysfsDirectory("\(paths.devices)/iommu").exists
    let isUnguarded = file?.hasPrefix("noiommu-") ?? false
    if file != nil && hasSpaces && !isUnguarded && group?.isMadeUp != true { ways.append(.file) }
    if let group, !group.isMadeUp { ways.append(.group) }
    if isUnguarded && hasSpaces { ways.append(.unguardedFile) }
    if let group, group.isMadeUp { ways.append(.unguardedGroup) }
    return ways
  }

  /// The file of a way.
  package func node(_ way: VFIOWay, _ paths: SystemPaths) -> String {
    switch way {
    case .file, .unguardedFile: "\(paths.devices)/vfio/devices/\(file ?? "?")"
    case .group: "\(paths.devices)/vfio/\(group?.number ?? -1)"
    case .unguardedGroup: "\(paths.devices)/vfio/noiommu-\(group?.number ?? -1)"
    }
  }
}
