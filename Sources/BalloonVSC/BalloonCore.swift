// SPDX-License-Identifier: Apache-2.0

import BalloonProtocol
import VMBus

/// The guest's end of the dynamic memory protocol as a value without I/O: messages, results and
/// times in, actions out.
struct BalloonCore: Sendable {
  enum Stage: Equatable, Sendable {
    case idle
    case askingVersion(BalloonVersion)
    case reportingCapabilities(BalloonVersion)
    case ready(BalloonVersion)
    case failed(BalloonError)
  }

  /// What is under way between the host and the balloon. One at a time, as hosts do it.
  enum Transfer: Equatable, Sendable {
    case none
    /// Pages are being taken for a BALLOON_REQUEST.
    case inflating
    /// Pages of an UNBALLOON_REQUEST are being given back to the system.
    case deflating(morePages: Bool)
    /// The host has said that more ranges will come.
    case waitingForRanges
  }

  enum Action: Equatable, Sendable {
    /// A message for the host.
    case send([UInt8])
    /// The driver may be used from here on.
    case ready(BalloonVersion)
    /// Take up to so many pages; then call `inflated`.
    case take(UInt32)
    /// Give these ranges back, as far as they are the balloon's; then call `deflated`.
    case release([PageRange])
    /// The host wanted to add memory, and was told that this guest never takes any.
    case refusedHotAdd
    case maximumPageCount(UInt64)
    /// The host says that it met an error; the protocol tells no more.
    case hostError
    /// The start-up is over without success.
    case fail(BalloonError)
  }

  struct Timing: Sendable {
    /// Nanoseconds that the host has for an answer in the start-up.
    var answer: UInt64 = 5_000_000_000
    /// Nanoseconds from the end of the start-up to the first report, and from each to the next.
    var reportDelay: UInt64 = 45_000_000_000
    var reportInterval: UInt64 = 1_000_000_000
  }

  /// Ranges that fit in the 4096 bytes which a message has at most.
  static let maximumRangeCount = (4096 - BalloonResponse.byteCount) / PageRange.byteCount

  private(set) var stage = Stage.idle
  private(set) var transfer = Transfer.none
  private(set) var areReportsSuppressed = false
  /// When `expire` is due.
  private(set) var deadline = UInt64.max
  private let timing: Timing
  private let canBalloon: Bool
  private var transactionID: UInt32 = 0
  /// Ranges that were taken and not sent yet.
  private var ranges: [PageRange] = []

  /// - Parameter canBalloon: whether pages can be taken at all. If not, the host is told so, and
  ///   the driver only reports.
  init(canBalloon: Bool, timing: Timing = Timing()) {
    self.canBalloon = canBalloon
    self.timing = timing
  }

  // MARK: - Events

  /// Begins. Only the first event may be this one.
  mutating func start(now: UInt64) -> [Action] {
    guard stage == .idle else { return [] }
    return [ask(.v2_0, now)]
  }

  /// Takes an in-band packet's payload. After an error everything is as it was before.
  mutating func receive(
    _ payload: RawSpan, now: UInt64
  ) throws(BalloonProtocolError) -> [Action] {
    let type: BalloonMessageType
    let actions: [Action]?
    do throws(WireError) {
      let message = try BalloonHeader.message(in: payload)
      type = message.header.type
      actions = try handle(message, now)
    } catch {
      throw .malformed(error)
    }
    guard let actions else { throw type.isKnown ? .unexpected(type) : .unknown(type) }
    return actions
  }

  /// Nil for a message that has no meaning at this point.
  private mutating func handle(
    _ message: BalloonMessageBytes, _ now: UInt64
  ) throws(WireError) -> [Action]? {
    switch (message.header.type, stage) {
    case (_, .idle), (_, .failed):
      return nil
    case (.error, _):
      return [.hostError]
    case (.information, _):
      return try information(message.bytes)
    case (.versionResponse, .askingVersion(let version)):
      let response = try BalloonVersionResponse(parsing: message.bytes)
      return [answered(version, isAccepted: response.isAccepted, now)]
    case (.capabilitiesResponse, .reportingCapabilities(let version)):
      let response = try BalloonCapabilitiesResponse(parsing: message.bytes)
      return [answered(version, response.flags, now)]
    case (.balloonRequest, .ready) where transfer == .none:
      let request = try BalloonRequest(parsing: message.bytes)
      transfer = .inflating
      return [.take(request.pageCount)]
    case (.unballoonRequest, .ready) where transfer == .none || transfer == .waitingForRanges:
      return [.release(try unballoon(message.bytes))]
    case (.hotAddRequest, .ready):
      _ = try HotAddRequest(parsing: message.bytes)
      return [.refusedHotAdd, refuseHotAdd()]
    default:
      return nil
    }
  }

  /// Pages were taken for the request under way.
  ///
  /// - Parameter isLast: no more will come, be it that all are there or that none are left.
  mutating func inflated(_ added: [PageRange], isLast: Bool) -> [Action] {
    guard transfer == .inflating else { return [] }
    var actions: [Action] = []
    for range in added {
      if let last = ranges.last, last.end == range.start,
        let joined = PageRange(start: last.start, count: last.count + range.count)
      {
        ranges[ranges.count - 1] = joined
        continue
      }
      // Only when one more is there: a message without ranges would end the transfer for the host.
      if ranges.count == Self.maximumRangeCount { actions.append(respond(morePages: true)) }
      ranges.append(range)
    }
    if isLast {
      actions.append(respond(morePages: false))
      transfer = .none
    }
    return actions
  }

  /// The ranges of the last `release` are done.
  mutating func deflated() -> [Action] {
    guard case .deflating(let morePages) = transfer else { return [] }
    if morePages {
      transfer = .waitingForRanges
      return []
    }
    transfer = .none
    return [.send(UnballoonResponse(transactionID: nextTransactionID()).wireBytes)]
  }

  enum Expiry: Equatable, Sendable {
    case nothing
    /// Call `report`.
    case reportDue
    case failed(BalloonError)
  }

  /// `deadline` may be over.
  mutating func expire(now: UInt64) -> Expiry {
    guard now >= deadline else { return .nothing }
    deadline = .max
    switch stage {
    case .idle, .failed:
      return .nothing
    case .askingVersion:
      return .failed(fail(.timedOut(.versionRequest)))
    case .reportingCapabilities:
      return .failed(fail(.timedOut(.capabilitiesReport)))
    case .ready:
      if areReportsSuppressed { return .nothing }
      deadline = now &+ timing.reportInterval
      return .reportDue
    }
  }

  /// The status report.
  mutating func report(available: UInt64, committed: UInt64) -> Action {
    .send(
      BalloonStatusReport(
        available: available, committed: committed, transactionID: nextTransactionID()
      ).wireBytes)
  }

  // MARK: - Parts

  private mutating func nextTransactionID() -> UInt32 {
    transactionID &+= 1
    return transactionID
  }

  private mutating func fail(_ error: BalloonError) -> BalloonError {
    stage = .failed(error)
    deadline = .max
    return error
  }

  private mutating func ask(_ version: BalloonVersion, _ now: UInt64) -> Action {
    stage = .askingVersion(version)
    deadline = now &+ timing.answer
    return .send(BalloonVersionRequest(version, transactionID: nextTransactionID()).wireBytes)
  }

  private mutating func answered(
    _ version: BalloonVersion, isAccepted: Bool, _ now: UInt64
  ) -> Action {
    guard isAccepted else {
      guard let next = version.next else { return .fail(fail(.noCommonVersion)) }
      return ask(next, now)
    }
    stage = .reportingCapabilities(version)
    deadline = now &+ timing.answer
    // Hot-add is offered though all of it is refused: Linux does so too when it is told not to add
    // memory, and a Hyper-V host has been seen to ask for no page of a guest without this bit. A
    // guest that offers neither still may report (Linux on Arm with large pages).
    var capabilities: BalloonCapabilitySet = canBalloon ? [.balloon, .hotAdd] : []
    // 128 MiB.
    if canBalloon { capabilities.hotAddAlignment = 7 }
    return .send(
      BalloonCapabilitiesReport(capabilities, transactionID: nextTransactionID()).wireBytes)
  }

  private mutating func answered(
    _ version: BalloonVersion, _ flags: BalloonCapabilitiesResponse.Flags, _ now: UInt64
  ) -> Action {
    guard flags.contains(.accepted) else { return .fail(fail(.capabilitiesRefused)) }
    stage = .ready(version)
    areReportsSuppressed = flags.contains(.suppressPressureReports)
    deadline = areReportsSuppressed ? .max : now &+ timing.reportDelay
    return .ready(version)
  }

  private func information(_ message: RawSpan) throws(WireError) -> [Action] {
    let information = try BalloonInformation(parsing: message)
    // Other kinds are for other guests.
    guard information.kind == BalloonInformation.maximumPageCount else { return [] }
    guard information.dataSize == 8 else {
      throw .invalid(
        BalloonInformation.name, field: "dataSize", value: UInt64(information.dataSize))
    }
    var reader = WireReader(message, name: BalloonInformation.name)
    try reader.skip(BalloonInformation.byteCount)
    return [.maximumPageCount(try reader.read())]
  }

  private mutating func unballoon(_ message: RawSpan) throws(WireError) -> [PageRange] {
    let request = try UnballoonRequest(parsing: message)
    var parsed = try PageRanges(
      message, at: UnballoonRequest.byteCount, count: request.rangeCount,
      name: UnballoonRequest.name)
    var result: [PageRange] = []
    result.reserveCapacity(Int(parsed.remaining))
    while let range = try parsed.next() { result.append(range) }
    transfer = .deflating(morePages: request.morePages)
    return result
  }

  /// No page with success: this guest never will take any, so the host need not try again.
  private mutating func refuseHotAdd() -> Action {
    .send(
      HotAddResponse(pageCount: 0, result: 1, transactionID: nextTransactionID()).wireBytes)
  }

  private mutating func respond(morePages: Bool) -> Action {
    let response = BalloonResponse(
      rangeCount: ranges.count, morePages: morePages, transactionID: nextTransactionID())
    defer { ranges.removeAll(keepingCapacity: true) }
    return .send(response.wireBytes(with: ranges))
  }
}
