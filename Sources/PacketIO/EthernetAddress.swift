// SPDX-License-Identifier: Apache-2.0

/// A MAC address of 48 bits.
public struct EthernetAddress: Hashable, Sendable, CustomStringConvertible {
  /// In the order of the wire.
  public var bytes: (UInt8, UInt8, UInt8, UInt8, UInt8, UInt8) {
    (
      byte(0), byte(1), byte(2), byte(3), byte(4), byte(5)
    )
  }

  /// The address as a number, its first byte the most significant one of the lower 48 bits.
  public let rawValue: UInt64

  /// - Parameter rawValue: the upper 16 bits are ignored.
  public init(rawValue: UInt64) { self.rawValue = rawValue & 0xFFFF_FFFF_FFFF }

  /// The address at an offset of a frame; nil where there is none.
  @inlinable
  public init?(_ frame: RawSpan, at offset: Int) {
    guard let high = frame.bigEndian16(at: offset), let middle = frame.bigEndian16(at: offset &+ 2),
      let low = frame.bigEndian16(at: offset &+ 4)
    else { return nil }
    self.init(rawValue: UInt64(high) << 32 | UInt64(middle) << 16 | UInt64(low))
  }

  /// Six pairs of hexadecimal digits with colons or hyphens between them.
  public init?(_ text: String) {
    let parts = text.split(omittingEmptySubsequences: false) { $0 == ":" || $0 == "-" }
    guard parts.count == 6 else { return nil }
    var value: UInt64 = 0
    for part in parts {
      guard part.utf8.count == 2, part.first != "+", let byte = UInt8(part, radix: 16) else {
        return nil
      }
      value = value << 8 | UInt64(byte)
    }
    self.init(rawValue: value)
  }

  func byte(_ index: Int) -> UInt8 {
    UInt8(truncatingIfNeeded: rawValue >> UInt64(40 - 8 * index))
  }

  /// Whether it names many stations: a multicast or the broadcast address.
  public var isGroup: Bool { byte(0) & 1 != 0 }

  public var description: String {
    (0..<6).map { index in
      let text = String(byte(index), radix: 16)
      return text.utf8.count == 1 ? "0" + text : text
    }.joined(separator: ":")
  }
}
