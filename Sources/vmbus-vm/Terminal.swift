// SPDX-License-Identifier: Apache-2.0

import Glibc
import Platform
import Synchronization
import SystemPackage

/// Standard input, for the machine's console. A terminal gives each key as it is pressed.
final class Terminal: Sendable {
  private static let endKey: UInt8 = 0x1D  // Ctrl-]
  /// Takes what comes in; nil when the user wants the end.
  private let take = Lock<(@Sendable ([UInt8]?) -> Void)?>(nil)
  private let original: termios?
  /// It waits in `read`, and ends with the process.
  private let reader: Worker?

  /// Whether standard input is a terminal.
  static var isThere: Bool { isatty(0) == 1 }

  /// - Parameter isRaw: whether a terminal is to give each key; otherwise it stays as it is.
  init(isRaw: Bool) {
    var settings = termios()
    let isTerminal = unsafe isRaw && tcgetattr(0, &settings) == 0
    original = isTerminal ? settings : nil
    if isTerminal {
      unsafe cfmakeraw(&settings)
      // Output stays as it was: line feeds begin a line.
      settings.c_oflag |= tcflag_t(OPOST)
      _ = unsafe tcsetattr(0, TCSANOW, &settings)
    }
    reader = try? Worker(.init(name: "vm-input", spinRounds: 0))
  }

  func attach(_ take: @escaping @Sendable ([UInt8]?) -> Void) {
    let isFirst = self.take.withLock { current in
      defer { current = take }
      return current == nil
    }
    if isFirst { reader?.post { [self] in read() } }
  }

  private func read() {
    var buffer = [UInt8](repeating: 0, count: 4096)
    while true {
      let count = unsafe Glibc.read(0, &buffer, buffer.count)
      if count < 0, errno == EINTR { continue }
      guard count > 0 else { return }
      let bytes = Array(buffer.prefix(count))
      let take = take.withLock { $0 }
      if original != nil, bytes.contains(Self.endKey) { return take?(nil) ?? () }
      take?(bytes)
    }
  }

  func restore() {
    guard var original else { return }
    _ = unsafe tcsetattr(0, TCSANOW, &original)
  }
}
