// SPDX-License-Identifier: Apache-2.0

/// As much of ACPI's machine language as this machine's devices need. (ACPI 6.5, chapter 20.)
enum AML {
  /// A name of one to four letters.
  static func segment(_ name: String) -> [UInt8] {
    let letters = Array(name.utf8.prefix(4))
    return letters + [UInt8](repeating: UInt8(ascii: "_"), count: 4 - letters.count)
  }

  static func integer(_ value: UInt8) -> [UInt8] {
    // 0 and 1 have opcodes of their own.
    value < 2 ? [value] : [0x0A, value]
  }

  static func string(_ text: String) -> [UInt8] { [0x0D] + Array(text.utf8) + [0] }

  static func buffer(_ bytes: [UInt8]) -> [UInt8] {
    [0x11] + counted(integer(UInt8(truncatingIfNeeded: bytes.count)) + bytes)
  }

  static func package(_ elements: [[UInt8]]) -> [UInt8] {
    [0x12] + counted([UInt8(truncatingIfNeeded: elements.count)] + elements.flatMap(\.self))
  }

  static func name(_ name: String, _ value: [UInt8]) -> [UInt8] {
    [0x08] + segment(name) + value
  }

  static func device(_ name: String, _ content: [[UInt8]]) -> [UInt8] {
    [0x5B, 0x82] + counted(segment(name) + content.flatMap(\.self))
  }

  static func scope(_ name: String, _ content: [[UInt8]]) -> [UInt8] {
    [0x10] + counted(segment(name) + content.flatMap(\.self))
  }

  /// Puts the length, which counts itself, in front.
  private static func counted(_ content: [UInt8]) -> [UInt8] {
    if content.count + 1 < 0x40 { return [UInt8(content.count + 1)] + content }
    let count = content.count + 2
    return [0x40 | UInt8(count & 0xF), UInt8(truncatingIfNeeded: count >> 4)] + content
  }
}
