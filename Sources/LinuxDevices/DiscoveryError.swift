// SPDX-License-Identifier: Apache-2.0

import CLinux
import SystemPackage
public import VMBus

/// What can go wrong when the system is asked for its devices: one line for a person.
public enum DiscoveryError: Error, Equatable, Sendable, CustomStringConvertible {
  /// The device went away while it was looked at.
  case vanished(path: String)
  /// A file that the kernel's interface promises is not there.
  case missing(file: String)
  case unreadable(file: String, code: Int32)
  /// A file says something else than the kernel's interface promises.
  case malformed(file: String, content: String, expected: WireName)
  /// A call of libudev failed.
  case udev(WireName, code: Int32)

  public var description: String {
    switch self {
    case .vanished(let path): "\(path): the device went away"
    case .missing(let file): "\(file): the file is missing"
    case .unreadable(let file, let code): "\(file): \(Errno(rawValue: code))"
    case .malformed(let file, let content, let expected):
      "\(file): '\(Self.printable(content))' is not \(expected)"
    case .udev(let call, let code): "\(call): \(Errno(rawValue: code))"
    }
  }

  /// A terminal must be able to show what a broken file said.
  private static func printable(_ text: String) -> String {
    let limit = 60
    let shown = text.prefix(limit).unicodeScalars.map {
      $0.value >= 0x20 && $0.value < 0x7F ? String($0) : "?"
    }
    return shown.joined() + (text.count > limit ? "..." : "")
  }
}

extension DiscoveryError {
  /// For a call that tells its failure in `errno`.
  package static func lastFailure(_ call: WireName) -> DiscoveryError {
    .udev(call, code: vmbus_last_error())
  }
}
