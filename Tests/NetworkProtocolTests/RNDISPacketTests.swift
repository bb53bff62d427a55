// SPDX-License-Identifier: Apache-2.0

import NetworkProtocol
import Testing
import VMBus

@Suite struct RNDISPacketTests {
  /// A data message of 100 bytes with a checksum and a VLAN, and 10 bytes of frame at 84.
  static let message: [UInt8] = {
    var bytes: [UInt8] = [
      1, 0, 0, 0, 100, 0, 0, 0,  // PACKET, 100 bytes
      76, 0, 0, 0, 10, 0, 0, 0,  // data at 8 + 76, 10 bytes
      0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,  // no out-of-band data
      36, 0, 0, 0, 32, 0, 0, 0,  // info at 8 + 36, 32 bytes
      0, 0, 0, 0, 0, 0, 0, 0,
      16, 0, 0, 0, 0, 0, 0, 0, 12, 0, 0, 0, 0x28, 0, 0, 0,  // checksum: TCP and IP succeeded
      16, 0, 0, 0, 6, 0, 0, 0, 12, 0, 0, 0, 0x5B, 6, 0, 0,  // VLAN 0x65, DEI, priority 3
    ]
    bytes += [UInt8](repeating: 0, count: 8) + (0..<10).map { 0xA0 + UInt8($0) }
    return bytes + [UInt8](repeating: 0, count: 6)
  }()

  private func layout(_ bytes: [UInt8], limit: Int? = nil) throws(WireError) -> RNDISPacketLayout {
    try RNDISPacketLayout(RNDISPacketHeader(parsing: bytes), limit: limit ?? bytes.count)
  }

  @Test func partsAreFound() throws {
    let layout = try layout(Self.message, limit: 1806)
    #expect(layout.messageByteCount == 100)
    #expect(layout.dataOffset == 84 && layout.dataByteCount == 10)
    #expect(layout.infoOffset == 44 && layout.infoByteCount == 32)
    let info = try info(Array(Self.message[44..<76]))
    #expect(info.present == [.checksum, .vlan])
    #expect(info.checksum == [.tcpSucceeded, .ipSucceeded])
    #expect(info.vlan.id == 0x65 && info.vlan.priority == 3 && info.vlan.isDropEligible)
    #expect(info.vlan.tag == 0x7065)
  }

  @Test func messageWithoutInfoIsWhole() throws {
    var bytes = Self.message
    for index in 28..<36 { bytes[index] = 0 }
    let layout = try layout(bytes)
    #expect(layout.infoByteCount == 0 && layout.infoOffset == 0)
  }

  /// Words at offsets of the header that break it.
  @Test(arguments: [
    (0, UInt32(2)), (0, 0x8000_0001),  // not a data message
    (4, 43), (4, 101), (4, 0), (4, .max),  // length
    (8, 35), (8, 0), (8, 93), (8, 83), (8, .max), (8, 0xFFFF_FFF8),  // data offset
    (12, 0), (12, 17), (12, .max),  // data length
    (20, 1), (24, 1), (36, 1),  // out-of-band data, virtual connection
    (28, 35), (28, 0), (28, 37), (28, 48), (28, 96), (28, .max), (28, 0xFFFF_FFF8),  // info offset
    (32, 44), (32, 33), (32, 60), (32, .max), (32, 0x8000_0000),  // info length
  ])
  func badHeaderIsRefused(offset: Int, value: UInt32) {
    var bytes = Self.message
    bytes.replaceSubrange(offset..<offset + 4, with: value.littleEndianBytes)
    #expect(throws: WireError.self) { try layout(bytes) }
  }

  @Test func messageMustFitItsRange() {
    #expect(throws: WireError.invalid("RNDIS packet", field: "messageByteCount", value: 100)) {
      try layout(Self.message, limit: 99)
    }
    #expect(throws: WireError.tooShort("RNDIS packet", needed: 44, found: 43)) {
      try layout(Array(Self.message[..<43]))
    }
  }

  // MARK: - Info

  private func info(_ bytes: [UInt8]) throws(WireError) -> PerPacketInfo {
    try PerPacketInfo(parsing: unsafe bytes.span.bytes)
  }

  @Test func infoOfAllKindsIsRead() throws {
    var bytes: [UInt8] = []
    for (type, word) in [
      (UInt32(2), UInt32(0xC365_05A8)), (8, 0xDEAD_BEEF), (9, 0x0000_0201),
      (0x8000_0001, 0x0007_0301),
    ] {
      bytes += UInt32(16).littleEndianBytes + type.littleEndianBytes + UInt32(12).littleEndianBytes
      bytes += word.littleEndianBytes
    }
    // A kind that nobody knows, and a word behind a gap.
    bytes += [24, 0, 0, 0, 0x63, 0, 0, 0, 12, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9, 9]
    bytes += [20, 0, 0, 0, 0, 0, 0, 0, 16, 0, 0, 0, 0xFF, 0xFF, 0xFF, 0xFF, 0x15, 0, 0x36, 0]
    let info = try info(bytes)
    #expect(info.present == [.largeSend, .hashValue, .hashInfo, .packetID, .checksum])
    #expect(info.largeSend.segmentByteCount == 0x505A8 && info.largeSend.tcpHeaderOffset == 0x36)
    #expect(info.largeSend.isVersion2 && info.largeSend.isIPv6)
    #expect(info.hashValue == 0xDEAD_BEEF)
    #expect(info.hashInfo == [.toeplitz, .tcpIPv4])
    #expect(info.packetID.isSuballocation && info.packetID.isFirst && !info.packetID.isLast)
    #expect(info.packetID.id == 7 && info.packetID.version == 1)
    #expect(info.checksum.contains([.isIPv4, .tcp, .ipHeader]))
    #expect(info.checksum.tcpHeaderOffset == 0x36)
  }

  /// Sizes and offsets of one element of 16 bytes: a size of zero must not loop for ever.
  @Test(arguments: [
    (UInt32(0), UInt32(12)), (4, 12), (11, 12), (13, 12), (20, 12), (.max, 12), (0xFFFF_FFFC, 12),
    (16, 8), (16, 0), (16, 13), (16, 16), (16, 20), (16, .max),
  ])
  func badInfoIsRefused(size: UInt32, offset: UInt32) {
    let bytes =
      size.littleEndianBytes + UInt32(0).littleEndianBytes + offset.littleEndianBytes
      + UInt32(1).littleEndianBytes
    #expect(throws: WireError.self) { try info(bytes) }
  }

  @Test func infoOfOneKindTwiceOrWithoutEndIsRefused() {
    let element = Array(Self.message[44..<60])
    #expect(throws: WireError.invalid("per-packet info", field: "repeated type", value: 0)) {
      try info(element + element)
    }
    #expect(throws: WireError.self) { try info(element + [16, 0, 0, 0]) }
    let many = (0..<17).flatMap { _ in
      [16, 0, 0, 0, 99, 0, 0, 0, 12, 0, 0, 0, 0, 0, 0, 0] as [UInt8]
    }
    #expect(throws: WireError.self) { try info(many) }
  }

  // MARK: - Writing

  @Test func messageIsWritten() {
    var info = PerPacketInfo()
    info.checksum = [.tcpSucceeded, .ipSucceeded]
    info.vlan = VLANInfo(id: 0x65, priority: 3, isDropEligible: true)
    #expect(info.byteCount == 32 && info.headerByteCount == 76)
    var bytes = [UInt8](repeating: 0, count: 100)
    for index in 0..<10 { bytes[84 + index] = 0xA0 + UInt8(index) }
    var span = bytes.mutableSpan
    var target = unsafe span.mutableBytes
    let offset = info.writeHeader(
      into: &target, dataByteCount: 10, dataOffset: 84, messageByteCount: 100)
    #expect(offset == 84)
    #expect(bytes == Self.message)
  }

  @Test func frameFollowsTheInfoByDefault() throws {
    var bytes = [UInt8](repeating: 0xEE, count: 80)
    var span = bytes.mutableSpan
    var target = unsafe span.mutableBytes
    let offset = PerPacketInfo().writeHeader(into: &target, at: 8, dataByteCount: 20)
    #expect(offset == 44)
    let found = try layout(Array(bytes[8...]), limit: 64)
    #expect(found.dataOffset == 44 && found.dataByteCount == 20 && found.messageByteCount == 64)
    #expect(bytes[..<8] == [UInt8](repeating: 0xEE, count: 8)[...] && bytes[52] == 0xEE)
  }

  @Test func packedWordsHaveTheirBits() {
    #expect(
      LargeSendInfo(segmentByteCount: 1448, tcpHeaderOffset: 54, isIPv6: false).rawValue
        == 0x4360_05A8)
    #expect(VLANInfo(id: 0xABC, priority: 5).rawValue == 0xABC5)
    #expect(VLANInfo(tag: 0xB123).rawValue == 0x123D)
    #expect(PacketID(isFirst: false, isLast: true, id: 3).rawValue == 0x0003_0501)
    var checksum: ChecksumInfo = [.isIPv4, .udp]
    checksum.tcpHeaderOffset = 34
    #expect(checksum.rawValue == 0x0022_0009)
  }
}
