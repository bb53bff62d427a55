// SPDX-License-Identifier: Apache-2.0

import LinuxTestSupport
import TestSupport
import Testing
import VMBus

@testable import VMBusLinux

@Suite struct DeviceReadingTests {
  @Test func aControllerIsReadWithItsChannels() throws {
    let tree = try SysfsTree.controller()
    let record = try VMBusDeviceRecord(reading: tree.directory, nodes: [])
    #expect(record.instance == GUID(SysfsTree.instance))
    #expect(record.deviceClass == .scsi)
    #expect(record.channel == ChannelID(9))
    #expect(record.state == .closed)
    #expect(record.monitor == nil)
    #expect(record.driver == "uio_hv_generic")
    #expect(record.driverOverride == "uio_hv_generic")
    #expect(record.channels.map(\.channel) == [ChannelID(9), ChannelID(31)])
    #expect(record.channels.map(\.subchannelIndex) == [0, 1])
    #expect(record.channels.map(\.monitor) == [nil, MonitorID(12)])
    #expect(record.channels.map(\.ringFileByteCount) == [4 << 20, nil])
  }

  @Test func channelsAreReadAnew() throws {
    let tree = try SysfsTree.controller()
    let record = try VMBusDeviceRecord(reading: tree.directory, nodes: [])
    try tree.remove("channels/31")
    try tree.write(["channels/32/subchannel_id": "2"])
    let channels = try record.currentChannels()
    #expect(channels.map(\.channel) == [ChannelID(9), ChannelID(32)])
  }

  @Test(arguments: ["(null)", ""]) func nobodySaidWhichDriver(_ text: String) throws {
    let tree = try SysfsTree.controller()
    try tree.write(["driver_override": text])
    try tree.remove("driver")
    let record = try VMBusDeviceRecord(reading: tree.directory, nodes: [])
    #expect(record.driverOverride == nil)
    #expect(record.driver == nil)
  }

  @Test func whatTheKernelsDriversMadeIsFound() throws {
    let tree = try SysfsTree.controller()
    try tree.makeDirectory("net/eth0")
    try tree.makeDirectory("host0/target0:0:0/0:0:0:0/block/sda")
    try tree.makeDirectory("host0/target0:0:0/0:0:0:1/block/sdb")
    try tree.makeDirectory("host0/scsi_host/host0")
    let record = try VMBusDeviceRecord(reading: tree.directory, nodes: [])
    #expect(record.networkInterfaces == ["eth0"])
    #expect(record.blockDevices == ["sda", "sdb"])
  }

  @Test(arguments: [
    ("id", "x9"), ("id", "-1"), ("id", ""), ("id", "4294967296"), ("state", "opened"),
    ("class_id", SysfsTree.scsi), ("device_id", "{f8b3781a}"), ("monitor_id", "128"),
    ("channels/31/subchannel_id", "65536"),
  ])
  func aBrokenFileIsNamed(_ name: String, _ content: String) throws {
    let tree = try SysfsTree.controller()
    try tree.write([name: content])
    #expect {
      _ = try VMBusDeviceRecord(reading: tree.directory, nodes: [])
    } throws: { error in
      guard case .malformed(let file, let found, _) = error as? DiscoveryError else { return false }
      return file == "\(tree.path)/\(name)" && found == content
    }
  }

  @Test func aMissingFileIsNamed() throws {
    let tree = try SysfsTree.controller()
    try tree.remove("class_id")
    #expect(throws: DiscoveryError.missing(file: "\(tree.path)/class_id")) {
      _ = try VMBusDeviceRecord(reading: tree.directory, nodes: [])
    }
  }

  @Test func aDeviceThatIsGoneHasVanished() throws {
    let gone = SysfsDirectory("/nowhere/at/all")
    #expect(throws: DiscoveryError.vanished(path: gone.path)) {
      _ = try VMBusDeviceRecord(reading: gone, nodes: [])
    }
  }

  @Test func mapsAreReadInTheirOrder() throws {
    let tree = try SysfsTree()
    try tree.write([
      "maps/map0/name": "txrx_rings", "maps/map0/size": "0x0000000000400000",
      "maps/map0/offset": "0x0", "maps/map1/name": "int_page",
      "maps/map1/size": "0x0000000000001000", "maps/map1/offset": "0x0", "event": "42",
    ])
    let node = try UIODeviceRecord(reading: tree.directory, name: "uio3", node: "/dev/uio3")
    #expect(node.maps.map(\.name) == ["txrx_rings", "int_page"])
    #expect(node.maps.map(\.byteCount) == [4 << 20, 4096])
    #expect(node.eventCount == 42)
  }

  @Test func aMapsSizeIsHexadecimal() throws {
    let tree = try SysfsTree()
    try tree.write([
      "maps/map0/name": "txrx_rings", "maps/map0/size": "4194304", "maps/map0/offset": "0x0",
    ])
    let file = "\(tree.path)/maps/map0/size"
    #expect(
      throws: DiscoveryError.malformed(
        file: file, content: "4194304", expected: "a size in hexadecimal")
    ) {
      _ = try UIODeviceRecord(reading: tree.directory, name: "uio0", node: "/dev/uio0")
    }
  }

  @Test func whatABrokenFileSaysCanBePrinted() {
    let error = DiscoveryError.malformed(
      file: "/sys/x", content: "\u{1B}[2J" + String(repeating: "a", count: 100),
      expected: "a relid")
    #expect(
      error.description == "/sys/x: '?[2J" + String(repeating: "a", count: 56)
        + "...' is not a relid")
  }
}
