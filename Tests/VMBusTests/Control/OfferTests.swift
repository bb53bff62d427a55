// SPDX-License-Identifier: Apache-2.0

import Testing
import VMBus

@Suite struct OfferTests {
  @Test func onlyThreePairsOfFlagsAreLawful() {
    #expect(OfferFlags().confidentiality == .hostVisible)
    #expect(OfferFlags.confidentialRingBuffer.confidentiality == .ring)
    #expect(OfferFlags.confidential.confidentiality == .ringAndExternalMemory)
    #expect(OfferFlags.confidentialExternalMemory.confidentiality == nil)
  }

  @Test func flagValues() {
    #expect(OfferFlags.confidential.rawValue == 6)
    #expect(OfferFlags.namedPipeMode.rawValue == 0x10)
    #expect(OfferFlags.tlnpiProvider.rawValue == 0x2000)
  }

  @Test func namesAndGUIDsOfClasses() {
    #expect(DeviceClass.scsi.guid == "ba6163d9-04a1-4d29-b605-72e2ffb1dc7f")
    #expect(DeviceClass.network.guid == "f8615163-df3e-46c5-913f-f2d2f965ed0e")
    #expect(DeviceClass.balloon.name == "balloon")
    #expect(DeviceClass(named: "scsi") == .scsi)
    #expect(DeviceClass(named: "{BA6163D9-04A1-4D29-B605-72E2FFB1DC7F}") == .scsi)
    #expect(DeviceClass(named: "00000000-0000-0000-0000-000000000001")?.name == nil)
    #expect(DeviceClass(named: "disk") == nil)
    #expect(Set(DeviceClass.known.map(\.name)).count == 20)
    #expect(Set(DeviceClass.known.map(\.deviceClass)).count == 20)
  }

  @Test func monitorOfAnOffer() {
    var offer = OfferChannel()
    offer.monitorID = 0x41
    #expect(offer.monitor == nil)
    offer.monitorAllocated = 1
    #expect(offer.monitor?.group == 2)
    #expect(offer.monitor?.bit == 1)
    #expect(offer.monitor?.mask == 2)
    offer.monitorID = OfferChannel.noMonitor
    #expect(offer.monitor == nil)
  }

  @Test func offsetsOfTheMonitorPage() throws {
    let first = try #require(MonitorID(0))
    let last = try #require(MonitorID(127))
    #expect(MonitorID(128) == nil)
    #expect(MonitorPage.pendingOffset(first) == 8)
    #expect(MonitorPage.armedOffset(first) == 12)
    #expect(MonitorPage.pendingOffset(last) == 32)
    #expect(MonitorPage.armedOffset(last) + 4 == 40)
    #expect(MonitorPage.nextCheckTimeOffset(first) == 64)
    #expect(MonitorPage.nextCheckTimeOffset(last) + 4 == 576)
    #expect(MonitorPage.latencyOffset(first) == 576)
    #expect(MonitorPage.latencyOffset(last) + 2 == 832)
    #expect(MonitorPage.parameterOffset(first) == 1088)
    #expect(MonitorPage.parameterOffset(last) + 8 == 2112)
    let parameter = MonitorParameter {
      $0.connectionID = 0x0102_0304
      $0.flagNumber = 0x0506
    }
    #expect(parameter.wireBytes == [4, 3, 2, 1, 6, 5, 0, 0])
  }

  @Test func userDataOfPipes() {
    #expect(UserData([0]).pipeKind == .bytes)
    #expect(UserData([4]).pipeKind == .messages)
    #expect(UserData([1, 2]).pipeKind == .unknown(0x201))
    #expect(!UserData().isForGuestAccept)
    #expect(UserData([0, 0, 0, 0, 1]).isForGuestAccept)
  }

  @Test func connectionIDOfAChannel() {
    #expect(OfferChannel.defaultConnectionID(5) == 0x2005)
    #expect(OfferChannel.defaultConnectionID(5, sint: 7, vtl: 2) == 0x27005)
  }

  static func payload(_ packet: [UInt8]) throws(WireError) -> [UInt8] {
    let span = unsafe packet.span.bytes
    let payload = try PipeHeader.payload(of: span)
    return (0..<payload.byteCount).map {
      unsafe payload.unsafeLoad(fromByteOffset: $0, as: UInt8.self)
    }
  }

  @Test func pipePackets() throws {
    #expect(PipeHeader(length: 0x0102).wireBytes == [1, 0, 0, 0, 2, 1, 0, 0])
    #expect(try Self.payload([1, 0, 0, 0, 2, 0, 0, 0, 7, 8, 9]) == [7, 8])
    #expect(try Self.payload([1, 0, 0, 0, 0, 0, 0, 0]) == [])
    #expect(throws: WireError.tooShort("PipeHeader", needed: 11, found: 10)) {
      try Self.payload([1, 0, 0, 0, 3, 0, 0, 0, 7, 8])
    }
    #expect(throws: WireError.tooShort("PipeHeader", needed: 8, found: 7)) {
      try Self.payload([1, 0, 0, 0, 3, 0, 0])
    }
    for kind: UInt8 in [0, 2, 3, 4, 5] {
      #expect(
        throws: WireError.invalid("PipeHeader", field: "packet_type", value: UInt64(kind))
      ) {
        try Self.payload([kind, 0, 0, 0, 0, 0, 0, 0])
      }
    }
    for length: [UInt8] in [[1, 0x40, 0, 0], [0xFF, 0xFF, 0xFF, 0xFF]] {
      #expect(throws: WireError.self) { try Self.payload([1, 0, 0, 0] + length) }
    }
  }
}
