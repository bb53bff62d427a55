// SPDX-License-Identifier: Apache-2.0

/// Where things lie in the two pages of a synthetic interrupt controller, one pair for each
/// virtual processor. Offsets only: who maps the pages does the accesses.
///
/// SIMP, the message page: 16 slots of 256 bytes, one for each SINT. SIEFP, the event flags page:
/// 16 times 2048 bits. (Hypervisor Top-Level Functional Specification, "Virtual interrupts".)
public enum SynIC {
  /// The interrupt source that VMBus uses.
  public static let vmbusSINT = 2

  public static let messageSlotByteCount = 256
  /// Bytes from the start of the message page.
  public static func messageSlotOffset(sint: Int) -> Int { sint * messageSlotByteCount }

  /// What a message carries at most.
  public static let maximumPayloadByteCount = 240
  /// The type of a slot that holds no message.
  public static let noMessage: UInt32 = 0
  /// The type of all VMBus messages.
  public static let vmbusMessage: UInt32 = 1

  public static let eventFlagsPerSINT = 2048
  /// Bytes from the start of the event flags page.
  public static func eventFlagsOffset(sint: Int) -> Int { sint * eventFlagsPerSINT / 8 }
}

/// The first 16 bytes of a message slot.
public struct SynICMessageHeader: WireLayout, Equatable {
  public static let name: WireName = "SynIC message"
  public static let byteCount = 16

  /// @0: 0 for an empty slot. The receiver writes 0 when it has taken the message.
  public var type: UInt32 = 0
  /// @4: bytes of the payload at @16.
  public var payloadByteCount: UInt8 = 0
  /// @5: bit 0, another message waits: signal the end of this one.
  public var flags: UInt8 = 0
  /// @8
  public var sender: UInt64 = 0

  public init() {}

  public mutating func visitFields<Visitor: FieldVisitor & ~Copyable & ~Escapable>(
    _ visitor: inout Visitor
  ) {
    visitor.integer("type", &type)
    visitor.integer("payload_size", &payloadByteCount)
    visitor.integer("flags", &flags)
    visitor.padding(2)
    visitor.integer("sender", &sender)
  }

  public static let messagePending: UInt8 = 1
}

/// What a hypercall returns (u16).
public struct HypercallStatus: WireInteger, CustomStringConvertible {
  public let rawValue: UInt16
  public init(rawValue: UInt16) { self.rawValue = rawValue }

  public static let success = HypercallStatus(rawValue: 0)
  public static let invalidCode = HypercallStatus(rawValue: 2)
  public static let invalidInput = HypercallStatus(rawValue: 3)
  public static let invalidAlignment = HypercallStatus(rawValue: 4)
  public static let invalidParameter = HypercallStatus(rawValue: 5)
  public static let accessDenied = HypercallStatus(rawValue: 6)
  public static let invalidPortID = HypercallStatus(rawValue: 0x11)
  public static let invalidConnectionID = HypercallStatus(rawValue: 0x12)
  /// The receiver is behind: try again.
  public static let insufficientBuffers = HypercallStatus(rawValue: 0x13)

  public var description: String {
    switch self {
    case .success: "success"
    case .invalidCode: "invalid hypercall code"
    case .invalidInput: "invalid hypercall input"
    case .invalidAlignment: "invalid alignment"
    case .invalidParameter: "invalid parameter"
    case .accessDenied: "access denied"
    case .invalidPortID: "invalid port id"
    case .invalidConnectionID: "invalid connection id"
    case .insufficientBuffers: "insufficient buffers"
    default: "status 0x\(String(rawValue, radix: 16))"
    }
  }
}
