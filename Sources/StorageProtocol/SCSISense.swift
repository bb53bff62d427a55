// SPDX-License-Identifier: Apache-2.0

import VMBus

/// The kind of a failed command.
public struct SCSISenseKey: WireInteger {
  public var rawValue: UInt8
  @inlinable public init(rawValue: UInt8) { self.rawValue = rawValue }

  @inlinable public static var noSense: Self { Self(rawValue: 0x0) }
  @inlinable public static var recoveredError: Self { Self(rawValue: 0x1) }
  @inlinable public static var notReady: Self { Self(rawValue: 0x2) }
  @inlinable public static var mediumError: Self { Self(rawValue: 0x3) }
  @inlinable public static var hardwareError: Self { Self(rawValue: 0x4) }
  @inlinable public static var illegalRequest: Self { Self(rawValue: 0x5) }
  @inlinable public static var unitAttention: Self { Self(rawValue: 0x6) }
  @inlinable public static var dataProtect: Self { Self(rawValue: 0x7) }
  @inlinable public static var abortedCommand: Self { Self(rawValue: 0xB) }
}

/// Why a SCSI command failed: a key and two codes that refine it.
public struct SCSISense: Equatable, Hashable, Sendable {
  public var key: SCSISenseKey
  /// Additional sense code.
  public var code: UInt8
  /// Additional sense code qualifier.
  public var qualifier: UInt8

  @inlinable
  public init(key: SCSISenseKey, code: UInt8 = 0, qualifier: UInt8 = 0) {
    self.key = key
    self.code = code
    self.qualifier = qualifier
  }

  @inlinable public static var none: Self { Self(key: .noSense) }
  @inlinable public static var writeError: Self { Self(key: .mediumError, code: 0x0C) }
  @inlinable public static var unrecoveredRead: Self { Self(key: .mediumError, code: 0x11) }
  @inlinable public static var unknownCommand: Self { Self(key: .illegalRequest, code: 0x20) }
  @inlinable public static var addressOutOfRange: Self { Self(key: .illegalRequest, code: 0x21) }
  @inlinable public static var invalidField: Self { Self(key: .illegalRequest, code: 0x24) }
  @inlinable public static var savingUnsupported: Self { Self(key: .illegalRequest, code: 0x39) }
  @inlinable public static var writeProtected: Self { Self(key: .dataProtect, code: 0x27) }

  /// Reads sense data of the fixed or of the descriptor format; nil for any other, or when the
  /// first `count` bytes do not reach to the codes.
  @inlinable
  public init?(parsing payload: InlineArray<20, UInt8>, count: Int) {
    let format = payload[0] & 0x7F
    switch format {
    case 0x70, 0x71:
      guard count >= 14 else { return nil }
      self.init(
        key: SCSISenseKey(rawValue: payload[2] & 0xF), code: payload[12], qualifier: payload[13])
    case 0x72, 0x73:
      guard count >= 4 else { return nil }
      self.init(
        key: SCSISenseKey(rawValue: payload[1] & 0xF), code: payload[2], qualifier: payload[3])
    default:
      return nil
    }
  }
}

extension SCSISense: CustomStringConvertible {
  public var description: String {
    func hex(_ value: UInt8) -> String {
      (value < 16 ? "0" : "") + String(value, radix: 16)
    }
    let codes = "\(hex(key.rawValue))/\(hex(code))/\(hex(qualifier))"
    return meaning.map { "\($0) (\(codes))" } ?? "sense \(codes)"
  }

  private var meaning: String? {
    switch (key.rawValue, code, qualifier) {
    case (0, 0, 0): "no sense"
    case (3, 0x0C, _): "write error"
    case (3, 0x11, _): "unrecovered read error"
    case (5, 0x20, 0): "unknown command"
    case (5, 0x21, 0): "block address out of range"
    case (5, 0x24, 0): "invalid field in the command"
    case (5, 0x25, 0): "logical unit not supported"
    case (5, 0x39, 0): "saved parameters not supported"
    case (6, 0x29, _): "unit was reset"
    case (6, 0x2A, 9): "capacity changed"
    case (6, 0x3F, _): "unit changed"
    case (7, 0x27, _): "write protected"
    default: nil
    }
  }
}

/// Sense data of the fixed format, for an error that is reported with its command.
public struct FixedSenseData: WireLayout {
  /// 0x70: current information.
  public var responseCode: UInt8 = 0x70
  public var key = SCSISenseKey.noSense
  /// Bytes after this one: 10.
  public var additionalLength: UInt8 = 10
  public var code: UInt8 = 0
  public var qualifier: UInt8 = 0

  @inlinable public init() {}

  @inlinable
  public init(_ sense: SCSISense) {
    key = sense.key
    code = sense.code
    qualifier = sense.qualifier
  }

  @inlinable public static var name: WireName { "FixedSenseData" }
  @inlinable public static var byteCount: Int { 18 }

  @inlinable
  public mutating func visitFields<Visitor: FieldVisitor & ~Copyable & ~Escapable>(
    _ visitor: inout Visitor
  ) {
    visitor.integer("responseCode", &responseCode)
    visitor.padding(1)
    visitor.integer("key", &key)
    visitor.padding(4)
    visitor.integer("additionalLength", &additionalLength)
    visitor.padding(4)
    visitor.integer("code", &code)
    visitor.integer("qualifier", &qualifier)
    visitor.padding(4)
  }
}
