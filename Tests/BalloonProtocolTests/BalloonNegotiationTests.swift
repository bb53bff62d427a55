// SPDX-License-Identifier: Apache-2.0

import BalloonProtocol
import Testing
import VMBus

@Suite struct BalloonNegotiationTests {
  @Test func aVersionRequestSaysWhetherItIsTheLast() throws {
    #expect(
      BalloonVersionRequest(.v2_0, transactionID: 1).wireBytes
        == [1, 0, 16, 0, 1, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0])
    #expect(
      BalloonVersionRequest(.v1_0, transactionID: 2).wireBytes
        == [1, 0, 16, 0, 2, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0])
    let last: [UInt8] = [1, 0, 16, 0, 3, 0, 0, 0, 3, 0, 0, 0, 1, 0, 0, 0]
    #expect(BalloonVersionRequest(.v0_3, transactionID: 3).wireBytes == last)
    let parsed = try BalloonVersionRequest(parsing: last)
    #expect(parsed.version == .v0_3)
    #expect(parsed.isLastAttempt)
    #expect(parsed.header == BalloonHeader(.versionRequest, size: 16, transactionID: 3))
  }

  @Test func versionsAreOrderedAndPrinted() {
    #expect(BalloonVersion.v0_3 < .v1_0)
    #expect(BalloonVersion.v1_0 < .v2_0)
    #expect("\(BalloonVersion.v0_3) \(BalloonVersion.v1_0) \(BalloonVersion.v2_0)" == "0.3 1.0 2.0")
    #expect(BalloonVersion.v0_3.next == nil)
    #expect(!BalloonVersion(rawValue: 0x3_0000).isKnown)
  }

  @Test func aVersionResponseHasOneBit() throws {
    let accepted: [UInt8] = [2, 0, 16, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0]
    #expect(BalloonVersionResponse(isAccepted: true, transactionID: 1).wireBytes == accepted)
    #expect(try BalloonVersionResponse(parsing: accepted).isAccepted)
    var refused = accepted
    refused[8] = 0xFE
    #expect(try !BalloonVersionResponse(parsing: refused).isAccepted)
  }

  @Test func capabilitiesHaveTheirBits() throws {
    var set: BalloonCapabilitySet = [.balloon, .hotAdd]
    set.hotAddAlignment = 7
    // 1 | 2 | 7 << 2.
    let bytes: [UInt8] =
      [3, 0, 32, 0, 4, 0, 0, 0, 0x1F, 0, 0, 0, 0, 0, 0, 0]
      + [0, 0, 0, 0, 0, 0, 0, 0, 255, 255, 255, 255, 255, 255, 255, 255]
    #expect(BalloonCapabilitiesReport(set, transactionID: 4).wireBytes == bytes)
    #expect(try BalloonCapabilitiesReport(parsing: bytes).capabilities.hotAddAlignment == 7)
    #expect(BalloonCapabilitySet.hotRemove.rawValue == 0x40)
  }

  @Test func aCapabilitiesResponseHasThreeBits() throws {
    let bytes: [UInt8] = [4, 0, 16, 0, 4, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0]
    let parsed = try BalloonCapabilitiesResponse(parsing: bytes)
    #expect(parsed.flags == [.accepted, .hotRemove, .suppressPressureReports])
    #expect(BalloonCapabilitiesResponse(parsed.flags, transactionID: 4).wireBytes == bytes)
  }

  @Test func aMessageIsAsLongAsItSays() throws {
    // A message of 9 bytes in a packet that is padded to 16.
    let bytes: [UInt8] = [9, 0, 9, 0, 5, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8]
    let message = try BalloonHeader.message(in: unsafe bytes.span.bytes)
    #expect(message.header.type == .unballoonResponse)
    #expect(message.header.transactionID == 5)
    #expect(message.bytes.byteCount == 9)
  }

  @Test(arguments: [[UInt8]([9, 0, 17, 0, 0, 0, 0, 0]), [9, 0, 7, 0, 0, 0, 0, 0], [9, 0, 0, 0]])
  func aWrongLengthIsAnError(_ bytes: [UInt8]) {
    #expect(throws: WireError.self) {
      _ = try BalloonHeader.message(in: unsafe bytes.span.bytes).header
    }
  }

  @Test func typesHaveNames() {
    #expect("\(BalloonMessageType.balloonRequest)" == "BALLOON_REQUEST")
    #expect("\(BalloonMessageType.hotRemoveResponse)" == "MEM_HOT_REMOVE_RESPONSE")
    #expect(BalloonMessageType(rawValue: 15).isKnown == false)
    #expect("\(BalloonMessageType(rawValue: 0xFFFF))" == "type 65535")
  }

  /// The declared size is the sum of the fields.
  @Test func sizesAddUp() {
    func check<T: WireLayout>(_ type: T.Type) { #expect(T().wireBytes.count == T.byteCount) }
    check(BalloonHeader.self)
    check(BalloonVersionRequest.self)
    check(BalloonVersionResponse.self)
    check(BalloonCapabilitiesReport.self)
    check(BalloonCapabilitiesResponse.self)
    check(BalloonStatusReport.self)
    check(BalloonRequest.self)
    check(BalloonResponse.self)
    check(UnballoonRequest.self)
    check(UnballoonResponse.self)
    check(HotAddRequest.self)
    check(HotAddResponse.self)
    check(BalloonInformation.self)
  }
}
