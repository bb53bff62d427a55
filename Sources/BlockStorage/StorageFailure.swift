// SPDX-License-Identifier: Apache-2.0

import NVMeProtocol
import StorageProtocol

/// What a failed command means, from the three places in which a host may say it.
public enum StorageFailure: Equatable, Sendable {
  /// The unit, or the host's queue for it, has too much to do. Nothing was executed.
  case busy
  /// The unit tells of a reset or a change; the command was not executed (SAM-5, 5.14).
  case unitAttention
  /// The unit will be ready by itself.
  case becomingReady
  case notReady
  /// The command was begun and given up: parts of it may have been executed.
  case aborted
  case medium
  case hardware
  case illegalRequest
  case writeProtected
  /// A thin disk's storage is used up.
  case outOfSpace
  case miscompare
  /// Another initiator has reserved the unit.
  case reservationConflict
  /// There is no such unit, or no such unit any more.
  case unitGone
  /// The host gave up waiting for the unit.
  case hostTimeout
  case other

  package init(_ srb: SRBStatus, _ scsi: SCSIStatus, _ sense: SCSISense?) {
    switch scsi {
    case .busy, .queueFull: self = .busy
    case .reservationConflict: self = .reservationConflict
    case .taskAborted, .commandTerminated: self = .aborted
    default: self = sense.map { StorageFailure($0) } ?? StorageFailure(srb)
    }
  }

  private init(_ sense: SCSISense) {
    switch (sense.key.rawValue, sense.code, sense.qualifier) {
    // In the process of becoming ready; asymmetric access state transition; start unit pending.
    case (0x2, 0x04, 0x01), (0x2, 0x04, 0x0A), (0x2, 0x04, 0x14): self = .becomingReady
    case (0x2, _, _): self = .notReady
    case (0x3, _, _): self = .medium
    case (0x4, _, _): self = .hardware
    // Logical unit not supported.
    case (0x5, 0x25, _): self = .unitGone
    case (0x5, _, _): self = .illegalRequest
    case (0x6, _, _): self = .unitAttention
    // Space allocation failed.
    case (0x7, 0x27, 0x07): self = .outOfSpace
    case (0x7, _, _): self = .writeProtected
    case (0xB, _, _): self = .aborted
    case (0xE, _, _): self = .miscompare
    default: self = .other
    }
  }

  package init(_ status: NVMeStatus) {
    switch status.condition {
    case .namespaceNotReady: self = .becomingReady
    case .abortRequested, .abortedByQueueDeletion, .abortedByPowerLoss, .internalError,
      .transientTransportError, .interrupted:
      self = .aborted
    case .invalidNamespace: self = .unitGone
    case .writeProtected, .readOnlyRange: self = .writeProtected
    case .capacityExceeded: self = .outOfSpace
    case .reservationConflict: self = .reservationConflict
    case .compareFailure: self = .miscompare
    case let condition where condition.type == 2: self = .medium
    case let condition where condition.type == 0 && condition.code < 0x80: self = .illegalRequest
    default: self = .other
    }
  }

  private init(_ srb: SRBStatus) {
    switch srb.code {
    case .busy: self = .busy
    case .aborted, .busReset, .requestFlushed, .errorRecovery: self = .aborted
    case .noDevice, .invalidLUN, .invalidTargetID, .invalidPathID, .noHBA: self = .unitGone
    case .timeout, .commandTimeout, .selectionTimeout: self = .hostTimeout
    case .invalidRequest, .badFunction, .badBlockLength: self = .illegalRequest
    case .notPowered, .linkDown: self = .notReady
    default: self = .other
    }
  }
}

extension StorageError {
  /// What the device meant; nil for errors that are not the device's.
  public var failure: StorageFailure? {
    switch self {
    case .failed(let srb, let scsi, let sense): StorageFailure(srb, scsi, sense)
    case .rejected(let status): StorageFailure(status)
    // Its requests may have been executed in part, or in full.
    case .reset: .aborted
    default: nil
    }
  }

  /// Whether the same command may well succeed when it is sent again.
  public var isTransient: Bool {
    switch failure {
    case .busy, .unitAttention, .becomingReady, .aborted: true
    default: false
    }
  }

  package var isUnitGone: Bool { failure == .unitGone }

  /// Whether the unit does not know the command, or not in this form.
  package var isUnknownCommand: Bool {
    if case .rejected(let status) = self { return status.condition == .invalidOpcode }
    guard case .failed(let srb, _, let sense) = self else { return false }
    guard let sense else { return StorageFailure(srb, .good, nil) == .illegalRequest }
    return sense.key == .illegalRequest && (sense.code == 0x20 || sense.code == 0x24)
  }
}
