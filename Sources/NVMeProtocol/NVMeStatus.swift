// SPDX-License-Identifier: Apache-2.0

public import VMBus

/// How a command went: bits 15 to 1 of a completion's last word (NVMe Base 1.4, 4.6.1).
public struct NVMeStatus: Sendable, Hashable {
  public var condition: NVMeCondition
  /// The same command would fail again.
  public var isFinal: Bool

  @inlinable
  public init(_ condition: NVMeCondition, isFinal: Bool = false) {
    self.condition = condition
    self.isFinal = isFinal
  }

  /// - Parameter field: bit 0 is the phase tag, which is no part of it.
  @inlinable
  public init(field: UInt16) {
    condition = NVMeCondition(rawValue: field >> 1 & 0x7FF)
    isFinal = field & 0x8000 != 0
  }

  /// Without the phase tag.
  @inlinable public var field: UInt16 {
    (condition.rawValue & 0x7FF) << 1 | (isFinal ? 0x8000 : 0)
  }
}

extension NVMeStatus: CustomStringConvertible {
  public var description: String { "\(condition)" + (isFinal ? ", not to be tried again" : "") }
}

/// Status code type (bits 10 to 8) and status code.
public struct NVMeCondition: WireInteger {
  public var rawValue: UInt16
  @inlinable public init(rawValue: UInt16) { self.rawValue = rawValue }

  /// 0: generic, 1: of the command, 2: media and data integrity, 7: vendor's.
  @inlinable public var type: UInt8 { UInt8(truncatingIfNeeded: rawValue >> 8) }
  @inlinable public var code: UInt8 { UInt8(truncatingIfNeeded: rawValue) }

  @inlinable public static var success: Self { Self(rawValue: 0x000) }
  @inlinable public static var invalidOpcode: Self { Self(rawValue: 0x001) }
  @inlinable public static var invalidField: Self { Self(rawValue: 0x002) }
  @inlinable public static var commandIDConflict: Self { Self(rawValue: 0x003) }
  @inlinable public static var dataTransferError: Self { Self(rawValue: 0x004) }
  @inlinable public static var abortedByPowerLoss: Self { Self(rawValue: 0x005) }
  @inlinable public static var internalError: Self { Self(rawValue: 0x006) }
  @inlinable public static var abortRequested: Self { Self(rawValue: 0x007) }
  @inlinable public static var abortedByQueueDeletion: Self { Self(rawValue: 0x008) }
  @inlinable public static var invalidNamespace: Self { Self(rawValue: 0x00B) }
  @inlinable public static var commandSequenceError: Self { Self(rawValue: 0x00C) }
  @inlinable public static var invalidDataLength: Self { Self(rawValue: 0x00F) }
  @inlinable public static var invalidDescriptorType: Self { Self(rawValue: 0x011) }
  @inlinable public static var invalidPRPOffset: Self { Self(rawValue: 0x013) }
  @inlinable public static var writeProtected: Self { Self(rawValue: 0x020) }
  @inlinable public static var interrupted: Self { Self(rawValue: 0x021) }
  @inlinable public static var transientTransportError: Self { Self(rawValue: 0x022) }
  @inlinable public static var outOfRange: Self { Self(rawValue: 0x080) }
  @inlinable public static var capacityExceeded: Self { Self(rawValue: 0x081) }
  @inlinable public static var namespaceNotReady: Self { Self(rawValue: 0x082) }
  @inlinable public static var reservationConflict: Self { Self(rawValue: 0x083) }
  @inlinable public static var invalidCompletionQueue: Self { Self(rawValue: 0x100) }
  @inlinable public static var invalidQueue: Self { Self(rawValue: 0x101) }
  @inlinable public static var invalidQueueSize: Self { Self(rawValue: 0x102) }
  @inlinable public static var abortLimitExceeded: Self { Self(rawValue: 0x103) }
  @inlinable public static var eventLimitExceeded: Self { Self(rawValue: 0x105) }
  @inlinable public static var invalidVector: Self { Self(rawValue: 0x108) }
  @inlinable public static var invalidLogPage: Self { Self(rawValue: 0x109) }
  @inlinable public static var readOnlyRange: Self { Self(rawValue: 0x182) }
  @inlinable public static var writeFault: Self { Self(rawValue: 0x280) }
  @inlinable public static var unrecoveredRead: Self { Self(rawValue: 0x281) }
  @inlinable public static var compareFailure: Self { Self(rawValue: 0x285) }
}

extension NVMeCondition: CustomStringConvertible {
  public var description: String {
    switch self {
    case .success: "success"
    case .invalidOpcode: "invalid opcode"
    case .invalidField: "invalid field"
    case .commandIDConflict: "command id conflict"
    case .dataTransferError: "data transfer error"
    case .abortedByPowerLoss: "aborted, power is lost"
    case .internalError: "internal error"
    case .abortRequested: "aborted as was asked"
    case .abortedByQueueDeletion: "aborted, the queue was deleted"
    case .invalidNamespace: "invalid namespace"
    case .commandSequenceError: "command sequence error"
    case .invalidPRPOffset: "invalid PRP offset"
    case .writeProtected: "write-protected"
    case .interrupted: "interrupted"
    case .transientTransportError: "transient transport error"
    case .outOfRange: "LBA out of range"
    case .capacityExceeded: "capacity exceeded"
    case .namespaceNotReady: "namespace not ready"
    case .reservationConflict: "reservation conflict"
    case .invalidCompletionQueue: "invalid completion queue"
    case .invalidQueue: "invalid queue"
    case .invalidQueueSize: "invalid queue size"
    case .abortLimitExceeded: "too many aborts"
    case .eventLimitExceeded: "too many event requests"
    case .invalidVector: "invalid interrupt vector"
    case .invalidLogPage: "invalid log page"
    case .readOnlyRange: "read-only range"
    case .writeFault: "write fault"
    case .unrecoveredRead: "unrecovered read error"
    case .compareFailure: "compare failure"
    default: "status type \(type), code 0x\(String(code, radix: 16))"
    }
  }
}
