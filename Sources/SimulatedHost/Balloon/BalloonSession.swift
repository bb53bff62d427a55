// SPDX-License-Identifier: Apache-2.0

public import BalloonProtocol
public import VMBus

/// The host's end of the dynamic memory protocol with one guest, as a value without I/O.
struct BalloonSession: Sendable {
  enum Stage: Equatable, Sendable {
    case version
    case capabilities
    case idle
    case ballooning(asked: UInt64, given: UInt64)
    case unballooning
  }

  private(set) var stage = Stage.version
  private(set) var record = BalloonRecord()
  private var pages = GuestPageSet()
  private var transactionID: UInt32 = 0
  /// Pages that are still to be asked for, and to be given back.
  private var toBalloon: UInt64
  private var toUnballoon: UInt64 = 0
  private let newestVersion: BalloonVersion
  private let wantsReports: Bool

  /// What Hyper-V and QEMU ask for at once, at most: 2288 MiB.
  static let maximumRequest: UInt64 = 585_728
  /// Ranges in one UNBALLOON_REQUEST.
  static let maximumRangeCount = 256
  /// The longest message that is sent, whose room is kept before anything is taken from the ring.
  static let maximumMessage = UnballoonRequest.byteCount + maximumRangeCount * PageRange.byteCount

  init(balloon pages: UInt64, newestVersion: BalloonVersion, wantsReports: Bool) {
    toBalloon = pages
    self.newestVersion = newestVersion
    self.wantsReports = wantsReports
  }

  mutating func balloon(_ pages: UInt64) { toBalloon &+= pages }
  mutating func unballoon(_ pages: UInt64) {
    let (sum, overflow) = toUnballoon.addingReportingOverflow(pages)
    toUnballoon = overflow ? .max : sum
  }

  /// What the host begins by itself now, if anything.
  mutating func next() -> [UInt8]? {
    guard stage == .idle else { return moreToUnballoon() }
    if toUnballoon > 0, pages.count > 0 {
      stage = .unballooning
      transactionID &+= 1
      return moreToUnballoon()
    }
    toUnballoon = 0
    guard toBalloon > 0, record.capabilities.contains(.balloon) else { return nil }
    let asked = min(toBalloon, Self.maximumRequest)
    stage = .ballooning(asked: asked, given: 0)
    transactionID &+= 1
    record.requests += 1
    return BalloonRequest(pageCount: UInt32(asked), transactionID: transactionID).wireBytes
  }

  private mutating func moreToUnballoon() -> [UInt8]? {
    guard stage == .unballooning, toUnballoon > 0 else { return nil }
    var ranges: [PageRange] = []
    while ranges.count < Self.maximumRangeCount, let range = pages.removeLast(toUnballoon) {
      ranges.append(range)
      toUnballoon -= range.count
    }
    if pages.count == 0 { toUnballoon = 0 }
    record.balloonedPages = pages.count
    return UnballoonRequest(
      rangeCount: ranges.count, morePages: toUnballoon > 0, transactionID: transactionID
    ).wireBytes(with: ranges)
  }

  /// Takes a message of the guest, and returns the answer.
  mutating func receive(_ payload: RawSpan) -> [UInt8]? {
    do throws(WireError) {
      let message = try BalloonHeader.message(in: payload)
      let header = message.header
      switch (header.type, stage) {
      case (.versionRequest, .version):
        let request = try BalloonVersionRequest(parsing: message.bytes)
        return answer(request)
      case (.capabilitiesReport, .capabilities):
        record.capabilities = try BalloonCapabilitiesReport(parsing: message.bytes).capabilities
        stage = .idle
        return BalloonCapabilitiesResponse(
          wantsReports
            ? [.accepted, .hotRemove] : [.accepted, .hotRemove, .suppressPressureReports],
          transactionID: header.transactionID
        ).wireBytes
      case (.statusReport, let stage) where stage != .version && stage != .capabilities:
        record.lastReport = try BalloonStatusReport(parsing: message.bytes)
        record.reports += 1
      case (.balloonResponse, .ballooning(let asked, let given)):
        try takePages(message.bytes, asked, given)
      case (.unballoonResponse, .unballooning) where toUnballoon == 0:
        stage = .idle
        record.unballoons += 1
      default:
        violate(.unexpected(header.type))
      }
    } catch {
      violate(.malformed(error))
    }
    return nil
  }

  private mutating func answer(_ request: BalloonVersionRequest) -> [UInt8] {
    let isAccepted = request.version.isKnown && request.version <= newestVersion
    if isAccepted {
      stage = .capabilities
      record.version = request.version
    } else if request.isLastAttempt {
      violate(.noCommonVersion)
    }
    return BalloonVersionResponse(
      isAccepted: isAccepted, transactionID: request.header.transactionID
    ).wireBytes
  }

  private mutating func takePages(
    _ message: RawSpan, _ asked: UInt64, _ before: UInt64
  ) throws(WireError) {
    let response = try BalloonResponse(parsing: message)
    var ranges = try PageRanges(
      message, at: BalloonResponse.byteCount, count: response.rangeCount,
      name: BalloonResponse.name)
    var given = before
    while let range = try ranges.next() {
      if range.count == 0 {
        violate(.emptyRange)
      } else if range.count > asked - given {
        violate(.morePagesThanAsked(range))
      } else if !pages.insert(range) {
        violate(.pagesTwice(range))
      } else {
        given += range.count
      }
    }
    record.balloonedPages = pages.count
    record.messages += 1
    stage = .ballooning(asked: asked, given: given)
    if response.rangeCount == 0, response.morePages { violate(.nothingButMore) }
    guard !response.morePages || response.rangeCount == 0 else { return }
    stage = .idle
    // No range: the guest has no more. Else the rest is asked for again, as QEMU does.
    toBalloon = response.rangeCount == 0 || given == 0 ? 0 : toBalloon - given
  }

  private mutating func violate(_ violation: BalloonViolation) {
    record.violations.append(violation)
    // A guest that goes on and on is not remembered for ever.
    if record.violations.count > 64 { record.violations.removeFirst() }
  }
}

/// What a guest has done, for people and tests.
public struct BalloonRecord: Sendable, Equatable {
  public var version: BalloonVersion?
  public var capabilities: BalloonCapabilitySet = []
  public var reports: UInt64 = 0
  public var lastReport: BalloonStatusReport?
  /// Pages that the host has of this guest.
  public var balloonedPages: UInt64 = 0
  public var requests: UInt64 = 0
  /// Responses to the requests; one request may have several.
  public var messages: UInt64 = 0
  public var unballoons: UInt64 = 0
  /// The last 64 of them.
  public var violations: [BalloonViolation] = []

  public init() {}
}

/// How a guest broke the protocol.
public enum BalloonViolation: Sendable, Equatable {
  case malformed(WireError)
  case unexpected(BalloonMessageType)
  case noCommonVersion
  case emptyRange
  case morePagesThanAsked(PageRange)
  /// A page that the host has already.
  case pagesTwice(PageRange)
  /// No range, and yet more to come.
  case nothingButMore
}
