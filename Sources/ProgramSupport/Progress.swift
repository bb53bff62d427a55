// SPDX-License-Identifier: Apache-2.0

import CLinux

/// A line on a terminal's standard error that tells how far a long job is; nothing elsewhere.
public struct Progress {
  private let isTerminal = isatty(2) == 1
  private let start = vmbus_now()
  private var next: UInt64
  private var isShown = false

  public init() { next = start + 1_000_000_000 }

  /// Shows the text when a second has gone since the last time.
  public mutating func show(_ text: (_ seconds: Double) -> String) {
    let now = vmbus_now()
    guard isTerminal, now >= next else { return }
    next = now + 1_000_000_000
    isShown = true
    write("\r\u{1B}[K" + text(Double(now - start) / 1e9))
  }

  /// Takes the line away.
  public mutating func clear() {
    if isShown { write("\r\u{1B}[K") }
    isShown = false
  }

  private func write(_ text: String) {
    let bytes = Array(text.utf8)
    _ = unsafe CLinux.write(2, bytes, bytes.count)
  }
}
