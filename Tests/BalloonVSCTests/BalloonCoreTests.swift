// SPDX-License-Identifier: Apache-2.0

import BalloonProtocol
import Testing
import VMBus

@testable import BalloonVSC

/// Messages of the host, by the offsets of the protocol.
enum FromHost {
  static func message(_ type: UInt8, _ body: [UInt8]) -> [UInt8] {
    [type, 0, UInt8(8 + body.count), 0, 1, 0, 0, 0] + body
  }

  static let versionAccepted = message(2, [1, 0, 0, 0, 0, 0, 0, 0])
  static let versionRefused = message(2, [0, 0, 0, 0, 0, 0, 0, 0])
  static let capabilitiesAccepted = message(4, [1, 0, 0, 0, 0, 0, 0, 0])
  static let capabilitiesRefused = message(4, [0, 0, 0, 0, 0, 0, 0, 0])
  static let noReports = message(4, [5, 0, 0, 0, 0, 0, 0, 0])
  static let error = message(0, [])

  static func balloon(_ pages: UInt32) -> [UInt8] { message(6, four(pages) + four(0)) }

  static func unballoon(_ ranges: [(UInt64, UInt64)], more: Bool = false) -> [UInt8] {
    var body = four(more ? 1 : 0) + four(UInt32(ranges.count))
    for (start, count) in ranges { body += eight(count << 40 | start) }
    return message(8, body)
  }

  static let hotAdd = message(10, eight(0x8000 << 40 | 0x10_0000))
  static let hotRemove = message(13, [UInt8](repeating: 0, count: 16))

  static func maximum(_ pages: UInt64) -> [UInt8] {
    message(12, four(0) + four(16) + four(0) + four(8) + eight(pages))
  }

  static func four(_ value: UInt32) -> [UInt8] {
    (0..<4).map { UInt8(truncatingIfNeeded: value >> (8 * $0)) }
  }

  static func eight(_ value: UInt64) -> [UInt8] {
    (0..<8).map { UInt8(truncatingIfNeeded: value >> (8 * $0)) }
  }
}

extension BalloonCore {
  mutating func give(_ bytes: [UInt8], now: UInt64 = 0) throws(BalloonProtocolError) -> [Action] {
    try receive(unsafe bytes.span.bytes, now: now)
  }

  /// A core that has come so far.
  static func at(_ stage: BalloonCoreTests.Point) throws -> BalloonCore {
    var core = BalloonCore(canBalloon: true)
    if stage == .idle { return core }
    _ = core.start(now: 0)
    if stage == .askingVersion { return core }
    _ = try core.give(FromHost.versionAccepted)
    if stage == .reportingCapabilities { return core }
    _ = try core.give(FromHost.capabilitiesAccepted)
    switch stage {
    case .inflating: _ = try core.give(FromHost.balloon(1024))
    case .deflating: _ = try core.give(FromHost.unballoon([(0, 1)]))
    case .waitingForRanges:
      _ = try core.give(FromHost.unballoon([(0, 1)], more: true))
      _ = core.deflated()
    case .failed:
      var failed = BalloonCore(canBalloon: true)
      _ = failed.start(now: 0)
      _ = failed.expire(now: 5_000_000_000)
      return failed
    default: break
    }
    return core
  }
}

func range(_ start: UInt64, _ count: UInt64) -> PageRange {
  PageRange(rawValue: count << 40 | start)
}

@Suite struct BalloonCoreTests {
  enum Point: CaseIterable, Sendable {
    case idle, askingVersion, reportingCapabilities, ready, inflating, deflating
    case waitingForRanges, failed
  }

  // MARK: - Start-up

  @Test func startUpWithTheNewestVersion() throws {
    var core = BalloonCore(canBalloon: true)
    #expect(
      core.start(now: 100)
        == [.send([1, 0, 16, 0, 1, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0])])
    #expect(core.deadline == 5_000_000_100)
    // Balloon, hot-add, aligned to 2^7 MiB.
    let capabilities: [UInt8] =
      [3, 0, 32, 0, 2, 0, 0, 0, 0x1F, 0, 0, 0, 0, 0, 0, 0]
      + [0, 0, 0, 0, 0, 0, 0, 0, 255, 255, 255, 255, 255, 255, 255, 255]
    #expect(try core.give(FromHost.versionAccepted, now: 200) == [.send(capabilities)])
    #expect(core.deadline == 5_000_000_200)
    #expect(try core.give(FromHost.capabilitiesAccepted, now: 300) == [.ready(.v2_0)])
    #expect(core.stage == .ready(.v2_0))
    #expect(core.deadline == 45_000_000_300)
  }

  @Test func withoutMemoryThereIsNoBalloon() throws {
    var core = BalloonCore(canBalloon: false)
    _ = core.start(now: 0)
    guard case .send(let message) = try core.give(FromHost.versionAccepted).first else {
      Issue.record("nothing was sent")
      return
    }
    #expect(Array(message[8..<16]) == [0, 0, 0, 0, 0, 0, 0, 0])
  }

  @Test func eachRefusalGoesDownOneVersion() throws {
    var core = try BalloonCore.at(.askingVersion)
    #expect(
      try core.give(FromHost.versionRefused)
        == [.send([1, 0, 16, 0, 2, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0])])
    #expect(
      try core.give(FromHost.versionRefused)
        == [.send([1, 0, 16, 0, 3, 0, 0, 0, 3, 0, 0, 0, 1, 0, 0, 0])])
    #expect(try core.give(FromHost.versionRefused) == [.fail(.noCommonVersion)])
    #expect(core.stage == .failed(.noCommonVersion))
  }

  @Test func anOlderVersionIsUsed() throws {
    var core = try BalloonCore.at(.askingVersion)
    _ = try core.give(FromHost.versionRefused)
    _ = try core.give(FromHost.versionAccepted)
    _ = try core.give(FromHost.capabilitiesAccepted)
    #expect(core.stage == .ready(.v1_0))
  }

  @Test func refusedCapabilitiesEndTheService() throws {
    var core = try BalloonCore.at(.reportingCapabilities)
    #expect(try core.give(FromHost.capabilitiesRefused) == [.fail(.capabilitiesRefused)])
    #expect(core.stage == .failed(.capabilitiesRefused))
  }

  @Test(arguments: [
    (Point.askingVersion, BalloonMessageType.versionRequest),
    (.reportingCapabilities, .capabilitiesReport),
  ])
  func aSilentHostIsGivenUp(_ point: Point, _ type: BalloonMessageType) throws {
    var core = try BalloonCore.at(point)
    #expect(core.expire(now: 4_999_999_999) == .nothing)
    #expect(core.expire(now: 5_000_000_000) == .failed(.timedOut(type)))
    #expect(core.stage == .failed(.timedOut(type)))
    #expect(core.deadline == .max)
  }

  // MARK: - Illegal events

  static let illegal: [(Point, [UInt8])] = {
    let all: [(name: UInt8, bytes: [UInt8])] = [
      (2, FromHost.versionAccepted), (4, FromHost.capabilitiesAccepted),
      (6, FromHost.balloon(512)), (8, FromHost.unballoon([(1, 1)])), (10, FromHost.hotAdd),
      (13, FromHost.hotRemove),
      // What only guests send.
      (1, FromHost.message(1, [UInt8](repeating: 0, count: 8))),
      (3, FromHost.message(3, [UInt8](repeating: 0, count: 24))),
      (5, FromHost.message(5, [UInt8](repeating: 0, count: 40))),
      (7, FromHost.message(7, [UInt8](repeating: 0, count: 8))), (9, FromHost.message(9, [])),
      (11, FromHost.message(11, [UInt8](repeating: 0, count: 8))),
      (14, FromHost.message(14, [UInt8](repeating: 0, count: 16))),
    ]
    let legal: [Point: Set<UInt8>] = [
      .askingVersion: [2], .reportingCapabilities: [4], .ready: [6, 8, 10], .inflating: [10],
      .deflating: [10], .waitingForRanges: [8, 10],
    ]
    return Point.allCases.flatMap { point in
      all.filter { !(legal[point] ?? []).contains($0.name) }.map { (point, $0.bytes) }
    }
  }()

  @Test(arguments: illegal)
  func whatHasNoMeaningIsDropped(_ point: Point, _ bytes: [UInt8]) throws {
    var core = try BalloonCore.at(point)
    let (stage, transfer) = (core.stage, core.transfer)
    let type = BalloonMessageType(rawValue: UInt16(bytes[0]))
    #expect(throws: BalloonProtocolError.unexpected(type)) { try core.give(bytes) }
    #expect(core.stage == stage)
    #expect(core.transfer == transfer)
  }

  @Test(arguments: [Point.idle, .failed])
  func withoutAServiceNothingIsExpected(_ point: Point) throws {
    var core = try BalloonCore.at(point)
    #expect(throws: BalloonProtocolError.unexpected(.error)) { try core.give(FromHost.error) }
    #expect(throws: BalloonProtocolError.unexpected(.information)) {
      try core.give(FromHost.maximum(1))
    }
    #expect(core.inflated([range(1, 1)], isLast: true).isEmpty)
    #expect(core.deflated().isEmpty)
    #expect(core.expire(now: .max) == .nothing)
  }

  @Test func aSecondStartDoesNothing() throws {
    var core = try BalloonCore.at(.ready)
    #expect(core.start(now: 0).isEmpty)
    #expect(core.stage == .ready(.v2_0))
  }

  @Test func resultsThatNobodyWaitsForDoNothing() throws {
    var core = try BalloonCore.at(.ready)
    #expect(core.inflated([range(1, 1)], isLast: true).isEmpty)
    #expect(core.deflated().isEmpty)
    var inflating = try BalloonCore.at(.inflating)
    #expect(inflating.deflated().isEmpty)
    var deflating = try BalloonCore.at(.deflating)
    #expect(deflating.inflated([], isLast: true).isEmpty)
  }

  @Test func unknownTypesAreNamed() throws {
    var core = try BalloonCore.at(.ready)
    #expect(throws: BalloonProtocolError.unknown(BalloonMessageType(rawValue: 15))) {
      try core.give(FromHost.message(15, []))
    }
  }

  static let malformed: [(Point, [UInt8])] = [
    (.ready, []), (.ready, [6, 0, 8]),
    // Longer than the packet, and shorter than a header.
    (.ready, [6, 0, 17, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
    (.ready, [6, 0, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
    // Shorter than what it is.
    (.askingVersion, FromHost.message(2, [1, 0, 0, 0])),
    (.reportingCapabilities, FromHost.message(4, [1, 0, 0, 0])),
    (.ready, FromHost.message(6, [1, 0, 0, 0])), (.ready, FromHost.message(8, [0, 0, 0, 0])),
    (.ready, FromHost.message(10, [0, 0, 0, 0])),
    // More ranges than there are.
    (.ready, FromHost.message(8, [0, 0, 0, 0, 1, 0, 0, 0])),
    (.ready, FromHost.message(8, [0, 0, 0, 0, 255, 255, 255, 255, 1, 2, 3, 4, 5, 6, 7, 8])),
    // Information without data, or with another size of it.
    (.ready, FromHost.message(12, [0, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 8, 0, 0, 0])),
    (.ready, FromHost.message(12, [0, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 1, 2, 3, 4])),
  ]

  @Test(arguments: malformed)
  func malformedMessagesChangeNothing(_ point: Point, _ bytes: [UInt8]) throws {
    var core = try BalloonCore.at(point)
    let (stage, transfer) = (core.stage, core.transfer)
    do throws(BalloonProtocolError) {
      _ = try core.give(bytes)
      Issue.record("it was accepted")
    } catch {
      guard case .malformed = error else {
        Issue.record("\(error)")
        return
      }
    }
    #expect(core.stage == stage)
    #expect(core.transfer == transfer)
  }

  // MARK: - Pages

  @Test func aRequestIsAnsweredInOneMessage() throws {
    var core = try BalloonCore.at(.ready)
    #expect(try core.give(FromHost.balloon(1024)) == [.take(1024)])
    #expect(core.inflated([range(0x200, 512)], isLast: false).isEmpty)
    // The second one lies apart from the first.
    let actions = core.inflated([range(0x600, 512)], isLast: true)
    let expected: [UInt8] =
      [7, 0, 32, 0, 3, 0, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0]
      + [0, 2, 0, 0, 0, 0, 2, 0, 0, 6, 0, 0, 0, 0, 2, 0]
    #expect(actions == [.send(expected)])
    #expect(core.transfer == .none)
  }

  @Test func neighboursBecomeOneRange() throws {
    var core = try BalloonCore.at(.inflating)
    let actions = core.inflated([range(8, 1), range(9, 1), range(10, 2)], isLast: true)
    #expect(
      actions == [
        .send([7, 0, 24, 0, 3, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0] + [8, 0, 0, 0, 0, 4, 0, 0])
      ])
  }

  @Test func noPageIsAnAnswerToo() throws {
    var core = try BalloonCore.at(.inflating)
    #expect(
      core.inflated([], isLast: true)
        == [.send([7, 0, 16, 0, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0])])
    #expect(core.transfer == .none)
  }

  /// 510 ranges have room in 4096 bytes. The last message is never the one without ranges.
  @Test(arguments: [(510, [510]), (511, [510, 1]), (1020, [510, 510]), (1021, [510, 510, 1])])
  func manyRangesMakeManyMessages(_ count: Int, _ expected: [Int]) throws {
    var core = try BalloonCore.at(.inflating)
    // No two of them are neighbours.
    let actions = core.inflated((0..<count).map { range(UInt64($0) * 2, 1) }, isLast: true)
    var counts: [Int] = []
    for (index, action) in actions.enumerated() {
      guard case .send(let bytes) = action else { continue }
      #expect(bytes.count <= 4096)
      let response = try BalloonResponse(parsing: bytes)
      #expect(Int(response.header.size) == bytes.count)
      #expect(response.morePages == (index < actions.count - 1))
      counts.append(Int(response.rangeCount))
    }
    #expect(counts == expected)
  }

  @Test func pagesComeBack() throws {
    var core = try BalloonCore.at(.ready)
    #expect(
      try core.give(FromHost.unballoon([(5, 6), (100, 1)]))
        == [.release([range(5, 6), range(100, 1)])])
    #expect(core.deflated() == [.send([9, 0, 8, 0, 3, 0, 0, 0])])
    #expect(core.transfer == .none)
  }

  @Test func theAnswerIsDueAfterTheLastRanges() throws {
    var core = try BalloonCore.at(.ready)
    _ = try core.give(FromHost.unballoon([(5, 6)], more: true))
    #expect(core.deflated().isEmpty)
    #expect(core.transfer == .waitingForRanges)
    _ = try core.give(FromHost.unballoon([], more: true))
    #expect(core.deflated().isEmpty)
    _ = try core.give(FromHost.unballoon([(50, 6)]))
    #expect(core.deflated() == [.send([9, 0, 8, 0, 3, 0, 0, 0])])
  }

  @Test(arguments: [Point.ready, .inflating, .waitingForRanges])
  func hotAddIsRefusedForGood(_ point: Point) throws {
    var core = try BalloonCore.at(point)
    #expect(
      try core.give(FromHost.hotAdd) == [
        .refusedHotAdd, .send([11, 0, 16, 0, 3, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0]),
      ])
  }

  // MARK: - Reports and information

  @Test func reportsAreDueEachInterval() throws {
    var core = try BalloonCore.at(.ready)
    #expect(core.expire(now: 44_999_999_999) == .nothing)
    #expect(core.expire(now: 45_000_000_000) == .reportDue)
    #expect(core.deadline == 46_000_000_000)
    let report: [UInt8] =
      [5, 0, 48, 0, 3, 0, 0, 0, 10, 0, 0, 0, 0, 0, 0, 0, 20, 0, 0, 0, 0, 0, 0, 0]
      + [UInt8](repeating: 0, count: 24)
    #expect(core.report(available: 10, committed: 20) == .send(report))
  }

  @Test func aHostMayWantNoReports() throws {
    var core = try BalloonCore.at(.reportingCapabilities)
    _ = try core.give(FromHost.noReports)
    #expect(core.areReportsSuppressed)
    #expect(core.deadline == .max)
    #expect(core.expire(now: .max) == .nothing)
  }

  @Test(arguments: [Point.askingVersion, .reportingCapabilities, .ready, .inflating])
  func theHostMayTellSomethingAtAnyTime(_ point: Point) throws {
    var core = try BalloonCore.at(point)
    #expect(try core.give(FromHost.maximum(0x12345)) == [.maximumPageCount(0x12345)])
    #expect(try core.give(FromHost.error) == [.hostError])
    let other = FromHost.message(12, [0, 0, 0, 0, 8, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0])
    #expect(try core.give(other).isEmpty)
  }
}
