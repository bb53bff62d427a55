// SPDX-License-Identifier: Apache-2.0

import LinuxDevices
import PCIFunction
import TestSupport
import Testing

@testable import VFIOPCI

@Suite struct PCIBindingTests {
  private let address = FakePCI.address

  private func error(
    _ body: () async throws(PCIBindingError) -> Void
  ) async -> PCIBindingError? {
    do throws(PCIBindingError) {
      try await body()
      return nil
    } catch {
      return error
    }
  }

  @Test func aFunctionChangesHandsInFourSteps() async throws {
    let kernel = try FakePCI()
    try await kernel.binding.bind(address)
    #expect(
      kernel.writes == [
        "\(FakePCI.sysfs)/driver_override vfio-pci", "\(FakePCI.sysfs)/driver/unbind \(address)",
        "sys/bus/pci/drivers_probe \(address)",
      ])
    #expect(try PCIRecord(address, kernel.paths)?.driver == "vfio-pci")
    // Once more is nothing.
    try await kernel.binding.bind(address)
    #expect(kernel.writes.count == 3)
  }

  @Test func aFunctionThatNobodyHasIsNotUnbound() async throws {
    let kernel = try FakePCI(driver: nil)
    try await kernel.binding.bind(address)
    #expect(kernel.writes.count == 2)
  }

  @Test func whatIsRefusedIsUndone() async throws {
    let kernel = try FakePCI(vfioTakes: false)
    let error = await error { () throws(PCIBindingError) in try await kernel.binding.bind(address) }
    #expect(error == .notSettled(address, driver: nil, hasIOMMU: false))
    #expect(error?.remedy?.contains("enable_unsafe_noiommu_mode") == true)
    let now = try PCIRecord(address, kernel.paths)
    #expect(now?.driver == "nvme" && now?.driverOverride == nil)
    #expect(kernel.writes.last == "sys/bus/pci/drivers/nvme/bind \(address)")
  }

  @Test func aFunctionGoesBackToTheDriverThatTheKernelChooses() async throws {
    let kernel = try FakePCI()
    try await kernel.binding.bind(address)
    try await kernel.binding.restore(address)
    let now = try PCIRecord(address, kernel.paths)
    #expect(now?.driver == "nvme" && now?.driverOverride == nil)
  }

  @Test func aFunctionCanBeNobodys() async throws {
    let kernel = try FakePCI()
    try await kernel.binding.unbind(address)
    #expect(try PCIRecord(address, kernel.paths)?.driver == nil)
    #expect(kernel.writes == ["\(FakePCI.sysfs)/driver/unbind \(address)"])
    // Once more is nothing.
    try await kernel.binding.unbind(address)
    #expect(kernel.writes.count == 1)
  }

  @Test func withoutTheModuleNothingIsTouched() async throws {
    let kernel = try FakePCI()
    try kernel.tree.remove("sys/bus/pci/drivers/vfio-pci")
    let error = await error { () throws(PCIBindingError) in try await kernel.binding.bind(address) }
    #expect(error == .noDriver("vfio-pci") && kernel.writes.isEmpty)
  }

  @Test func whatIsNotThereIsNotBound() async throws {
    let kernel = try FakePCI()
    let other = PCIAddress(bus: 7, device: 0, function: 0)
    let error = await error { () throws(PCIBindingError) in try await kernel.binding.bind(other) }
    #expect(error == .notThere(other) && kernel.writes.isEmpty)
  }

  // MARK: - Disks in use

  /// An NVMe disk with a partition, as kernels have it that join several paths to one disk.
  private func addDisk(_ kernel: FakePCI, isShared: Bool) throws {
    let below = "\(FakePCI.sysfs)/nvme/nvme0/" + (isShared ? "nvme0c0n1" : "nvme0n1")
    try kernel.tree.makeDirectory(below)
    try kernel.tree.link("\(below)/subsystem", to: "../../../../../../../class/block")
    let disk = isShared ? "sys/block/nvme0n1" : below
    try kernel.tree.write([
      "\(disk)/dev": "259:0", "\(disk)/nvme0n1p1/dev": "259:1",
    ])
    try kernel.tree.link("\(disk)/nvme0n1p1/subsystem", to: "../../class/block")
  }

  @Test(arguments: [false, true])
  func aMountedPartitionKeepsItsFunction(isShared: Bool) async throws {
    let kernel = try FakePCI()
    try addDisk(kernel, isShared: isShared)
    try kernel.tree.write([
      "proc/self/mountinfo":
        "22 1 259:1 / / rw,relatime shared:1 - ext4 /dev/root rw\n23 22 0:5 / /dev rw - devtmpfs udev rw"
    ])
    let error = await error { () throws(PCIBindingError) in try await kernel.binding.bind(address) }
    #expect(error == .inUse(address, by: ["nvme0n1p1 (mounted at /)"]))
    #expect(kernel.writes.isEmpty)
  }

  @Test func aSourceIsKnownByNameToo() async throws {
    let kernel = try FakePCI()
    try addDisk(kernel, isShared: false)
    // btrfs has numbers of its own.
    try kernel.tree.write([
      "proc/self/mountinfo":
        "22 1 0:31 /root /home rw - btrfs \(kernel.paths.devices)/nvme0n1 rw,subvol=/root"
    ])
    let error = await error { () throws(PCIBindingError) in try await kernel.binding.bind(address) }
    #expect(error == .inUse(address, by: ["nvme0n1 (mounted at /home)"]))
  }

  @Test func swapAndWhatIsMadeOfItKeepItToo() async throws {
    let kernel = try FakePCI()
    try addDisk(kernel, isShared: true)
    try kernel.tree.write([
      "proc/swaps":
        "Filename Type Size Used Priority\n\(kernel.paths.devices)/nvme0n1p1 partition 1 0 -2",
      "sys/block/nvme0n1/holders/dm-0/dev": "254:0",
    ])
    let error = await error { () throws(PCIBindingError) in try await kernel.binding.bind(address) }
    #expect(error == .inUse(address, by: ["nvme0n1 (part of dm-0)", "nvme0n1p1 (swap)"]))
  }

  @Test func aMountedDiskIsTakenWhenSomebodyInsists() async throws {
    let kernel = try FakePCI()
    try addDisk(kernel, isShared: false)
    try kernel.tree.write(["proc/self/mountinfo": "22 1 259:1 / / rw - ext4 /dev/root rw"])
    try await kernel.binding.bind(address, evenInUse: true)
    #expect(try PCIRecord(address, kernel.paths)?.isBoundToVFIO == true)
  }

  @Test func aDiskThatNobodyUsesChangesHands() async throws {
    let kernel = try FakePCI()
    try addDisk(kernel, isShared: true)
    try kernel.tree.write([
      "proc/self/mountinfo": "22 1 8:1 / / rw - ext4 /dev/sda1 rw", "proc/swaps": "Filename",
    ])
    try await kernel.binding.bind(address)
    #expect(try PCIRecord(address, kernel.paths)?.isBoundToVFIO == true)
  }
}
