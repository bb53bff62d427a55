// SPDX-License-Identifier: Apache-2.0

import IntegrationProtocol
import Testing
import VMBus

@testable import SimulatedHost

/// Answers of hv_utils of Debian's kernel 7.3.4, captured by vmbus-host of a guest of vmbus-vm. Linux
/// answers with the bytes that it was sent and with the packet's padding.
@Suite struct LinuxIntegrationTests {
  static let bytes = LinuxNetworkTests.bytes

  @Test func theHeartbeat() throws {
    var session = IntegrationSession(.heartbeat, versions: IntegrationComponent.heartbeat.versions)
    let request = IntegrationSessionTests.next(&session)
    #expect(
      request
        == Self.bytes(
          "010000002c0000000000000000000000000018000000000000030000020002000000000001000000"
            + "030000000100000003000000", 0))
    IntegrationSessionTests.give(
      &session,
      Self.bytes(
        "010000002c0000000000000000000000000010000000000000050000010001000000000003000000"
          + "03000000010000000300000000000000", 0))
    #expect(session.record.message == IntegrationVersion(3, 0))
    let beat = IntegrationSessionTests.next(&session)
    #expect(
      beat
        == Self.bytes(
          "010000003c00000003000000010003000000280000000000010300000100000000000000", 32)
    )
    IntegrationSessionTests.give(
      &session,
      Self.bytes("010000003c00000003000000010003000000280000000000010500000200000000000000", 36))
    #expect(session.record.beats == 1 && session.record.violations == [])
    #expect(session.record.guestState == .unknown)
  }

  @Test func theTime() throws {
    var session = IntegrationSession(.timeSync, versions: IntegrationComponent.timeSync.versions)
    _ = IntegrationSessionTests.next(&session)
    IntegrationSessionTests.give(
      &session,
      Self.bytes(
        "010000002c0000000000000000000000000010000000000000050000010001000000000003000000"
          + "03000000010000000300000000000000", 0))
    let time = IntegrationSessionTests.next(&session)
    #expect(time?.count == 53)
    IntegrationSessionTests.give(
      &session,
      Self.bytes(
        "010000002d00000003000000040003000000190000000000010500005d5b3b16387bdd01", 16)
        + [1, 0, 0, 0])
    #expect(session.record.answered == 2 && session.record.violations == [])
  }

  /// A machine without S4 refuses to sleep on its disk, and then ends as it is asked to.
  @Test func theEnd() throws {
    var session = IntegrationSession(.shutdown, versions: IntegrationComponent.shutdown.versions)
    _ = IntegrationSessionTests.next(&session)
    IntegrationSessionTests.give(
      &session,
      Self.bytes(
        "0100000034000000000000000000000000001000000000000005000001000100000000000300000003000200"
          + "0100000003000000030001000300020000000000", 0))
    #expect(session.record.message == IntegrationVersion(3, 2))
    session.shutDown(.hibernate)
    let hibernate = IntegrationSessionTests.next(&session)
    #expect(
      hibernate
        == Self.bytes(
          "0100000020080000030000000300030002000c080000000001030000000000800000000004000000", 2048))
    IntegrationSessionTests.give(
      &session,
      Self.bytes(
        "0100000020080000030000000300030002000c080540008001050000000000800000000004000000", 2048))
    #expect(session.record.shutdown == .refused(.hibernate, .failed))
    session.shutDown(.powerOff)
    _ = IntegrationSessionTests.next(&session)
    IntegrationSessionTests.give(
      &session,
      Self.bytes(
        "0100000020080000030000000300030002000c080000000002050000000000800000000000000000", 2048))
    #expect(session.record.shutdown == .accepted(.powerOff))
    #expect(session.record.violations == [])
  }
}
