// SPDX-License-Identifier: Apache-2.0

/// A GUID as VMBus writes it.
///
/// On the wire the first three groups are little-endian and the last two are as written
/// ("mixed-endian"): `f8615163-df3e-46c5-913f-f2d2f965ed0e` is the bytes
/// `63 51 61 f8 3e df c5 46 91 3f f2 d2 f9 65 ed 0e`.
public struct GUID: Hashable, Sendable {
  /// The 16 bytes in wire order.
  public var wireBytes: InlineArray<16, UInt8>

  /// All zero.
  public init() { wireBytes = InlineArray(repeating: 0) }

  public init(wireBytes: InlineArray<16, UInt8>) { self.wireBytes = wireBytes }

  /// Reads `xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx`, in either case, with or without braces.
  public init?(_ text: some StringProtocol) {
    var text = Substring(text)
    if text.hasPrefix("{") {
      guard text.hasSuffix("}") else { return nil }
      text = text.dropFirst().dropLast()
    }
    let groups = text.split(separator: "-", omittingEmptySubsequences: false)
    guard groups.map(\.utf8.count) == [8, 4, 4, 4, 12] else { return nil }
    self.init()
    for (written, digits) in groups.joined().enumerated() {
      guard let value = digits.hexDigitValue, digits.isASCII else { return nil }
      let index = GUID.wireIndex[written / 2]
      wireBytes[index] = wireBytes[index] << 4 | UInt8(value)
    }
  }

  /// Where on the wire the nth written byte lies.
  private static let wireIndex = [3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15]

  public static func == (left: GUID, right: GUID) -> Bool {
    for index in left.wireBytes.indices where left.wireBytes[index] != right.wireBytes[index] {
      return false
    }
    return true
  }

  public func hash(into hasher: inout Hasher) {
    for index in wireBytes.indices { hasher.combine(wireBytes[index]) }
  }
}

extension GUID: CustomStringConvertible {
  /// Lower case without braces, as Linux names its devices.
  public var description: String {
    var text = ""
    for (written, index) in GUID.wireIndex.enumerated() {
      if [4, 6, 8, 10].contains(written) { text += "-" }
      let digits = String(wireBytes[index], radix: 16)
      text += digits.count == 1 ? "0" + digits : digits
    }
    return text
  }
}

extension GUID: ExpressibleByStringLiteral {
  /// A literal in the source of a program; a wrong one is a mistake of its author.
  public init(stringLiteral value: StaticString) {
    guard let guid = GUID(value.description) else {
      preconditionFailure("'\(value)' is not a GUID")
    }
    self = guid
  }
}
