// SPDX-License-Identifier: Apache-2.0

import LinuxDevices
import PCIFunction
import Platform
import Synchronization
import SystemPackage
import TestSupport

@testable import VFIOPCI

/// A tree of files as the kernel has them for an NVMe function, and what the kernel does when its files are
/// written to.
final class FakePCI: Sendable {
  static let address = PCIAddress(bus: 1, device: 0, function: 0)

  let tree: SysfsTree
  /// Whether vfio-pci takes the function when it is asked to.
  private let vfioTakes: Bool
  private let log = Lock<[String]>([])

  init(driver: String? = "nvme", vfioTakes: Bool = true) throws {
    tree = try SysfsTree()
    self.vfioTakes = vfioTakes
    try tree.write([
      "\(Self.sysfs)/vendor": "0x1b36", "\(Self.sysfs)/device": "0x0010",
      "\(Self.sysfs)/class": "0x010802", "\(Self.sysfs)/revision": "0x02",
      "\(Self.sysfs)/driver_override": "(null)",
    ])
    for name in ["nvme", "vfio-pci"] { try tree.makeDirectory("sys/bus/pci/drivers/\(name)") }
    if let driver { try setDriver(driver) }
  }

  static let sysfs = "sys/bus/pci/devices/\(address)"

  var paths: SystemPaths {
    SystemPaths(
      sysfs: tree.path + "/sys", devices: tree.path + "/dev", processes: tree.path + "/proc")
  }

  /// What was written, with paths below the tree.
  var writes: [String] { log.withLock { $0 } }

  var binding: PCIBinding {
    PCIBinding(paths, attempts: 2) { [self] path, text throws(Errno) in
      let name = String(path.dropFirst(tree.path.count + 1))
      let word = text.last == "\n" ? String(text.dropLast()) : text
      log.withLock { $0.append("\(name) \(word)") }
      do {
        try take(name, word)
      } catch {
        throw error as? Errno ?? .ioError
      }
    }
  }

  func setDriver(_ name: String?) throws {
    try? tree.remove("\(Self.sysfs)/driver")
    if let name { try tree.link("\(Self.sysfs)/driver", to: "../../../../bus/pci/drivers/\(name)") }
  }

  func setGroup(_ number: Int, name: String? = nil, others: [String: String] = [:]) throws {
    let group = "sys/kernel/iommu_groups/\(number)"
    try tree.makeDirectory("\(group)/devices/\(Self.address)")
    if let name { try tree.write(["\(group)/name": name]) }
    for (address, driver) in others {
      try tree.link("\(group)/devices/\(address)/driver", to: "../\(driver)")
    }
    try? tree.remove("\(Self.sysfs)/iommu_group")
    try tree.link("\(Self.sysfs)/iommu_group", to: "../../../../kernel/iommu_groups/\(number)")
  }

  private func take(_ name: String, _ text: String) throws {
    switch name {
    case "\(Self.sysfs)/driver_override":
      try tree.write([name: text.isEmpty ? "(null)" : text])
    case "\(Self.sysfs)/driver/unbind": try setDriver(nil)
    case "sys/bus/pci/drivers_probe":
      let override = try PCIRecord(Self.address, paths)?.driverOverride
      if override == nil { try setDriver("nvme") }
      guard override == "vfio-pci" else { return }
      guard vfioTakes else { return }
      try setDriver("vfio-pci")
      try setGroup(7)
      try tree.write(["dev/vfio/7": ""])
    case "sys/bus/pci/drivers/nvme/bind": try setDriver("nvme")
    default: throw Errno.noSuchFileOrDirectory
    }
  }
}
