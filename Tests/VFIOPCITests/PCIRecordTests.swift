// SPDX-License-Identifier: Apache-2.0

import LinuxDevices
import PCIFunction
import TestSupport
import Testing

@testable import VFIOPCI

@Suite struct PCIRecordTests {
  let kernel: FakePCI

  init() throws { kernel = try FakePCI() }

  private func record() throws -> PCIRecord {
    try #require(try PCIRecord(FakePCI.address, kernel.paths))
  }

  @Test func aFunctionIsReadAsTheKernelTellsIt() throws {
    try kernel.setGroup(11, others: ["0000:01:00.1": "e1000e", "0000:00:06.0": "pcieport"])
    let found = try record()
    #expect(found.vendor == 0x1B36 && found.device == 0x10)
    #expect(found.classCode == 0x01_0802 && found.revision == 2)
    #expect(found.driver == "nvme" && found.driverOverride == nil && found.file == nil)
    #expect(found.group?.number == 11 && found.group?.isMadeUp == false)
    #expect(found.group?.strangers == ["0000:01:00.1 (e1000e)"])
    #expect(try PCIRecord.all(kernel.paths) == [found])
    #expect(try PCIRecord(PCIAddress(bus: 9, device: 1, function: 0), kernel.paths) == nil)
  }

  @Test func aNumberThatIsNoneIsAnError() throws {
    try kernel.tree.write(["\(FakePCI.sysfs)/class": "0x1,2"])
    #expect(throws: DiscoveryError.self) { try record() }
  }

  // MARK: - Ways

  @Test func aGroupIsAWay() throws {
    #expect(try record().ways(kernel.paths) == [])
    try kernel.setGroup(3)
    #expect(try record().ways(kernel.paths) == [.group])
    #expect(try record().node(.group, kernel.paths).hasSuffix("/dev/vfio/3"))
  }

  @Test func aFileOfItsOwnIsBetterWhereThereAreAddressSpaces() throws {
    try kernel.setGroup(3)
    try kernel.tree.makeDirectory("\(FakePCI.sysfs)/vfio-dev/vfio5")
    #expect(try record().ways(kernel.paths) == [.group])
    try kernel.tree.write(["dev/iommu": ""])
    #expect(try record().ways(kernel.paths) == [.file, .group])
    #expect(try record().node(.file, kernel.paths).hasSuffix("/dev/vfio/devices/vfio5"))
  }

  @Test func aMadeUpGroupIsOneWithoutAnIOMMU() throws {
    try kernel.setGroup(0, name: "vfio-noiommu")
    #expect(try record().ways(kernel.paths) == [.unguardedGroup])
    #expect(try record().node(.unguardedGroup, kernel.paths).hasSuffix("/dev/vfio/noiommu-0"))
    try kernel.tree.makeDirectory("\(FakePCI.sysfs)/vfio-dev/noiommu-vfio0")
    try kernel.tree.write(["dev/iommu": ""])
    #expect(try record().ways(kernel.paths) == [.unguardedFile, .unguardedGroup])
    #expect(
      try record().node(.unguardedFile, kernel.paths).hasSuffix("/dev/vfio/devices/noiommu-vfio0"))
  }

  // MARK: - Obstacles

  private func obstacle(_ way: VFIOWay? = nil) throws -> VFIOObstacle? {
    let found = try record()
    do throws(VFIOObstacle) {
      _ = try found.way(way, kernel.paths)
      return nil
    } catch {
      return error
    }
  }

  @Test func whatIsInTheWayIsToldInTheOrderInWhichItIsPutRight() throws {
    #expect(try obstacle() == .boundTo(driver: "nvme", FakePCI.address))
    try kernel.setDriver(nil)
    #expect(try obstacle() == .unbound(FakePCI.address))
    try kernel.tree.write(["\(FakePCI.sysfs)/driver_override": "vfio-pci"])
    #expect(try obstacle() == .noIOMMU(FakePCI.address))
    try kernel.setDriver("vfio-pci")
    try kernel.setGroup(4, others: ["0000:01:00.1": "e1000e"])
    #expect(try obstacle() == .sharedGroup(4, with: ["0000:01:00.1 (e1000e)"]))
    try kernel.tree.remove("sys/kernel/iommu_groups/4/devices/0000:01:00.1")
    #expect(try obstacle(.file) == .noSuchWay(.file, FakePCI.address))
    #expect(try obstacle() == .noNode(kernel.paths.devices + "/vfio/4"))
    try kernel.tree.write(["dev/vfio/4": ""])
    #expect(try obstacle() == nil)
    try kernel.tree.remove("sys/bus/pci/drivers/vfio-pci")
    #expect(try obstacle() == .moduleNotLoaded)
  }
}
