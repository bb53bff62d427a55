// SPDX-License-Identifier: Apache-2.0

import PCIFunction
import TestSupport
import Testing

@testable import DeviceBinding

@Suite struct NamedDeviceTests {
  @Test(arguments: [
    "f8b3781a-1e82-4818-a1c3-63d806ec15bb", "9", "network", "network:0", "eth7",
    "f8615163-df3e-46c5-913f-f2d2f965ed0e:0",
  ])
  func aDeviceHasManyNames(name: String) throws {
    let kernel = try FakeVMBus(FakeVMBus.network, driver: "hv_netvsc")
    try kernel.tree.makeDirectory("\(FakeVMBus.device)/net/eth7")
    #expect(try NamedDevice(name, kernel.paths) == .vmbus(kernel.guid))
  }

  @Test func aFunctionHasAnAddress() throws {
    let kernel = try FakeVMBus()
    let address = PCIAddress(bus: 1, device: 2, function: 0)
    #expect(try NamedDevice("0000:01:02.0", kernel.paths) == .pci(address))
  }

  @Test(arguments: ["network", "scsi:1", "8", "f8b3781a-1e82-4818-a1c3-63d806ec15bc"])
  func whatIsNotThereIsSaidToBe(name: String) throws {
    let kernel = try FakeVMBus()
    #expect(throws: NamedDeviceError.notThere(name)) { try NamedDevice(name, kernel.paths) }
  }

  @Test(arguments: ["", "eth0", "scsi:x", "0000:01", "-1", "\u{1B}[2J"])
  func whatIsNoNameIsSaidToBe(name: String) throws {
    let kernel = try FakeVMBus()
    #expect(throws: NamedDeviceError.noName(name)) { try NamedDevice(name, kernel.paths) }
  }

  /// Nothing of it but its directory's name is known.
  @Test func aBrokenDeviceSaysSo() throws {
    let kernel = try FakeVMBus()
    try kernel.tree.write(["\(FakeVMBus.device)/id": "nine"])
    #expect(throws: NamedDeviceError.self) { try NamedDevice(FakeVMBus.name, kernel.paths) }
    do throws(NamedDeviceError) {
      _ = try NamedDevice(FakeVMBus.name, kernel.paths)
    } catch {
      #expect(error.description.hasSuffix("/id: 'nine' is not a relid"))
    }
  }
}
