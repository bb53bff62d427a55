// SPDX-License-Identifier: Apache-2.0

import BalloonProtocol
import Testing
import VMBus

@testable import SimulatedHost

@Suite struct BalloonSessionTests {
  static func range(_ start: UInt64, _ count: UInt64) -> PageRange {
    PageRange(rawValue: count << 40 | start)
  }

  static func response(_ ranges: [PageRange], more: Bool = false) -> [UInt8] {
    BalloonResponse(rangeCount: ranges.count, morePages: more, transactionID: 9)
      .wireBytes(with: ranges)
  }

  /// A session whose guest is ready and was asked for so many pages.
  static func asked(_ pages: UInt64) -> BalloonSession {
    var session = ready(pages)
    _ = session.next()
    return session
  }

  static func ready(_ pages: UInt64 = 0) -> BalloonSession {
    var session = BalloonSession(balloon: pages, newestVersion: .v2_0, wantsReports: true)
    _ = give(&session, BalloonVersionRequest(.v2_0, transactionID: 1).wireBytes)
    _ = give(&session, BalloonCapabilitiesReport([.balloon], transactionID: 2).wireBytes)
    return session
  }

  func expectSilence(
    _ session: inout BalloonSession, sourceLocation: SourceLocation = #_sourceLocation
  ) {
    let message = session.next()
    #expect(message == nil, sourceLocation: sourceLocation)
  }

  /// What the host begins by itself.
  static func next(_ session: inout BalloonSession) throws -> [UInt8] {
    let message = session.next()
    return try #require(message)
  }

  @discardableResult
  static func give(_ session: inout BalloonSession, _ bytes: [UInt8]) -> [UInt8]? {
    session.receive(unsafe bytes.span.bytes)
  }

  @Test func theStartUpEchoesTheGuestsNumbers() throws {
    var session = BalloonSession(balloon: 512, newestVersion: .v1_0, wantsReports: false)
    expectSilence(&session)
    #expect(
      Self.give(&session, BalloonVersionRequest(.v2_0, transactionID: 5).wireBytes)
        == [2, 0, 16, 0, 5, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0])
    #expect(
      Self.give(&session, BalloonVersionRequest(.v1_0, transactionID: 6).wireBytes)
        == [2, 0, 16, 0, 6, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0])
    #expect(
      Self.give(&session, BalloonCapabilitiesReport([.balloon], transactionID: 7).wireBytes)
        == [4, 0, 16, 0, 7, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0])
    let request = try Self.next(&session)
    #expect(request == [6, 0, 16, 0, 1, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0])
    expectSilence(&session)
    #expect(session.record.violations == [])
  }

  @Test func largeRequestsAreAskedForInParts() throws {
    var session = Self.ready(600_000)
    let first = try BalloonRequest(parsing: Self.next(&session))
    #expect(first.pageCount == 585_728)
    Self.give(&session, Self.response([Self.range(0x10_0000, 585_728)]))
    let second = try BalloonRequest(parsing: Self.next(&session))
    #expect(second.pageCount == 600_000 - 585_728)
  }

  @Test func aPartialAnswerIsAskedForAgainUntilNothingComes() throws {
    var session = Self.asked(1024)
    Self.give(&session, Self.response([Self.range(0, 512)]))
    let again = try BalloonRequest(parsing: Self.next(&session))
    #expect(again.pageCount == 512)
    Self.give(&session, Self.response([]))
    #expect(session.stage == .idle)
    expectSilence(&session)
    #expect(session.record.balloonedPages == 512)
    #expect(session.record.violations == [])
  }

  @Test func pagesOfOtherGuestsMessagesAreFound() {
    var session = Self.asked(1024)
    Self.give(&session, Self.response([Self.range(100, 10)], more: true))
    // The same; overlaps on the left, on the right, and around.
    for range in [
      Self.range(100, 10), Self.range(95, 6), Self.range(109, 1), Self.range(90, 40),
    ] {
      Self.give(&session, Self.response([range], more: true))
      #expect(session.record.violations.last == .pagesTwice(range))
    }
    // Neighbours are none of that.
    Self.give(&session, Self.response([Self.range(90, 10), Self.range(110, 1)], more: true))
    #expect(session.record.balloonedPages == 21)
    #expect(session.record.violations.count == 4)
  }

  @Test func morePagesThanWereAskedForAreRefused() {
    var session = Self.asked(512)
    Self.give(&session, Self.response([Self.range(0, 500), Self.range(1000, 13)], more: true))
    #expect(session.record.violations == [.morePagesThanAsked(Self.range(1000, 13))])
    Self.give(&session, Self.response([Self.range(1000, 12), Self.range(5000, 0)]))
    #expect(session.record.violations.last == .emptyRange)
    #expect(session.record.balloonedPages == 512)
    #expect(session.stage == .idle)
  }

  @Test func noRangesEndTheTransfer() {
    var session = Self.asked(512)
    Self.give(&session, Self.response([], more: true))
    #expect(session.record.violations == [.nothingButMore])
    #expect(session.stage == .idle)
  }

  @Test(arguments: [
    Self.response([Self.range(1, 1)]), UnballoonResponse(transactionID: 1).wireBytes,
    BalloonVersionRequest(.v2_0, transactionID: 1).wireBytes,
    BalloonCapabilitiesReport([], transactionID: 1).wireBytes,
    BalloonRequest(pageCount: 1, transactionID: 1).wireBytes,
  ])
  func whatWasNotAskedForIsAViolation(_ bytes: [UInt8]) {
    var session = Self.ready()
    #expect(Self.give(&session, bytes) == nil)
    #expect(
      session.record.violations
        == [.unexpected(BalloonMessageType(rawValue: UInt16(bytes[0])))])
    #expect(session.stage == .idle)
  }

  @Test func aReportBeforeTheStartUpIsAViolation() {
    var session = BalloonSession(balloon: 0, newestVersion: .v2_0, wantsReports: true)
    let report = BalloonStatusReport(available: 1, committed: 2, transactionID: 3)
    Self.give(&session, report.wireBytes)
    #expect(session.record.violations == [.unexpected(.statusReport)])
    #expect(session.record.lastReport == nil)
    session = Self.ready()
    Self.give(&session, report.wireBytes)
    #expect(session.record.lastReport == report)
  }

  @Test func moreRangesThanBytesAreAViolation() {
    var session = Self.asked(512)
    var bytes = Self.response([])
    bytes[12] = 0xFE
    Self.give(&session, bytes)
    #expect(
      session.record.violations
        == [.malformed(.invalid("BalloonResponse", field: "rangeCount", value: 127))])
    #expect(session.stage == .ballooning(asked: 512, given: 0))
  }

  @Test func aNoisyGuestIsNotRememberedForEver() {
    var session = Self.ready()
    for _ in 0..<1000 { Self.give(&session, [1]) }
    #expect(session.record.violations.count == 64)
  }

  @Test func pagesGoBackInAsManyMessagesAsItTakes() throws {
    var session = Self.asked(600)
    // 300 ranges that do not touch.
    let ranges = (0..<300).map { Self.range(UInt64($0) * 4, 2) }
    Self.give(&session, Self.response(ranges))
    session.unballoon(.max)
    let first = try Self.next(&session)
    let request = try UnballoonRequest(parsing: first)
    #expect(request.rangeCount == 256)
    #expect(request.morePages)
    #expect(first.count <= BalloonSession.maximumMessage)
    // An answer is not due yet.
    Self.give(&session, UnballoonResponse(transactionID: 1).wireBytes)
    #expect(session.record.violations == [.unexpected(.unballoonResponse)])
    let second = try UnballoonRequest(parsing: Self.next(&session))
    #expect(second.rangeCount == 44)
    #expect(!second.morePages)
    expectSilence(&session)
    Self.give(&session, UnballoonResponse(transactionID: 1).wireBytes)
    #expect(session.stage == .idle)
    #expect(session.record.balloonedPages == 0)
    #expect(session.record.unballoons == 1)
  }

  @Test func aSetOfPagesJoinsNeighbours() {
    var set = GuestPageSet()
    for (start, count) in [(10, 5), (20, 5), (15, 5), (0, 10), (25, 1)] as [(UInt64, UInt64)] {
      let added = set.insert(Self.range(start, count))
      #expect(added)
    }
    #expect(set.ranges == [0..<26])
    #expect(set.count == 26)
    let last = set.removeLast(6)
    #expect(last == Self.range(20, 6))
    let rest = set.removeLast(.max)
    #expect(rest == Self.range(0, 20))
    let none = set.removeLast(1)
    #expect(none == nil)
    #expect(set.count == 0)
  }
}
