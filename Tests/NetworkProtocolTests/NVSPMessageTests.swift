// SPDX-License-Identifier: Apache-2.0

import NetworkProtocol
import Testing
import VMBus

@Suite struct NVSPMessageTests {
  @Test func versionsAreMajorAndMinor() {
    #expect(
      NVSPVersion.newestFirst.map(\.description) == ["6.1", "6.0", "5.0", "4.0", "3.2", "0.2"])
    #expect(NVSPVersion.v61.rawValue == 0x60001 && NVSPVersion.v1.rawValue == 2)
    #expect(NVSPVersion.v61.next == .v6 && NVSPVersion.v4.next == .v2 && NVSPVersion.v1.next == nil)
    #expect(NVSPVersion.v6.messageByteCount == 28 && NVSPVersion.v61.messageByteCount == 40)
    #expect(NVSPVersion.v5.ndisVersion == NVSPNDISVersion(major: 6, minor: 30))
    #expect(NVSPVersion.v4.ndisVersion == NVSPNDISVersion(major: 6, minor: 1))
    #expect(!NVSPVersion(rawValue: 0x70000).isKnown)
  }

  @Test func typesAreNumberedAndNamed() {
    let numbers: [UInt32] = [
      1, 2, 100, 101, 102, 103, 104, 105, 106, 107, 108, 125, 128, 129, 133, 134,
    ]
    let names = numbers.map { NVSPMessageType(rawValue: $0).description }
    #expect(
      names == [
        "INIT", "INIT_COMPLETE", "SEND_NDIS_VERSION", "SEND_RECEIVE_BUFFER",
        "SEND_RECEIVE_BUFFER_COMPLETE", "REVOKE_RECEIVE_BUFFER", "SEND_SEND_BUFFER",
        "SEND_SEND_BUFFER_COMPLETE", "REVOKE_SEND_BUFFER", "SEND_RNDIS_PACKET",
        "SEND_RNDIS_PACKET_COMPLETE", "SEND_NDIS_CONFIG", "SEND_VF_ASSOCIATION",
        "SWITCH_DATA_PATH", "SUBCHANNEL", "SEND_INDIRECTION_TABLE",
      ])
    #expect(NVSPMessageType.subchannel.firstVersion == .v5)
    #expect(NVSPMessageType(rawValue: 99).firstVersion == nil)
    #expect(NVSPStatus.busy.rawValue == 6 && NVSPStatus.success.rawValue == 1)
  }

  private func bytes(_ message: NVSPMessage) -> [UInt8] { message.indices.map { message[$0] } }

  private func padded(_ bytes: [UInt8]) -> [UInt8] {
    bytes + [UInt8](repeating: 0, count: 40 - bytes.count)
  }

  @Test func startUpMessagesHaveTheirBytes() {
    #expect(
      bytes(NVSPInitialize(minimum: .v61, maximum: .v61).message)
        == padded([1, 0, 0, 0, 1, 0, 6, 0, 1, 0, 6, 0]))
    #expect(
      bytes(NVSPVersion.v61.ndisVersion.message) == padded([100, 0, 0, 0, 6, 0, 0, 0, 30, 0, 0, 0]))
    #expect(
      bytes(
        NVSPNDISConfiguration(
          frameByteCount: 1514, capabilities: [.ieee8021q, .sriov, .teaming, .receiveCoalescing]
        ).message)
        == padded([125, 0, 0, 0, 0xEA, 0x05, 0, 0, 0, 0, 0, 0, 0xAC, 0, 0, 0, 0, 0, 0, 0]))
    #expect(
      bytes(NVSPReceiveBuffer(gpadl: 0x1234_5678, id: 0xCAFE).message)
        == padded([101, 0, 0, 0, 0x78, 0x56, 0x34, 0x12, 0xFE, 0xCA]))
    #expect(
      bytes(NVSPSendBuffer(gpadl: 0x0E1E2, id: 0).message) == padded([104, 0, 0, 0, 0xE2, 0xE1]))
    #expect(
      bytes(NVSPRevokeReceiveBuffer(id: 0xCAFE).message) == padded([103, 0, 0, 0, 0xFE, 0xCA]))
    #expect(bytes(NVSPRevokeSendBuffer(id: 0).message) == padded([106, 0, 0, 0]))
    #expect(
      bytes(NVSPSubchannelRequest(operation: .allocate, count: 7).message)
        == padded([133, 0, 0, 0, 1, 0, 0, 0, 7]))
    #expect(bytes(NVSPSwitchDataPath(path: .virtualFunction).message) == padded([129, 0, 0, 0, 1]))
  }

  @Test func completionsAreRead() throws {
    let initialized = try read(
      NVSPInitializeComplete.self, [2, 0, 0, 0, 0xFF, 0xFF, 0xFF, 0xFF, 34, 0, 0, 0, 1, 0, 0, 0])
    #expect(initialized.maximumMDLChainLength == 34 && initialized.status == .success)
    let buffer = try read(
      NVSPReceiveBufferComplete.self,
      [
        102, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0x0E, 0x07, 0, 0, 0x22, 0x11, 0, 0, 0xDC,
        0x77, 0x78, 0,
      ])
    #expect(buffer.status == .success && buffer.sectionCount == 1)
    #expect(buffer.section.suballocationByteCount == 1806)
    #expect(buffer.section.suballocationCount == 0x1122)
    #expect(buffer.section.endOffset == 0x7877DC)
    let send = try read(
      NVSPSendBufferComplete.self, [105, 0, 0, 0, 1, 0, 0, 0, 0, 24, 0, 0])
    #expect(send.sectionByteCount == 6144)
    let association = try read(NVSPVFAssociation.self, [128, 0, 0, 0, 1, 0, 0, 0, 9, 0, 0, 0])
    #expect(association.isAllocated == 1 && association.serialNumber == 9)
    let packet = try read(
      NVSPRNDISPacket.self, [107, 0, 0, 0, 1, 0, 0, 0, 0xFF, 0xFF, 0xFF, 0xFF, 0, 0, 0, 0])
    #expect(packet.channel == .control && packet.sectionIndex == NVSPRNDISPacket.noSection)
    let done = try read(NVSPRNDISPacketComplete.self, [108, 0, 0, 0, 5, 0, 0, 0])
    #expect(done.status == .invalidRNDISPacket)
    let granted = try read(NVSPSubchannelComplete.self, [133, 0, 0, 0, 1, 0, 0, 0, 3, 0, 0, 0])
    #expect(granted.count == 3)
  }

  private func read<Body: NVSPBody>(_ type: Body.Type, _ bytes: [UInt8]) throws(WireError) -> Body {
    try Body(message: unsafe bytes.span.bytes)
  }

  @Test func messageOfAnotherTypeOrTooShortIsRefused() {
    #expect(throws: WireError.unknownType("NVSPRNDISPacketComplete", value: 107)) {
      try read(NVSPRNDISPacketComplete.self, [107, 0, 0, 0, 1, 0, 0, 0])
    }
    #expect(throws: WireError.tooShort("NVSPHeader", needed: 4, found: 3)) {
      try read(NVSPRNDISPacketComplete.self, [108, 0, 0])
    }
    #expect(throws: WireError.tooShort("NVSPSendBufferComplete", needed: 8, found: 4)) {
      try read(NVSPSendBufferComplete.self, [105, 0, 0, 0, 1, 0, 0, 0])
    }
  }

  // MARK: - Indirection tables

  private func table(offset: UInt8, count: UInt8 = 16, entriesAt start: Int) -> [UInt8] {
    var bytes: [UInt8] = [134, 0, 0, 0, count, 0, 0, 0, offset, 0, 0, 0]
    bytes += [UInt8](repeating: 0xEE, count: start - 12)
    for entry in 0..<16 { bytes += [UInt8(entry % 5), 0, 0, 0] }
    return bytes
  }

  private func parse(
    _ bytes: [UInt8], _ version: NVSPVersion = .v61
  ) throws(WireError) -> SendIndirectionTable {
    try SendIndirectionTable(message: unsafe bytes.span.bytes, version: version)
  }

  @Test func tableIsReadWhereItsOffsetSays() throws {
    for start in [12, 20, 40] {
      let table = try parse(table(offset: UInt8(start), entriesAt: start))
      #expect(table.entries[0] == 0 && table.entries[4] == 4 && table.entries[15] == 0)
      #expect(table.queue(of: 0x1234_5673) == 3)
    }
  }

  @Test func oldHostsCountTheOffsetWrongly() throws {
    let bytes = table(offset: 36, entriesAt: 40)
    #expect(try parse(bytes, .v6).entries[1] == 1)
    // The newest version means what it says.
    #expect(try parse(bytes, .v61).entries[1] == 0)
  }

  @Test(arguments: [
    (UInt8(12), UInt8(15)), (12, 17), (12, 0), (8, 16), (0, 16), (13, 16), (80, 16), (255, 16),
  ])
  func badTableIsRefused(offset: UInt8, count: UInt8) {
    #expect(throws: WireError.self) {
      try parse(table(offset: offset, count: count, entriesAt: 12))
    }
  }

  @Test func tableIsWrittenBehindItsHeader() throws {
    let message = SendIndirectionTable(queueCount: 3).message
    let bytes = message.indices.map { message[$0] }
    #expect(bytes[..<20] == [134, 0, 0, 0, 16, 0, 0, 0, 12, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0])
    #expect(bytes[20...27] == [2, 0, 0, 0, 0, 0, 0, 0])
  }
}
