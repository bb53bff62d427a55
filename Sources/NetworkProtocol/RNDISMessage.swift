// SPDX-License-Identifier: Apache-2.0

import VMBus

/// What a RNDIS message is (offset 0).
public struct RNDISMessageType: WireInteger {
  public var rawValue: UInt32
  @inlinable public init(rawValue: UInt32) { self.rawValue = rawValue }

  @inlinable public static var packet: Self { Self(rawValue: 1) }
  @inlinable public static var initialize: Self { Self(rawValue: 2) }
  @inlinable public static var halt: Self { Self(rawValue: 3) }
  @inlinable public static var query: Self { Self(rawValue: 4) }
  @inlinable public static var set: Self { Self(rawValue: 5) }
  @inlinable public static var reset: Self { Self(rawValue: 6) }
  @inlinable public static var indicateStatus: Self { Self(rawValue: 7) }
  @inlinable public static var keepalive: Self { Self(rawValue: 8) }
  @inlinable public static var setEx: Self { Self(rawValue: 9) }
  @inlinable public static var initializeComplete: Self { Self(rawValue: 0x8000_0002) }
  @inlinable public static var queryComplete: Self { Self(rawValue: 0x8000_0004) }
  @inlinable public static var setComplete: Self { Self(rawValue: 0x8000_0005) }
  @inlinable public static var resetComplete: Self { Self(rawValue: 0x8000_0006) }
  @inlinable public static var keepaliveComplete: Self { Self(rawValue: 0x8000_0008) }
  @inlinable public static var setExComplete: Self { Self(rawValue: 0x8000_0009) }

  @inlinable public var isCompletion: Bool { rawValue & 0x8000_0000 != 0 }
}

extension RNDISMessageType: CustomStringConvertible {
  public var description: String {
    let name =
      switch rawValue & 0x7FFF_FFFF {
      case 1: "PACKET"
      case 2: "INITIALIZE"
      case 3: "HALT"
      case 4: "QUERY"
      case 5: "SET"
      case 6: "RESET"
      case 7: "INDICATE_STATUS"
      case 8: "KEEPALIVE"
      case 9: "SET_EX"
      default: "RNDIS message \(rawValue & 0x7FFF_FFFF)"
      }
    return isCompletion ? name + "_COMPLETE" : name
  }
}

/// An outcome or an event of RNDIS.
public struct RNDISStatus: WireInteger {
  public var rawValue: UInt32
  @inlinable public init(rawValue: UInt32) { self.rawValue = rawValue }

  @inlinable public static var success: Self { Self(rawValue: 0) }
  @inlinable public static var mediaConnect: Self { Self(rawValue: 0x4001_000B) }
  @inlinable public static var mediaDisconnect: Self { Self(rawValue: 0x4001_000C) }
  @inlinable public static var linkSpeedChange: Self { Self(rawValue: 0x4001_0013) }
  @inlinable public static var networkChange: Self { Self(rawValue: 0x4001_0018) }
  @inlinable public static var taskOffloadCurrentConfiguration: Self {
    Self(rawValue: 0x4002_0006)
  }
  @inlinable public static var bufferOverflow: Self { Self(rawValue: 0x8000_0005) }
  @inlinable public static var failure: Self { Self(rawValue: 0xC000_0001) }
  @inlinable public static var notSupported: Self { Self(rawValue: 0xC000_00BB) }
  @inlinable public static var resources: Self { Self(rawValue: 0xC000_009A) }
  @inlinable public static var multicastFull: Self { Self(rawValue: 0xC001_0009) }
  @inlinable public static var invalidPacket: Self { Self(rawValue: 0xC001_000F) }
  @inlinable public static var invalidLength: Self { Self(rawValue: 0xC001_0014) }
  @inlinable public static var invalidData: Self { Self(rawValue: 0xC001_0015) }
  @inlinable public static var bufferTooShort: Self { Self(rawValue: 0xC001_0016) }
  @inlinable public static var invalidOID: Self { Self(rawValue: 0xC001_0017) }
}

extension RNDISStatus: CustomStringConvertible {
  public var description: String {
    switch self {
    case .success: "SUCCESS"
    case .mediaConnect: "MEDIA_CONNECT"
    case .mediaDisconnect: "MEDIA_DISCONNECT"
    case .linkSpeedChange: "LINK_SPEED_CHANGE"
    case .networkChange: "NETWORK_CHANGE"
    case .taskOffloadCurrentConfiguration: "TASK_OFFLOAD_CURRENT_CONFIG"
    case .bufferOverflow: "BUFFER_OVERFLOW"
    case .failure: "FAILURE"
    case .notSupported: "NOT_SUPPORTED"
    case .resources: "RESOURCES"
    case .multicastFull: "MULTICAST_FULL"
    case .invalidPacket: "INVALID_PACKET"
    case .invalidLength: "INVALID_LENGTH"
    case .invalidData: "INVALID_DATA"
    case .bufferTooShort: "BUFFER_TOO_SHORT"
    case .invalidOID: "INVALID_OID"
    default: "status 0x\(String(rawValue, radix: 16))"
    }
  }
}

/// What each RNDIS message begins with.
public struct RNDISHeader: WireLayout, Equatable {
  public var type = RNDISMessageType(rawValue: 0)
  /// Bytes of the message, this header included.
  public var messageByteCount: UInt32 = 0

  @inlinable public init() {}
  @inlinable
  public init(_ type: RNDISMessageType, messageByteCount: Int) {
    self.type = type
    self.messageByteCount = UInt32(truncatingIfNeeded: messageByteCount)
  }

  @inlinable public static var name: WireName { "RNDISHeader" }
  @inlinable public static var byteCount: Int { 8 }

  @inlinable
  public mutating func visitFields<Visitor: FieldVisitor & ~Copyable & ~Escapable>(
    _ visitor: inout Visitor
  ) {
    visitor.integer("type", &type)
    visitor.integer("messageByteCount", &messageByteCount)
  }

  /// The bytes of the message in a private copy of it, which may have more behind.
  ///
  /// - Throws: `tooShort`, or `invalid` for a length that the header alone exceeds.
  @_lifetime(copy bytes)
  public static func message(in bytes: RawSpan) throws(WireError) -> RawSpan {
    let header = try RNDISHeader(parsing: bytes)
    guard header.messageByteCount >= 8 else {
      throw .invalid(
        name, field: "messageByteCount", value: UInt64(header.messageByteCount))
    }
    guard header.messageByteCount <= bytes.byteCount else {
      throw .tooShort(name, needed: Int(header.messageByteCount), found: bytes.byteCount)
    }
    return bytes.extracting(first: Int(header.messageByteCount))
  }
}

/// The body of one control message.
public protocol RNDISBody: WireLayout {
  static var type: RNDISMessageType { get }
}

extension RNDISBody {
  /// Parses a whole message of this type, header included, as `RNDISHeader.message` returns it.
  public init(message: RawSpan) throws(WireError) {
    let header = try RNDISHeader(parsing: message)
    guard header.type == Self.type else {
      throw .unknownType(Self.name, value: UInt64(header.type.rawValue))
    }
    try self.init(parsing: message.extracting(droppingFirst: RNDISHeader.byteCount))
  }

  /// Bytes of a message with an information buffer of `count` bytes.
  public static func messageByteCount(buffer count: Int = 0) -> Int {
    RNDISHeader.byteCount + byteCount + count
  }

  /// Writes the whole message to the start of `target`, which has room for it.
  ///
  /// - Parameter buffer: the information buffer; it follows the body.
  /// - Returns: bytes written.
  @discardableResult
  public func write(message target: inout MutableRawSpan, buffer: RawSpan = RawSpan()) -> Int {
    let count = Self.messageByteCount(buffer: buffer.byteCount)
    guard target.byteCount >= count else { return 0 }
    RNDISHeader(Self.type, messageByteCount: count).write(into: &target)
    write(into: &target, at: RNDISHeader.byteCount)
    var offset = RNDISHeader.byteCount + Self.byteCount
    for index in 0..<buffer.byteCount {
      target.storeBytes(
        of: unsafe buffer.unsafeLoad(fromByteOffset: index, as: UInt8.self), toByteOffset: offset,
        as: UInt8.self)
      offset += 1
    }
    return count
  }

  /// The whole message as an array.
  public func messageBytes(buffer: [UInt8] = []) -> [UInt8] {
    let count = Self.messageByteCount(buffer: buffer.count)
    return RNDISHeader(Self.type, messageByteCount: count).wireBytes + wireBytes + buffer
  }

  /// The information buffer of a message.
  ///
  /// - Parameters:
  ///   - message: all of it, header included.
  ///   - offset: the peer's, bytes from the body's start.
  ///   - count: the peer's.
  /// - Throws: for a buffer that begins in the body or does not end within the message.
  @_lifetime(copy message)
  public static func informationBuffer(
    of message: RawSpan, offset: UInt32, count: UInt32
  ) throws(WireError) -> RawSpan {
    guard count > 0 else { return message.extracting(first: 0) }
    guard offset >= byteCount else {
      throw .invalid(name, field: "bufferOffset", value: UInt64(offset))
    }
    // Two 32-bit numbers: their sum is no more than an Int holds.
    let start = RNDISHeader.byteCount + Int(offset)
    guard start + Int(count) <= message.byteCount else {
      throw .invalid(name, field: "bufferByteCount", value: UInt64(count))
    }
    return message.extracting(start..<start + Int(count))
  }
}
