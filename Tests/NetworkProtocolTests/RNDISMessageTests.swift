// SPDX-License-Identifier: Apache-2.0

import NetworkProtocol
import Testing
import VMBus

@Suite struct RNDISMessageTests {
  @Test func controlMessagesHaveTheirBytes() {
    #expect(
      RNDISInitialize(requestID: 7).messageBytes()
        == [
          2, 0, 0, 0, 24, 0, 0, 0, 7, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0x40, 0, 0,
        ])
    #expect(
      RNDISQuery(requestID: 8, oid: .permanentAddress).messageBytes()
        == [
          4, 0, 0, 0, 28, 0, 0, 0, 8, 0, 0, 0, 1, 1, 1, 1, 0, 0, 0, 0, 20, 0, 0, 0, 0, 0, 0, 0,
        ])
    #expect(
      RNDISSet(requestID: 9, oid: .currentPacketFilter, bufferByteCount: 4)
        .messageBytes(buffer: PacketFilter([.directed, .broadcast]).rawValue.littleEndianBytes)
        == [
          5, 0, 0, 0, 32, 0, 0, 0, 9, 0, 0, 0, 0x0E, 1, 1, 0, 4, 0, 0, 0, 20, 0, 0, 0, 0, 0, 0, 0,
          9, 0, 0, 0,
        ])
    #expect(RNDISHalt(requestID: 1).messageBytes() == [3, 0, 0, 0, 12, 0, 0, 0, 1, 0, 0, 0])
    #expect(
      RNDISKeepaliveComplete(requestID: 2).messageBytes()
        == [8, 0, 0, 0x80, 16, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0])
  }

  @Test func initializeCompletionHasItsOffsets() throws {
    var bytes: [UInt8] = [2, 0, 0, 0x80, 52, 0, 0, 0]
    bytes += (0..<44).map { UInt8($0) }
    let body = try RNDISInitializeComplete(
      message: unsafe RNDISHeader.message(in: bytes.span.bytes))
    #expect(body.requestID == 0x0302_0100)
    #expect(body.status.rawValue == 0x0706_0504)
    #expect(body.deviceFlags == 0x1312_1110)
    #expect(body.medium == 0x1716_1514)
    #expect(body.maximumPacketsPerMessage == 0x1B1A_1918)
    #expect(body.maximumTransferByteCount == 0x1F1E_1D1C)
    #expect(body.packetAlignment == 0x2322_2120)
  }

  static let answer: [UInt8] = [
    4, 0, 0, 0x80, 30, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 6, 0, 0, 0, 16, 0, 0, 0, 0x02, 0x15, 0x5D,
    1, 2, 3, 0xEE, 0xEE,
  ]

  private func buffer(_ bytes: [UInt8]) throws(WireError) -> [UInt8] {
    let whole = unsafe try RNDISHeader.message(in: bytes.span.bytes)
    let body = try RNDISQueryComplete(message: whole)
    let buffer = try RNDISQueryComplete.informationBuffer(
      of: whole, offset: body.bufferOffset, count: body.bufferByteCount)
    return (0..<buffer.byteCount).map {
      unsafe buffer.unsafeLoad(fromByteOffset: $0, as: UInt8.self)
    }
  }

  @Test func answerHasItsBuffer() throws {
    #expect(try buffer(Self.answer) == [2, 0x15, 0x5D, 1, 2, 3])
    var empty = Self.answer
    empty[16] = 0
    empty[20] = 0xFF
    #expect(try buffer(empty) == [])
  }

  /// The byte at the offset set to the value makes the buffer, or the message, lie where it can't.
  @Test(arguments: [
    (4, UInt8(7)), (4, 33), (4, 23), (7, 0xFF), (16, 7), (16, 31), (19, 0xFF), (20, 15), (20, 0),
    (20, 17), (23, 0xFF), (0, 5),
  ])
  func badAnswerIsRefused(offset: Int, value: UInt8) {
    var bytes = Self.answer
    bytes[offset] = value
    #expect(throws: WireError.self) { try buffer(bytes) }
  }

  static let layouts: [any WireLayout.Type] = [
    NVSPHeader.self, NVSPInitialize.self, NVSPInitializeComplete.self, NVSPNDISVersion.self,
    NVSPNDISConfiguration.self, NVSPReceiveBuffer.self, ReceiveBufferSection.self,
    NVSPReceiveBufferComplete.self, NVSPRevokeReceiveBuffer.self, NVSPSendBuffer.self,
    NVSPSendBufferComplete.self, NVSPRevokeSendBuffer.self, NVSPRNDISPacket.self,
    NVSPRNDISPacketComplete.self, NVSPVFAssociation.self, NVSPSwitchDataPath.self,
    NVSPOIDQueryComplete.self, NVSPSubchannelRequest.self, NVSPSubchannelComplete.self,
    NVSPIndirectionTableHeader.self, RNDISHeader.self, RNDISInitialize.self,
    RNDISInitializeComplete.self, RNDISHalt.self, RNDISQuery.self, RNDISQueryComplete.self,
    RNDISSet.self, RNDISSetComplete.self, RNDISReset.self, RNDISResetComplete.self,
    RNDISIndicateStatus.self, RNDISKeepalive.self, RNDISKeepaliveComplete.self,
    RNDISPacketHeader.self, MACAddress.self, NDISObjectHeader.self, RSSCapabilities.self,
    RSSParameters.self, NDISChecksumCapabilities.self, NDISLargeSendV1.self,
    NDISLargeSendV2.self, NDISOffload.self, NDISOffload630.self, NDISOffloadParameters.self,
  ]

  @Test(arguments: 0..<layouts.count)
  func sizesAddUp(index: Int) {
    let layout = Self.layouts[index]
    #expect(layout.init().wireBytes.count == layout.byteCount, "\(layout.name)")
  }

  // MARK: - Objects

  @Test func offloadHasItsOffsets() {
    let offload = NDISOffload()
    #expect(offload.wireBytes.prefix(4) == [0xA7, 3, 156, 0])
    #expect(offset(of: "ipv4Transmit", in: offload) == 8)
    #expect(offset(of: "ipv6Receive", in: offload) == 32)
    #expect(offset(of: "ipv4Encapsulation", in: offload) == 80)
    #expect(offset(of: "ipv4MaximumByteCount", in: offload) == 84)
    #expect(offset(of: "ipv6MaximumByteCount", in: offload) == 96)
    #expect(offset(of: "flags", in: offload) == 108)
    #expect(offset(of: "receiveCoalescingIPv4", in: NDISOffload630()) == 144 - 112)
    let parameters = NDISOffloadParameters()
    #expect(offset(of: "ipv4Checksum", in: parameters) == 4)
    #expect(offset(of: "udpIPv6Checksum", in: parameters) == 8)
    #expect(offset(of: "largeSendV1", in: parameters) == 9)
    #expect(offset(of: "largeSendV2IPv4", in: parameters) == 11)
    #expect(offset(of: "flags", in: parameters) == 16)
    #expect(offset(of: "receiveCoalescingIPv4", in: parameters) == 22)
  }

  @Test func scalingParametersHaveTheirOffsets() {
    let parameters = RSSParameters()
    #expect(parameters.wireBytes.prefix(4) == [0x89, 2, 40, 0])
    for (name, place) in [
      ("flags", 4), ("baseProcessor", 6), ("hash", 8), ("tableByteCount", 12), ("tableOffset", 16),
      ("keyByteCount", 20), ("keyOffset", 24), ("processorMasksOffset", 28),
    ] {
      #expect(offset(of: name, in: parameters) == place, "\(name)")
    }
    #expect(offset(of: "indirectionTableEntries", in: RSSCapabilities()) == 16)
  }

  private func offset(of name: String, in layout: any WireLayout) -> Int? {
    layout.fields.first { $0.name.description == name }?.offset
  }

  @Test func addressesAreReadAndPrinted() throws {
    let address = try MACAddress(parsing: [0x02, 0x15, 0x5D, 0xA, 0, 0xFF])
    #expect(address.description == "02:15:5d:0a:00:ff")
    #expect(MACAddress("02:15:5D:0a:0:ff") == address && MACAddress("02-15-5d-0a-00-ff") == address)
    #expect(MACAddress("02:15:5d:0a:00") == nil && MACAddress("02:15:5d:0a:00:100") == nil)
    #expect(address.wireBytes == [0x02, 0x15, 0x5D, 0xA, 0, 0xFF])
    #expect(!address.isGroup && MACAddress.broadcast.isGroup)
  }
}

extension UInt32 {
  var littleEndianBytes: [UInt8] { (0..<4).map { UInt8(truncatingIfNeeded: self >> (8 * $0)) } }
}
