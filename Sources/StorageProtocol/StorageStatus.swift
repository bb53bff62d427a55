// SPDX-License-Identifier: Apache-2.0

import VMBus

/// The status of a storage packet as a whole (header, offset 8).
public struct NTStatus: WireInteger {
  public var rawValue: UInt32
  @inlinable public init(rawValue: UInt32) { self.rawValue = rawValue }

  @inlinable public static var success: Self { Self(rawValue: 0) }
  @inlinable public static var bufferOverflow: Self { Self(rawValue: 0x8000_0005) }
  @inlinable public static var deviceBusy: Self { Self(rawValue: 0x8000_0011) }
  @inlinable public static var unsuccessful: Self { Self(rawValue: 0xC000_0001) }
  @inlinable public static var invalidParameter: Self { Self(rawValue: 0xC000_000D) }
  @inlinable public static var invalidDeviceRequest: Self { Self(rawValue: 0xC000_0010) }
  @inlinable public static var revisionMismatch: Self { Self(rawValue: 0xC000_0059) }
  @inlinable public static var deviceNotConnected: Self { Self(rawValue: 0xC000_009D) }
  @inlinable public static var ioTimeout: Self { Self(rawValue: 0xC000_00B5) }
  @inlinable public static var deviceDoesNotExist: Self { Self(rawValue: 0xC000_00C0) }
  @inlinable public static var cancelled: Self { Self(rawValue: 0xC000_0120) }
  @inlinable public static var invalidDeviceState: Self { Self(rawValue: 0xC000_0184) }
  @inlinable public static var ioDeviceError: Self { Self(rawValue: 0xC000_0185) }
}

extension NTStatus: CustomStringConvertible {
  public var description: String {
    switch self {
    case .success: "SUCCESS"
    case .bufferOverflow: "BUFFER_OVERFLOW"
    case .deviceBusy: "DEVICE_BUSY"
    case .unsuccessful: "UNSUCCESSFUL"
    case .invalidParameter: "INVALID_PARAMETER"
    case .invalidDeviceRequest: "INVALID_DEVICE_REQUEST"
    case .revisionMismatch: "REVISION_MISMATCH"
    case .deviceNotConnected: "DEVICE_NOT_CONNECTED"
    case .ioTimeout: "IO_TIMEOUT"
    case .deviceDoesNotExist: "DEVICE_DOES_NOT_EXIST"
    case .cancelled: "CANCELLED"
    case .invalidDeviceState: "INVALID_DEVICE_STATE"
    case .ioDeviceError: "IO_DEVICE_ERROR"
    default: "NTSTATUS 0x\(String(rawValue, radix: 16))"
    }
  }
}

/// How a SCSI request went (`SCSIRequest`, offset 2): a code in the low six bits and two flags.
public struct SRBStatus: WireInteger {
  public var rawValue: UInt8
  @inlinable public init(rawValue: UInt8) { self.rawValue = rawValue }

  @inlinable public static var pending: Self { Self(rawValue: 0x00) }
  @inlinable public static var success: Self { Self(rawValue: 0x01) }
  @inlinable public static var aborted: Self { Self(rawValue: 0x02) }
  @inlinable public static var abortFailed: Self { Self(rawValue: 0x03) }
  @inlinable public static var error: Self { Self(rawValue: 0x04) }
  @inlinable public static var busy: Self { Self(rawValue: 0x05) }
  @inlinable public static var invalidRequest: Self { Self(rawValue: 0x06) }
  @inlinable public static var invalidPathID: Self { Self(rawValue: 0x07) }
  @inlinable public static var noDevice: Self { Self(rawValue: 0x08) }
  @inlinable public static var timeout: Self { Self(rawValue: 0x09) }
  @inlinable public static var selectionTimeout: Self { Self(rawValue: 0x0A) }
  @inlinable public static var commandTimeout: Self { Self(rawValue: 0x0B) }
  @inlinable public static var messageRejected: Self { Self(rawValue: 0x0D) }
  @inlinable public static var busReset: Self { Self(rawValue: 0x0E) }
  @inlinable public static var parityError: Self { Self(rawValue: 0x0F) }
  @inlinable public static var requestSenseFailed: Self { Self(rawValue: 0x10) }
  @inlinable public static var noHBA: Self { Self(rawValue: 0x11) }
  @inlinable public static var dataOverrun: Self { Self(rawValue: 0x12) }
  @inlinable public static var unexpectedBusFree: Self { Self(rawValue: 0x13) }
  @inlinable public static var phaseSequenceFailure: Self { Self(rawValue: 0x14) }
  @inlinable public static var badBlockLength: Self { Self(rawValue: 0x15) }
  @inlinable public static var requestFlushed: Self { Self(rawValue: 0x16) }
  @inlinable public static var invalidLUN: Self { Self(rawValue: 0x20) }
  @inlinable public static var invalidTargetID: Self { Self(rawValue: 0x21) }
  @inlinable public static var badFunction: Self { Self(rawValue: 0x22) }
  @inlinable public static var errorRecovery: Self { Self(rawValue: 0x23) }
  @inlinable public static var notPowered: Self { Self(rawValue: 0x24) }
  @inlinable public static var linkDown: Self { Self(rawValue: 0x25) }
  @inlinable public static var internalError: Self { Self(rawValue: 0x30) }

  /// The status without its flags.
  @inlinable public var code: SRBStatus { SRBStatus(rawValue: rawValue & 0x3F) }

  /// Bit 6: the device's queue is frozen until the client releases it.
  @inlinable public var isQueueFrozen: Bool { rawValue & 0x40 != 0 }

  /// Bit 7: the request's payload holds sense data.
  @inlinable public var hasSense: Bool { rawValue & 0x80 != 0 }

  /// The same status with the sense flag set.
  @inlinable public var withSense: SRBStatus { SRBStatus(rawValue: rawValue | 0x80) }

  /// The packet status that a host gives with this status.
  @inlinable public var packetStatus: NTStatus {
    switch code {
    case .success: .success
    case .busy: .deviceBusy
    case .invalidLUN, .invalidTargetID, .noDevice, .noHBA: .deviceDoesNotExist
    case .timeout, .commandTimeout: .ioTimeout
    case .selectionTimeout: .deviceNotConnected
    case .badFunction, .badBlockLength: .invalidDeviceRequest
    case .dataOverrun: .bufferOverflow
    case .requestFlushed: .unsuccessful
    case .aborted: .cancelled
    default: .ioDeviceError
    }
  }
}

extension SRBStatus: CustomStringConvertible {
  public var description: String {
    var text = codeName
    if hasSense { text += " with sense" }
    if isQueueFrozen { text += ", queue frozen" }
    return text
  }

  private var codeName: String {
    switch code {
    case .pending: "PENDING"
    case .success: "SUCCESS"
    case .aborted: "ABORTED"
    case .abortFailed: "ABORT_FAILED"
    case .error: "ERROR"
    case .busy: "BUSY"
    case .invalidRequest: "INVALID_REQUEST"
    case .invalidPathID: "INVALID_PATH_ID"
    case .noDevice: "NO_DEVICE"
    case .timeout: "TIMEOUT"
    case .selectionTimeout: "SELECTION_TIMEOUT"
    case .commandTimeout: "COMMAND_TIMEOUT"
    case .messageRejected: "MESSAGE_REJECTED"
    case .busReset: "BUS_RESET"
    case .parityError: "PARITY_ERROR"
    case .requestSenseFailed: "REQUEST_SENSE_FAILED"
    case .noHBA: "NO_HBA"
    case .dataOverrun: "DATA_OVERRUN"
    case .unexpectedBusFree: "UNEXPECTED_BUS_FREE"
    case .phaseSequenceFailure: "PHASE_SEQUENCE_FAILURE"
    case .badBlockLength: "BAD_SRB_BLOCK_LENGTH"
    case .requestFlushed: "REQUEST_FLUSHED"
    case .invalidLUN: "INVALID_LUN"
    case .invalidTargetID: "INVALID_TARGET_ID"
    case .badFunction: "BAD_FUNCTION"
    case .errorRecovery: "ERROR_RECOVERY"
    case .notPowered: "NOT_POWERED"
    case .linkDown: "LINK_DOWN"
    case .internalError: "INTERNAL_ERROR"
    default: "SRB status 0x\(String(code.rawValue, radix: 16))"
    }
  }
}

/// What the SCSI device itself said (`SCSIRequest`, offset 3).
public struct SCSIStatus: WireInteger {
  public var rawValue: UInt8
  @inlinable public init(rawValue: UInt8) { self.rawValue = rawValue }

  @inlinable public static var good: Self { Self(rawValue: 0x00) }
  @inlinable public static var checkCondition: Self { Self(rawValue: 0x02) }
  @inlinable public static var conditionMet: Self { Self(rawValue: 0x04) }
  @inlinable public static var busy: Self { Self(rawValue: 0x08) }
  @inlinable public static var reservationConflict: Self { Self(rawValue: 0x18) }
  @inlinable public static var commandTerminated: Self { Self(rawValue: 0x22) }
  @inlinable public static var queueFull: Self { Self(rawValue: 0x28) }
  @inlinable public static var taskAborted: Self { Self(rawValue: 0x40) }
}

extension SCSIStatus: CustomStringConvertible {
  public var description: String {
    switch self {
    case .good: "GOOD"
    case .checkCondition: "CHECK CONDITION"
    case .conditionMet: "CONDITION MET"
    case .busy: "BUSY"
    case .reservationConflict: "RESERVATION CONFLICT"
    case .commandTerminated: "COMMAND TERMINATED"
    case .queueFull: "TASK SET FULL"
    case .taskAborted: "TASK ABORTED"
    default: "SCSI status 0x\(String(rawValue, radix: 16))"
    }
  }
}
