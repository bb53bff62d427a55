// SPDX-License-Identifier: Apache-2.0

public import VMBus

/// The kinds of message of the dynamic memory protocol.
public struct BalloonMessageType: WireInteger {
  public var rawValue: UInt16
  @inlinable public init(rawValue: UInt16) { self.rawValue = rawValue }

  public static let error = Self(rawValue: 0)
  public static let versionRequest = Self(rawValue: 1)
  public static let versionResponse = Self(rawValue: 2)
  public static let capabilitiesReport = Self(rawValue: 3)
  public static let capabilitiesResponse = Self(rawValue: 4)
  public static let statusReport = Self(rawValue: 5)
  public static let balloonRequest = Self(rawValue: 6)
  public static let balloonResponse = Self(rawValue: 7)
  public static let unballoonRequest = Self(rawValue: 8)
  public static let unballoonResponse = Self(rawValue: 9)
  public static let hotAddRequest = Self(rawValue: 10)
  public static let hotAddResponse = Self(rawValue: 11)
  /// Since version 1.0.
  public static let information = Self(rawValue: 12)
  /// Since version 2.0.
  public static let hotRemoveRequest = Self(rawValue: 13)
  /// Since version 2.0.
  public static let hotRemoveResponse = Self(rawValue: 14)

  static let names: [StaticString] = [
    "ERROR", "VERSION_REQUEST", "VERSION_RESPONSE", "CAPABILITIES_REPORT",
    "CAPABILITIES_RESPONSE", "STATUS_REPORT", "BALLOON_REQUEST", "BALLOON_RESPONSE",
    "UNBALLOON_REQUEST", "UNBALLOON_RESPONSE", "MEM_HOT_ADD_REQUEST", "MEM_HOT_ADD_RESPONSE",
    "INFO", "MEM_HOT_REMOVE_REQUEST", "MEM_HOT_REMOVE_RESPONSE",
  ]

  public var isKnown: Bool { Int(rawValue) < Self.names.count }
}

extension BalloonMessageType: CustomStringConvertible {
  public var description: String {
    isKnown ? Self.names[Int(rawValue)].description : "type \(rawValue)"
  }
}

/// What every message begins with. All messages are in-band packets without a completion, one
/// message in each.
public struct BalloonHeader: WireLayout, Equatable {
  public static let name: WireName = "BalloonHeader"
  public static let byteCount = 8

  public var type = BalloonMessageType(rawValue: 0)
  /// Bytes of the whole message, this header included.
  public var size: UInt16 = 0
  /// Each side counts its own messages. Linux answers with numbers of its own, and neither Hyper-V
  /// nor QEMU compares them.
  public var transactionID: UInt32 = 0

  public init() {}

  public init(_ type: BalloonMessageType, size: Int, transactionID: UInt32 = 0) {
    self.type = type
    self.size = UInt16(truncatingIfNeeded: size)
    self.transactionID = transactionID
  }

  public mutating func visitFields<Visitor: FieldVisitor & ~Copyable & ~Escapable>(
    _ visitor: inout Visitor
  ) {
    visitor.integer("type", &type)
    visitor.integer("size", &size)
    visitor.integer("transactionID", &transactionID)
  }

  /// The header of a packet's payload.
  ///
  /// - Returns: the header, and the message: the payload without the padding behind it.
  /// - Throws: when the message says that it is longer than its packet, or shorter than a header.
  @_lifetime(copy payload)
  public static func message(in payload: RawSpan) throws(WireError) -> BalloonMessageBytes {
    let header = try BalloonHeader(parsing: payload)
    let size = Int(header.size)
    guard size >= byteCount, size <= payload.byteCount else {
      throw .invalid(name, field: "size", value: UInt64(header.size))
    }
    return BalloonMessageBytes(header: header, bytes: payload.extracting(first: size))
  }
}

/// A message whose header has been read.
public struct BalloonMessageBytes: ~Escapable {
  public let header: BalloonHeader
  /// All of it, header included.
  public let bytes: RawSpan

  @_lifetime(copy bytes)
  init(header: BalloonHeader, bytes: RawSpan) {
    self.header = header
    self.bytes = bytes
  }
}

/// A structure that is a message, or the part of one that always has the same size.
public protocol BalloonMessage: WireLayout {
  static var type: BalloonMessageType { get }
  var header: BalloonHeader { get set }
}

extension BalloonMessage {
  /// A message with its header filled in.
  static func blank(_ transactionID: UInt32) -> Self {
    var message = Self()
    message.header = BalloonHeader(type, size: byteCount, transactionID: transactionID)
    return message
  }
}
