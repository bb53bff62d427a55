// SPDX-License-Identifier: Apache-2.0

/// What a balloon holds and has done. Page counts are of 4096 bytes.
public struct BalloonStatus: Sendable, Equatable, Encodable {
  public struct Report: Sendable, Equatable, Encodable {
    public var availablePages: UInt64
    public var committedPages: UInt64
  }

  /// What was agreed on with the host; nil before.
  public var protocolVersion: String?
  /// Why no page can be taken from this machine, or why the last attempt ended early; nil when
  /// all is well.
  public var memoryProblem: String?
  /// What the operator allows.
  public var floorPages: UInt64 = 0
  public var maximumPages: UInt64 = 0

  /// Pages that the host has.
  public var balloonedPages: UInt64 = 0
  /// Of the pages that the balloon has from the system, how many huge pages there are.
  public var hugePages = 0
  /// Pages that the host has given back while others of the same huge page are still its own: the
  /// system gets them with these.
  public var heldPages: UInt64 = 0

  public var balloonRequests: UInt64 = 0
  public var requestedPages: UInt64 = 0
  /// Requests that were answered with fewer pages than were asked for, none included.
  public var partialAnswers: UInt64 = 0
  /// Requests that were answered with no page.
  public var refusedRequests: UInt64 = 0
  public var unballoonRequests: UInt64 = 0
  public var returnedPages: UInt64 = 0
  /// Pages that the host gave back though they were not the balloon's: ignored.
  public var foreignPages: UInt64 = 0
  public var refusedHotAdds: UInt64 = 0

  /// The host wants no reports.
  public var areReportsSuppressed = false
  public var reportsSent: UInt64 = 0
  /// Reports that had no room in the ring.
  public var reportsSkipped: UInt64 = 0
  public var lastReport: Report?
  /// What the host says that this guest may grow to.
  public var hostMaximumPages: UInt64?

  public var malformedMessages: UInt64 = 0
  public var unexpectedMessages: UInt64 = 0
  public var unknownMessages: UInt64 = 0
  public var hostErrors: UInt64 = 0

  public init() {}
}

/// Why a user of the driver is told its status.
public enum BalloonEvent: Sendable, Equatable {
  /// The start-up is over, and the host has accepted this guest.
  case ready
  case reported
  /// A request was answered.
  case inflated(requestedPages: UInt64, givenPages: UInt64)
  case deflated(pages: UInt64)
  case refusedHotAdd
  case hostInformation
  case hostError
  /// A message was dropped.
  case dropped(BalloonProtocolError)
  /// The driver goes, and the system gets its memory back.
  case ended(BalloonError)
}

extension BalloonEvent {
  /// The event's name for programs.
  public var name: String {
    switch self {
    case .ready: "ready"
    case .reported: "report"
    case .inflated: "inflated"
    case .deflated: "deflated"
    case .refusedHotAdd: "hot-add-refused"
    case .hostInformation: "host-information"
    case .hostError: "host-error"
    case .dropped: "message-dropped"
    case .ended: "ended"
    }
  }
}
