// SPDX-License-Identifier: Apache-2.0

import CLinux
package import VMBus

/// A directory of sysfs, whose small files each say one thing.
///
/// libudev finds the directories. The files are read here: libudev keeps what it read once, gives
/// no access to directories that are no devices (`channels/`), and does not say why a read failed.
package struct SysfsDirectory: Sendable, Equatable {
  package let path: String

  package init(_ path: String) { self.path = path }

  package func directory(_ name: String) -> SysfsDirectory { SysfsDirectory("\(path)/\(name)") }

  private func file(_ name: String) -> String { "\(path)/\(name)" }

  package var exists: Bool {
    var status = vmbus_file_status()
    return unsafe vmbus_file_status(path, &status) == 0
  }

  /// A file's text without the newline at its end, or nil when there is no such file.
  /// sysfs gives a page at most; of what is longer than the limit the beginning is returned.
  package func textIfPresent(_ name: String, limit: Int = 4096) throws(DiscoveryError) -> String? {
    var bytes = [UInt8](repeating: 0, count: limit)
    let result = unsafe bytes.withUnsafeMutableBufferPointer { buffer in
      unsafe vmbus_read_file(file(name), buffer.baseAddress.unsafelyUnwrapped, buffer.count)
    }
    switch result {
    case -ENOENT: return nil
    // A file of a device that is just being removed.
    case -ENODEV: throw .vanished(path: path)
    case ..<0: throw .unreadable(file: file(name), code: -result)
    default:
      var text = bytes.prefix(Int(result))
      if text.last == UInt8(ascii: "\n") { text.removeLast() }
      return String(decoding: text, as: UTF8.self)
    }
  }

  package func text(_ name: String) throws(DiscoveryError) -> String {
    if let text = try textIfPresent(name) { return text }
    throw exists ? .missing(file: file(name)) : .vanished(path: path)
  }

  /// What a file says, as `parse` reads it.
  package func value<Value>(
    _ name: String, _ expected: WireName, _ parse: (String) -> Value?
  ) throws(DiscoveryError) -> Value {
    try parsed(name, text(name), expected, parse)
  }

  /// The same for a file that is not always there.
  package func valueIfPresent<Value>(
    _ name: String, _ expected: WireName, _ parse: (String) -> Value?
  ) throws(DiscoveryError) -> Value? {
    guard let text = try textIfPresent(name) else { return nil }
    return try parsed(name, text, expected, parse)
  }

  private func parsed<Value>(
    _ name: String, _ text: String, _ expected: WireName, _ parse: (String) -> Value?
  ) throws(DiscoveryError) -> Value {
    guard let value = parse(text) else {
      throw .malformed(file: file(name), content: text, expected: expected)
    }
    return value
  }

  /// The last part of what a link points to, or nil when there is no such link.
  package func linkedName(_ name: String) throws(DiscoveryError) -> String? {
    try linkTarget(name)?.split(separator: "/").last.map(String.init)
  }

  /// All of it.
  package func linkTarget(_ name: String) throws(DiscoveryError) -> String? {
    var bytes = [UInt8](repeating: 0, count: 4096)
    let result = unsafe bytes.withUnsafeMutableBufferPointer { buffer in
      unsafe vmbus_read_link(file(name), buffer.baseAddress.unsafelyUnwrapped, buffer.count)
    }
    if result == -ENOENT { return nil }
    guard result >= 0 else { throw .unreadable(file: file(name), code: -result) }
    return String(decoding: bytes.prefix(Int(result)), as: UTF8.self)
  }

  /// The names in a directory below this one, sorted; none when it is not there.
  package func names(in name: String) throws(DiscoveryError) -> [String] {
    var names: [String] = []
    let result = unsafe withUnsafeMutablePointer(to: &names) { names in
      unsafe vmbus_list_directory(file(name), names) { context, name in
        // Safe: the context is the array above, and the call has not returned.
        unsafe context?.assumingMemoryBound(to: [String].self).pointee.append(String(cString: name))
      }
    }
    if result == -ENOENT { return [] }
    guard result >= 0 else { throw .unreadable(file: file(name), code: -result) }
    return names.sorted()
  }

  /// A file's size in bytes, or nil when there is no such file.
  package func byteCount(of name: String) throws(DiscoveryError) -> UInt64? {
    var status = vmbus_file_status()
    let result = unsafe vmbus_file_status(file(name), &status)
    if result == -ENOENT { return nil }
    guard result >= 0 else { throw .unreadable(file: file(name), code: -result) }
    return status.size
  }
}

/// How the kernel writes numbers. Stricter than `Int("+1")`.
package enum SysfsNumber {
  package static func decimal<Number: FixedWidthInteger>(_ text: some StringProtocol) -> Number? {
    digits(text, radix: 10)
  }

  package static func hexadecimal<Number: FixedWidthInteger>(_ text: some StringProtocol) -> Number?
  {
    text.hasPrefix("0x") ? digits(text.dropFirst(2), radix: 16) : nil
  }

  private static func digits<Number: FixedWidthInteger>(
    _ text: some StringProtocol, radix: Int
  ) -> Number? {
    guard !text.isEmpty, text.allSatisfy({ $0.isASCII && $0.isHexDigit }) else { return nil }
    return Number(text, radix: radix)
  }
}
