// SPDX-License-Identifier: Apache-2.0

/// Bytes from a peer that do not have the shape which the protocol demands.
///
/// Every parser of this module throws this error and nothing else; none of them traps, whatever
/// the bytes are (law 1). The error names the structure and the field, so that a log line alone
/// tells what the peer did wrong.
public enum WireError: Error, Equatable, Sendable {
  /// Fewer bytes than the structure has.
  case tooShort(WireName, needed: Int, found: Int)
  /// A field holds a value that the protocol does not allow there.
  case invalid(WireName, field: WireName, value: UInt64)
  /// The message type is not one that this protocol version and these features know.
  case unknownType(WireName, value: UInt64)
}

/// The name of a structure or a field, known at compile time: building an error allocates nothing.
public struct WireName: Equatable, Hashable, Sendable, ExpressibleByStringLiteral,
  CustomStringConvertible
{
  @usableFromInline let name: StaticString

  @inlinable public init(stringLiteral value: StaticString) { name = value }
  @inlinable public init(_ value: StaticString) { name = value }

  public var description: String { name.description }

  public static func == (left: WireName, right: WireName) -> Bool {
    left.description == right.description
  }

  public func hash(into hasher: inout Hasher) { hasher.combine(description) }
}

extension WireError: CustomStringConvertible {
  public var description: String {
    switch self {
    case .tooShort(let name, let needed, let found):
      "\(name): \(found) bytes, where at least \(needed) are needed"
    case .invalid(let name, let field, let value):
      "\(name).\(field): 0x\(String(value, radix: 16)) is not allowed"
    case .unknownType(let name, let value):
      "\(name): type \(value) is not known here"
    }
  }
}
