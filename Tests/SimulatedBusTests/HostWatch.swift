// SPDX-License-Identifier: Apache-2.0

import VSC

/// Looks at all that the host can see, and says what must not be there.
///
/// "Where memory is encrypted" has the list of what may be host-visible. Data is where a request under
/// way has it, byte for byte, and nowhere else; in rings and SynIC pages there are packets and messages,
/// which hold no data.
final class HostWatch {
  struct Leak: Equatable, CustomStringConvertible {
    enum Kind: Equatable {
      /// The host was never told that it may see the page.
      case notVisible
      /// Bytes of what is secret.
      case secret
      /// Bytes that do not belong there.
      case unexpected
    }

    let page: GPN
    /// What the guest uses the page for.
    let use: String?
    let kind: Kind

    var description: String {
      "page 0x\(String(page, radix: 16)), used for \(use ?? "nothing"): \(kind)"
    }
  }

  let view: HostView
  /// Pages without the boundary bit.
  let uses: [(pages: Range<GPN>, use: String)]
  private let secrets: [[UInt8]]
  private(set) var leaks: [Leak] = []
  private(set) var looks = 0

  init(_ view: HostView, _ uses: [(pages: Range<GPN>, use: String)], secrets: [[UInt8]]) {
    self.view = view
    self.uses = uses
    self.secrets = secrets
  }

  func use(of page: GPN) -> String? { uses.first { $0.pages.contains(page) }?.use }

  func look() {
    looks += 1
    view.look { change in
      let use = use(of: change.page)
      if let kind = judge(change, use) {
        leaks.append(Leak(page: change.page, use: use, kind: kind))
      }
    }
  }

  private func judge(_ change: HostView.Change, _ use: String?) -> Leak.Kind? {
    guard change.isVisible else { return .notVisible }
    switch use {
    case "ring", "SynIC":
      let isSecret = secrets.contains { unsafe contains(change.content, $0) }
      return isSecret ? .secret : nil
    // Nobody posts a message meanwhile, and data is where the model has it.
    default: return .unexpected
    }
  }

  /// What the host is to find from now on, if it is in memory that it sees.
  func expect(_ bytes: [UInt8], at address: UInt64, _ memory: MemoryVisibility) {
    guard memory == .hostVisible else { return }
    unsafe bytes.withUnsafeBytes { unsafe view.expect($0, at: address) }
  }
}
