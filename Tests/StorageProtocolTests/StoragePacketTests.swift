// SPDX-License-Identifier: Apache-2.0

import StorageProtocol
import Testing
import VMBus

@Suite struct StoragePacketTests {
  @Test func headerLies12BytesAheadOfTheBody() throws {
    let bytes: [UInt8] = [0x0A, 0, 0, 0, 0x01, 0, 0, 0, 0x59, 0x00, 0x00, 0xC0]
    let header = try StoragePacketHeader(parsing: bytes)
    #expect(header.operation == .queryProperties)
    #expect(header.flags == .requestCompletion)
    #expect(header.status == .revisionMismatch)
    #expect(header.wireBytes == bytes)
  }

  @Test func operationsAreNumberedAndNamed() {
    let names = (1...14).map { StorageOperation(rawValue: $0).description }
    #expect(
      names == [
        "COMPLETE_IO", "REMOVE_DEVICE", "EXECUTE_SRB", "RESET_LUN", "RESET_ADAPTER", "RESET_BUS",
        "BEGIN_INITIALIZATION", "END_INITIALIZATION", "QUERY_PROTOCOL_VERSION",
        "QUERY_PROPERTIES", "ENUMERATE_BUS", "FC_HBA_DATA", "CREATE_SUB_CHANNELS",
        "EVENT_NOTIFICATION",
      ])
    #expect(StorageOperation(rawValue: 15).description == "operation 15")
  }

  @Test func versionIsMajorThenMinor() throws {
    let body = try StorageProtocolVersion(parsing: [0x02, 0x06, 0x07, 0x00])
    #expect(body.version == .windows10)
    #expect(body.version.description == "6.2")
    #expect(StorageProtocolVersion(.windows81).wireBytes == [0x00, 0x06, 0, 0])
    #expect(StorageVersion.windows7.packetByteCount == 48)
    #expect(StorageVersion.windows8.packetByteCount == 64)
    #expect(!StorageVersion(rawValue: 0x0601).isKnown)
  }

  @Test func propertiesHaveTheirOffsets() throws {
    let bytes: [UInt8] = [
      0, 0, 0, 0, 0x04, 0x01, 0, 0, 0x01, 0, 0, 0, 0, 0, 0x04, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    ]
    let properties = try StorageChannelProperties(parsing: bytes)
    #expect(properties.maximumSubchannels == 0x104)
    #expect(properties.flags == .multiChannel)
    #expect(properties.maximumTransferBytes == 0x40000)
    #expect(properties.wireBytes == bytes)
    #expect(try StorageSubchannelRequest(parsing: [0x34, 0x12]).count == 0x1234)
  }

  // Each byte is its offset, so that a field's value tells where it was read.
  static let counting = (0..<52).map { UInt8($0) }

  @Test func requestHasItsOffsets() throws {
    let request = try SCSIRequest(parsing: Self.counting)
    #expect(request.length == 0x0100)
    #expect(request.srbStatus.rawValue == 2)
    #expect(request.scsiStatus.rawValue == 3)
    #expect(request.path == 5)
    #expect(request.target == 6)
    #expect(request.lun == 7)
    #expect(request.commandLength == 8)
    #expect(request.senseLength == 9)
    #expect(request.direction.rawValue == 10)
    #expect(request.properties == 11)
    #expect(request.transferLength == 0x0F0E_0D0C)
    #expect(request.payload[0] == 16 && request.payload[19] == 35)
    #expect(request.queueTag == 38)
    #expect(request.queueAction == 39)
    #expect(request.flags.rawValue == 0x2B2A_2928)
    #expect(request.timeout == 0x2F2E_2D2C)
    #expect(request.sortKey == 0x3332_3130)
    var expected = Self.counting
    for hole in [4, 36, 37] { expected[hole] = 0 }
    #expect(request.wireBytes == expected)
  }

  @Test func shortRequestEndsAfterThePayload() throws {
    let short = Self.counting.span
    let request = try SCSIRequest(
      parsing: unsafe short.bytes.extracting(first: 36), version: .windows7)
    #expect(request.payload[19] == 35)
    #expect(request.timeout == 0)
    var written = [UInt8](repeating: 0xEE, count: 40)
    var span = written.mutableSpan
    var bytes = unsafe span.mutableBytes
    request.write(into: &bytes, at: 2, version: .windows7)
    #expect(written[0...1] == [0xEE, 0xEE] && written[38...39] == [0xEE, 0xEE])
    var expected = Array(Self.counting[..<36])
    expected[4] = 0
    #expect(Array(written[2..<38]) == expected)
  }

  @Test func requestThatIsTooShortIsRefused() {
    #expect(throws: WireError.tooShort("SCSIRequest", needed: 52, found: 36)) {
      try SCSIRequest(
        parsing: unsafe [UInt8](repeating: 0, count: 36).span.bytes, version: .windows8)
    }
    #expect(throws: WireError.tooShort("SCSIRequest.Short", needed: 36, found: 35)) {
      try SCSIRequest(
        parsing: unsafe [UInt8](repeating: 0, count: 35).span.bytes, version: .windowsVista)
    }
  }

  static let layouts: [(any WireLayout.Type)] = [
    StoragePacketHeader.self, StorageProtocolVersion.self, StorageChannelProperties.self,
    StorageSubchannelRequest.self, SCSIRequest.self, SCSIRequest.Short.self, BlockCommand6.self,
    BlockCommand10.self, BlockCommand12.self, BlockCommand16.self, InquiryCommand.self,
    SmallCommand6.self, ModeSenseCommand10.self, ReportLUNsCommand.self, FixedSenseData.self,
    InquiryData.self, VitalProductDataHeader.self, BlockLimits.self, Capacity10.self,
    Capacity16.self, ReportLUNsHeader.self, ReportedLUN.self, ModeHeader6.self, ModeHeader10.self,
    CachingPage.self,
  ]

  @Test func eachLayoutHasTheSizeThatItSays() {
    for layout in Self.layouts {
      #expect(layout.init().wireBytes.count == layout.byteCount, "\(layout.name)")
    }
  }

  @Test func builtReadIsTheOneThatLinuxSends() {
    let request = SCSIRequest(
      .read(SCSIExtent(address: 0x0102_0304_0506_0708, count: 8)), lun: 3, transferLength: 4096,
      version: .windows81)
    let expected: [UInt8] =
      [52, 0, 0, 0, 0, 0, 0, 3, 16, 20, 1, 0, 0x00, 0x10, 0, 0]
      + [0x88, 0, 1, 2, 3, 4, 5, 6, 7, 8, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0]
      + [0, 0, 0xFF, 0x20, 0x4A, 0x01, 0, 0, 60, 0, 0, 0, 0, 0, 0, 0]
    #expect(request.wireBytes == expected)
    let flush = SCSIRequest(
      .synchronizeCache(SCSIExtent(address: 0, count: 0)), lun: 0, transferLength: 0,
      version: .windows7)
    #expect(flush.length == 36)
    #expect(flush.direction == .none)
    #expect(flush.commandLength == 10)
    #expect(flush.flags.isDisjoint(with: [.dataIn, .dataOut]))
  }
}
