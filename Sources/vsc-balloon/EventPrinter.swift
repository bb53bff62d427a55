// SPDX-License-Identifier: Apache-2.0

import BalloonVSC
import CLinux
import FoundationEssentials
import Logging

/// Prints a line for each event on standard output, unbuffered: another program may wait for it.
struct EventPrinter: Sendable {
  let isJSON: Bool
  /// Whether the out-of-memory killer spares this process.
  let isProtected: Bool
  let logger: Logger

  private struct Line: Encodable {
    var event: String
    var detail: String?
    var status: BalloonStatus
  }

  func print(_ event: BalloonEvent, _ status: BalloonStatus) {
    if case .dropped(let error) = event { logger.warning("a message of the host: \(error)") }
    if case .ready = event {
      if let problem = status.memoryProblem {
        logger.warning("no page can be given to the host: \(problem)")
      } else if !isProtected {
        logger.warning(
          "the out-of-memory killer may end this program, and the host would not know: it needs CAP_SYS_RESOURCE, or OOMScoreAdjust=-1000 in its service"
        )
      }
    }
    if case .inflated = event, let problem = status.memoryProblem {
      logger.warning("a request was answered in part: \(problem)")
    }
    if case .ended = event, status.balloonedPages > 0 {
      logger.warning(
        "\(Self.mebibytes(status.balloonedPages)) go back to the system that the host has not returned"
      )
    }
    let line = isJSON ? json(event, status) : Self.text(event, status)
    let bytes = Array((line + "\n").utf8)
    _ = unsafe write(1, bytes, bytes.count)
  }

  private func json(_ event: BalloonEvent, _ status: BalloonStatus) -> String {
    let encoder = JSONEncoder()
    encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
    let line = Line(event: event.name, detail: Self.detail(event), status: status)
    // Only numbers that are not finite can't be encoded, and there are none.
    guard let data = try? encoder.encode(line) else { return "{}" }
    return String(decoding: data, as: UTF8.self)
  }

  private static func detail(_ event: BalloonEvent) -> String? {
    switch event {
    case .dropped(let error): "\(error)"
    case .ended(let error): "\(error)"
    default: nil
    }
  }

  static func text(_ event: BalloonEvent, _ status: BalloonStatus) -> String {
    switch event {
    case .ready:
      "ready: protocol \(status.protocolVersion ?? "-"), "
        + (status.memoryProblem != nil
          ? "no balloon"
          : "at most \(mebibytes(status.maximumPages)), floor \(mebibytes(status.floorPages))")
        + (status.areReportsSuppressed ? ", the host wants no reports" : "")
    case .reported:
      "report: \(mebibytes(status.lastReport?.availablePages ?? 0)) available, "
        + "\(mebibytes(status.lastReport?.committedPages ?? 0)) committed, "
        + "\(mebibytes(status.balloonedPages)) in the balloon"
    case .inflated(let requested, let given):
      "balloon: asked for \(mebibytes(requested)), gave \(mebibytes(given)); "
        + "\(mebibytes(status.balloonedPages)) in the balloon"
    case .deflated(let pages):
      "unballoon: \(mebibytes(pages)) came back; \(mebibytes(status.balloonedPages)) in the balloon"
    case .refusedHotAdd: "hot-add: refused"
    case .hostInformation:
      "host: this machine may grow to \(mebibytes(status.hostMaximumPages ?? 0))"
    case .hostError: "host: it says that it met an error"
    case .dropped(let error): "dropped: \(error)"
    case .ended(let error): "ended: \(error)"
    }
  }

  private static func mebibytes(_ pages: UInt64) -> String {
    pages % 256 == 0 || pages > 2560 ? "\(pages / 256) MiB" : "\(pages) pages"
  }
}
