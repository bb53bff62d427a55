// SPDX-License-Identifier: Apache-2.0

import Platform
import SimulatedLink
import Synchronization
import VMBus

/// What went past the visibility of a guest's pages, and how much data moved in pages of each kind.
///
/// A page that may not be seen is never touched here; that somebody wanted to is what counts, whether
/// the guest named the wrong page or this side looked at the wrong place.
final class VisibilityAudit: Sendable {
  private struct Violations {
    var count: UInt64 = 0
    var first: [String] = []
  }

  private static let keptNames = 8
  private let violations = Lock(Violations())
  private let sharedPages = Atomic<UInt64>(0)
  private let encryptedPages = Atomic<UInt64>(0)
  /// In page numbers.
  private let boundary: GPN

  init(boundary: GPN) { self.boundary = boundary }

  /// An access to a page that may not be seen where it was wanted.
  func refused(_ page: GPN) { note("page 0x\(String(page, radix: 16)) was wanted") }

  /// A page has changed its visibility while somebody had it.
  func changedInUse(_ page: GPN, of user: String) {
    note("page 0x\(String(page, radix: 16)) changed, which \(user) has")
  }

  private func note(_ what: @autoclosure () -> String) {
    violations.withLock { violations in
      violations.count += 1
      if violations.first.count < Self.keptNames { violations.first.append(what()) }
    }
  }

  /// Pages of GPA-direct packets; the pages of one segment lie behind each other.
  func countData(_ pages: UInt64, _ view: GuestMemoryView) {
    if view == .encrypted {
      encryptedPages.add(pages, ordering: .relaxed)
    } else {
      sharedPages.add(pages, ordering: .relaxed)
    }
  }

  var violationCount: UInt64 { violations.withLock { $0.count } }

  /// For the log.
  var summary: String {
    let data =
      "data pages: \(sharedPages.load(ordering: .relaxed)) shared, "
      + "\(encryptedPages.load(ordering: .relaxed)) encrypted"
    let (count, first) = violations.withLock { ($0.count, $0.first) }
    let names = first.isEmpty ? "" : " (\(first.joined(separator: "; ")))"
    return "visibility: \(count) violations\(names); \(data)"
  }

  /// The pages of a change, without the bit that may be in their numbers.
  func pages(_ change: LinkVisibility) -> Range<GPN> {
    let first = change.firstPage & ~boundary
    return first..<(first &+ min(change.pageCount, UInt64.max &- first))
  }
}
