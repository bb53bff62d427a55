// SPDX-License-Identifier: Apache-2.0

import IntegrationProtocol
import Testing
import VMBus

@testable import SimulatedHost

@Suite struct IntegrationSessionTests {
  /// What a guest makes of a packet: other flags, another status, another body.
  static func answer(
    _ packet: [UInt8], status: UInt8 = 0, _ change: (inout [UInt8]) -> Void = { _ in }
  ) -> [UInt8] {
    var answer = packet
    answer[8 + 12] = status
    answer[8 + 17] = 5
    change(&answer)
    return answer
  }

  /// A guest's answer to a negotiation, in as many bytes as the host has sent.
  static func agreement(
    _ packet: [UInt8], _ framework: [UInt8], _ message: [UInt8], count: UInt8 = 1
  ) -> [UInt8] {
    answer(packet) { bytes in
      bytes[8 + 10] = 16
      bytes.replaceSubrange(28..<32, with: [count, 0, count, 0])
      bytes.replaceSubrange(36..<44, with: framework + message)
    }
  }

  static func next(
    _ session: inout IntegrationSession, now: UInt64 = 0, wallClock: UInt64 = 0
  ) -> [UInt8]? {
    session.next(now: now, wallClock: wallClock)
  }

  static func give(_ session: inout IntegrationSession, _ bytes: [UInt8]) {
    session.receive(unsafe bytes.span.bytes)
  }

  static func ready(
    _ component: IntegrationComponent, version: [UInt8] = [3, 0, 0, 0]
  ) throws -> IntegrationSession {
    var session = IntegrationSession(component, versions: component.versions)
    let request = next(&session)
    give(&session, agreement(try #require(request), [3, 0, 0, 0], version))
    return session
  }

  @Test func theHostBeginsWithItsVersions() throws {
    var session = IntegrationSession(.shutdown, versions: IntegrationComponent.shutdown.versions)
    let request = Self.next(&session)
    let versions: [UInt8] = [
      1, 0, 0, 0, 3, 0, 0, 0, 1, 0, 0, 0, 3, 0, 0, 0, 3, 0, 1, 0, 3, 0, 2, 0,
    ]
    #expect(
      request
        == [1, 0, 0, 0, 52, 0, 0, 0]
        + [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 32, 0, 0, 0, 0, 0, 0, 3, 0, 0]
        + [2, 0, 4, 0, 0, 0, 0, 0] + versions)
    // Nothing else until the guest has said what it speaks.
    session.shutDown(.powerOff)
    let early = Self.next(&session)
    #expect(early == nil)
    Self.give(&session, Self.agreement(try #require(request), [3, 0, 0, 0], [3, 0, 2, 0]))
    #expect(session.record.stage == .ready)
    #expect(session.record.message == IntegrationVersion(3, 2))
    let asked = Self.next(&session)
    let packet = try #require(asked)
    // In the versions that were agreed on, with the next number.
    #expect(packet.count == 8 + 20 + 2060)
    #expect(packet[8..<28] == [3, 0, 0, 0, 3, 0, 3, 0, 2, 0, 12, 8, 0, 0, 0, 0, 1, 3, 0, 0])
    #expect(session.record.shutdown == .asked(.powerOff))
    Self.give(&session, Self.answer(packet))
    #expect(session.record.shutdown == .accepted(.powerOff))
    #expect(session.record.violations == [])
  }

  @Test func aShutdownThatIsRefused() throws {
    var session = try Self.ready(.shutdown, version: [3, 0, 1, 0])
    session.shutDown(.restart)
    let asked = Self.next(&session)
    let packet = try #require(asked)
    #expect(packet[28 + 8] == 2)
    Self.give(&session, Self.answer(packet, status: 5))
    #expect(session.record.shutdown == .refused(.restart, IntegrationStatus(rawValue: 5)))
    // What the version does not know is not asked.
    session.shutDown(.hibernate)
    let none = Self.next(&session)
    #expect(none == nil && session.record.shutdown == .versionTooOld(.hibernate))
  }

  @Test func heartbeatsAreCounted() throws {
    var session = try Self.ready(.heartbeat)
    let first = Self.next(&session, now: 1000)
    let packet = try #require(first)
    #expect(session.nextDeadline == 2_000_001_000)
    let early = Self.next(&session, now: 1001)
    #expect(early == nil)
    Self.give(&session, Self.answer(packet) { $0[28] &+= 1 })
    #expect(session.record.beats == 1 && session.record.missed == 0)
    session.expire(now: 2_000_001_000)
    let second = Self.next(&session, now: 2_000_001_000)
    #expect(second != nil)
    // The guest hangs for a period, and answers both then.
    session.expire(now: session.nextDeadline)
    let third = Self.next(&session, now: 4_000_001_000)
    #expect(session.record.missed == 1)
    for late in [second, third] {
      Self.give(&session, Self.answer(try #require(late)) { $0[28] &+= 1 })
    }
    #expect(session.record.beats == 3 && session.record.violations == [])
  }

  @Test func aHeartbeatWithTheWrongNumber() throws {
    var session = try Self.ready(.heartbeat)
    let first = Self.next(&session)
    Self.give(&session, Self.answer(try #require(first)))
    #expect(session.record.beats == 0)
    #expect(session.record.violations == [.sequence(sent: 1, answered: 1)])
  }

  @Test func theTimeIsToldAtOnceAndThenNowAndThen() throws {
    var session = try Self.ready(.timeSync)
    // 2026-01-01 00:00:00 UTC.
    let wallClock: UInt64 = 1_767_225_600_000_000_000
    let first = Self.next(&session, now: 0, wallClock: wallClock)
    let packet = try #require(first)
    #expect(packet.count == 8 + 20 + 25)
    #expect(packet[28..<36] == [0x00, 0x00, 0x81, 0x92, 0xB1, 0x7A, 0xDC, 0x01])
    #expect(packet[52] == 1)
    Self.give(&session, Self.answer(packet))
    session.expire(now: 5_000_000_000)
    let sample = Self.next(&session, now: 5_000_000_000, wallClock: wallClock)
    #expect(sample?[52] == 2)
    session.synchronize()
    let sync = Self.next(&session, now: 5_000_000_001, wallClock: wallClock)
    #expect(sync?[52] == 1)
    #expect(session.record.violations == [])
  }

  @Test func versionsThatWereNotOffered() throws {
    for (framework, message) in [([3, 0, 0, 0], [4, 0, 0, 0]), ([2, 0, 0, 0], [3, 0, 0, 0])]
      as [([UInt8], [UInt8])]
    {
      var session = IntegrationSession(.timeSync, versions: [IntegrationVersion(3, 0)])
      let request = Self.next(&session)
      Self.give(&session, Self.agreement(try #require(request), framework, message))
      #expect(session.record.stage == .failed)
      #expect(session.record.violations.count == 1)
      // It is not asked any more.
      session.synchronize()
      session.expire(now: .max)
      let none = Self.next(&session)
      #expect(none == nil)
    }
  }

  @Test func aGuestThatSpeaksNone() throws {
    var session = IntegrationSession(.heartbeat, versions: [IntegrationVersion(3, 0)])
    let request = Self.next(&session)
    Self.give(
      &session, Self.agreement(try #require(request), [2, 0, 0, 0], [1, 0, 0, 0], count: 0))
    #expect(session.record.violations == [.noCommonVersion])
    #expect(session.record.stage == .failed)
  }

  @Test func answersToNothing() throws {
    var session = try Self.ready(.heartbeat)
    let first = Self.next(&session)
    let packet = try #require(first)
    // A request; another number; another type; twice.
    Self.give(&session, packet)
    Self.give(&session, Self.answer(packet) { $0[8 + 16] = 77 })
    Self.give(&session, Self.answer(packet) { $0[8 + 4] = 3 })
    Self.give(&session, Self.answer(packet) { $0[28] &+= 1 })
    Self.give(&session, Self.answer(packet) { $0[28] &+= 1 })
    #expect(session.record.beats == 1)
    #expect(
      session.record.violations == [
        .unexpected(.heartbeat, id: 1), .unexpected(.heartbeat, id: 77),
        .unexpected(.shutdown, id: 1), .unexpected(.heartbeat, id: 1),
      ])
  }

  @Test func aNoisyGuestIsNotRememberedForEver() throws {
    var session = try Self.ready(.heartbeat)
    for _ in 0..<1000 { Self.give(&session, [1, 2, 3]) }
    #expect(session.record.violations.count == 64)
    // Nor is what a silent one never answers.
    for second in 0..<1000 as Range<UInt64> {
      session.expire(now: .max)
      let packet = Self.next(&session, now: second)
      #expect(packet != nil)
    }
    #expect(session.record.missed == 999)
  }

  @Test func aFullRingIsTriedAgain() throws {
    var session = try Self.ready(.heartbeat)
    session.postpone(now: 10)
    #expect(!session.hasPacket && session.nextDeadline == 1_000_000_010)
    #expect(session.record.missed == 1)
    session.expire(now: 1_000_000_010)
    #expect(session.hasPacket)
  }
}
