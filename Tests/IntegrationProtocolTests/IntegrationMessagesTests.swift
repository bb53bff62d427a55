// SPDX-License-Identifier: Apache-2.0

import IntegrationProtocol
import Testing
import VMBus

@Suite struct IntegrationMessagesTests {
  /// Pipe header, then the header of a heartbeat 3.0 in framework 3.0.
  static let heartbeat: [UInt8] =
    [1, 0, 0, 0, 60, 0, 0, 0]
    + [3, 0, 0, 0, 1, 0, 3, 0, 0, 0, 40, 0, 0, 0, 0, 0, 9, 3, 0, 0]
    + [0x15, 0, 0, 0, 0, 0, 0, 0] + [UInt8](repeating: 0, count: 32)

  @Test func aHeartbeatIsSixtyEightBytes() throws {
    var header = IntegrationHeader()
    header.frameworkVersion = IntegrationVersion(3, 0)
    header.messageVersion = IntegrationVersion(3, 0)
    header.type = .heartbeat
    header.transactionID = 9
    header.flags = [.transaction, .request]
    var message = HeartbeatMessage()
    message.sequence = 0x15
    #expect(header.packet(message.wireBytes) == Self.heartbeat)
  }

  @Test func anAnswerIsTheSameBytesWithOtherFlags() throws {
    var answer = Self.heartbeat
    answer[8 + 17] = 5
    answer[28] = 0x16
    answer[36] = 1
    let message = try IntegrationHeader.message(in: unsafe answer.span.bytes)
    #expect(message.header.flags == [.transaction, .response])
    #expect(message.header.status == .success && message.header.transactionID == 9)
    let body = try HeartbeatMessage(parsing: message.body)
    #expect(body.sequence == 0x16 && body.state == .healthy)
  }

  @Test func theVersionsOfARequest() {
    #expect(
      IntegrationNegotiation.request(
        framework: [IntegrationVersion(1, 0), IntegrationVersion(3, 0)],
        messages: [IntegrationVersion(3, 2)])
        == [2, 0, 1, 0, 0, 0, 0, 0, 1, 0, 0, 0, 3, 0, 0, 0, 3, 0, 2, 0])
  }

  /// Linux answers with all bytes that it was sent, and a size of 16.
  @Test func whatLinuxAnswersToANegotiation() throws {
    let answer: [UInt8] =
      [1, 0, 0, 0, 52, 0, 0, 0]
      + [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 16, 0, 0, 0, 0, 0, 0, 5, 0, 0]
      + [1, 0, 1, 0, 0, 0, 0, 0] + [3, 0, 0, 0, 3, 0, 2, 0]
      + [1, 0, 0, 0, 3, 0, 0, 0, 3, 0, 1, 0, 3, 0, 2, 0]
    let message = try IntegrationHeader.message(in: unsafe answer.span.bytes)
    #expect(message.header.type == .negotiate && message.body.byteCount == 16)
    let chosen = try IntegrationNegotiation.chosen(in: message.body)
    #expect(chosen?.framework == IntegrationVersion(3, 0))
    #expect(chosen?.message == IntegrationVersion(3, 2))
  }

  @Test func anAnswerWithoutVersions() throws {
    let none: [UInt8] = [0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 4, 0, 0, 0]
    #expect(try IntegrationNegotiation.chosen(in: unsafe none.span.bytes) == nil)
    let short: [UInt8] = [1, 0, 1, 0, 0, 0, 0, 0, 3, 0, 0, 0]
    #expect(throws: WireError.self) {
      try IntegrationNegotiation.chosen(in: unsafe short.span.bytes)
    }
  }

  @Test func sizesThatLie() {
    var packet = Self.heartbeat
    packet[8 + 10] = 41
    #expect(throws: WireError.invalid("IntegrationHeader", field: "message_size", value: 41)) {
      _ = try IntegrationHeader.message(in: unsafe packet.span.bytes)
    }
    for count in 0..<Self.heartbeat.count {
      let part = Array(Self.heartbeat.prefix(count))
      #expect(throws: WireError.self) {
        _ = try IntegrationHeader.message(in: unsafe part.span.bytes)
      }
    }
  }

  @Test func aTimeIsTwentyFiveBytes() {
    var message = TimeSyncMessage()
    // 2026-01-01 00:00:00 UTC, as `date -d` says: 1767225600.
    message.hostTime = 1_767_225_600 * 10_000_000 + TimeSyncMessage.unixEpoch
    message.flags = .sync
    #expect(
      message.wireBytes
        == [0x00, 0x00, 0x81, 0x92, 0xB1, 0x7A, 0xDC, 0x01] + [UInt8](repeating: 0, count: 16)
        + [1])
  }

  @Test func aShutdownHasATextOfZeros() {
    var message = ShutdownMessage()
    message.reason = ShutdownMessage.planned
    message.flags = .restart
    let bytes = message.wireBytes
    #expect(bytes.count == 2060)
    #expect(bytes.prefix(12) == [0, 0, 0, 0x80, 0, 0, 0, 0, 2, 0, 0, 0])
    #expect(bytes.dropFirst(12).allSatisfy { $0 == 0 })
  }

  @Test func versionsAreOrderedByTheirParts() {
    #expect(IntegrationVersion(1, 9) < IntegrationVersion(3, 0))
    #expect(IntegrationVersion(3, 1) < IntegrationVersion(3, 2))
    #expect("\(IntegrationVersion(3, 2))" == "3.2")
  }
}
