// SPDX-License-Identifier: Apache-2.0

import Testing
import VMBus

@testable import VMBusLinux
@testable import VMBusUIO

@Suite struct UIOLayoutTests {
  static let three = [
    UIOMap(name: "txrx_rings", byteCount: 4_194_304, offset: 0),
    UIOMap(name: "int_page", byteCount: 4096, offset: 0),
    UIOMap(name: "monitor_page", byteCount: 4096, offset: 0),
  ]
  static let buffers = [
    UIOMap(name: "recv:925201", byteCount: 32_505_856, offset: 0),
    UIOMap(name: "send:925202", byteCount: 16_777_216, offset: 0),
  ]

  @Test func threeMaps() throws {
    let layout = try UIOLayout(Self.three)
    #expect(layout.ringByteCount == 2_097_152)
    #expect(layout.receiveBuffer == nil)
    #expect(layout.sendBuffer == nil)
  }

  @Test func fiveMapsCarryTheBuffersHandles() throws {
    let layout = try UIOLayout(Self.three + Self.buffers)
    #expect(
      layout.receiveBuffer
        == UIOLayout.Buffer(map: 3, gpadl: GPADLID(0xE1E11), byteCount: 32_505_856))
    #expect(
      layout.sendBuffer
        == UIOLayout.Buffer(map: 4, gpadl: GPADLID(0xE1E12), byteCount: 16_777_216))
  }

  /// The kernel's ring for file copying, the smallest it makes: 16 KiB of data and a control page.
  @Test func smallRings() throws {
    var maps = Self.three
    maps[0].byteCount = 0xA000
    #expect(try UIOLayout(maps).ringByteCount == 0x5000)
  }

  @Test(arguments: [0, 1, 2, 4]) func anyOtherNumberOfMaps(_ count: Int) {
    #expect(throws: UIOLayoutError.mapCount(count)) {
      _ = try UIOLayout(Array((Self.three + Self.buffers).prefix(count)))
    }
  }

  @Test(arguments: [(0, "int_page"), (1, "txrx_rings"), (2, ""), (3, "send:1"), (4, "send:")])
  func aWrongName(_ map: Int, _ name: String) {
    var maps = Self.three + Self.buffers
    maps[map].name = name
    let expected: [WireName] = ["txrx_rings", "int_page", "monitor_page", "recv:", "send:"]
    #expect(throws: UIOLayoutError.name(map: map, found: name, expected: expected[map])) {
      _ = try UIOLayout(maps)
    }
  }

  @Test(arguments: ["recv:0xE1E11", "recv:-1", "recv:4294967296", "recv:1 ", "recv: 1"])
  func aHandleIsDecimal(_ name: String) {
    var maps = Self.three + Self.buffers
    maps[3].name = name
    #expect(throws: UIOLayoutError.name(map: 3, found: name, expected: "recv:")) {
      _ = try UIOLayout(maps)
    }
  }

  @Test(
    arguments: [
      (0, 0, 0), (0, 4096, 0), (0, 8192, 0), (0, 5 * 4096, 0), (0, 4_194_303, 0), (1, 2048, 0),
      (1, 4096, 16), (2, 0, 0), (0, UInt64.max & ~4095, 0),
    ] as [(Int, UInt64, UInt64)])
  func aWrongExtent(_ map: Int, _ byteCount: UInt64, _ offset: UInt64) {
    var maps = Self.three
    maps[map].byteCount = byteCount
    maps[map].offset = offset
    #expect(throws: UIOLayoutError.extent(map: map, maps[map])) { _ = try UIOLayout(maps) }
  }
}
