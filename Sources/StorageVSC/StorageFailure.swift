// SPDX-License-Identifier: Apache-2.0

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

  init(_ srb: SRBStatus, _ scsi: SCSIStatus, _ sense: SCSISense?) {
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
    guard case .failed(let srb, let scsi, let sense) = self else { return nil }
    return StorageFailure(srb, scsi, sense)
  }

  /// Whether the same command may well succeed when it is sent again.
  public var isTransient: Bool {
    switch failure {
    case .busy, .unitAttention, .becomingReady, .aborted: true
    default: false
    }
  }

  var isUnitGone: Bool { failure == .unitGone }

  /// Whether the unit does not know the command, or not in this form.
  var isUnknownCommand: Bool {
    guard case .failed(let srb, _, let sense) = self else { return false }
    guard let sense else { return StorageFailure(srb, .good, nil) == .illegalRequest }
    return sense.key == .illegalRequest && (sense.code == 0x20 || sense.code == 0x24)
  }
}

/// How often, and after what time, a failed command is sent again.
public struct RetryPolicy: Equatable, Sendable {
  /// Attempts after the first one.
  public var limit: Int
  /// Nanoseconds before the first repetition; each further one waits twice as long.
  public var delay: UInt64
  /// Nanoseconds at most.
  public var maximumDelay: UInt64

  public init(
    limit: Int = 8, delay: UInt64 = 1_000_000, maximumDelay: UInt64 = 1_000_000_000
  ) {
    self.limit = limit
    self.delay = delay
    self.maximumDelay = maximumDelay
  }

  /// Nanoseconds to wait, or nil when the command must not be sent again.
  ///
  /// What was not executed can always be sent again. What was aborted may have been executed in
  /// part, so only a command that does the same when it is done twice is repeated.
  ///
  /// - Parameter attempts: repetitions so far.
  func wait(_ error: StorageError, attempts: Int, isIdempotent: Bool) -> UInt64? {
    guard attempts < limit else { return nil }
    switch error.failure {
    case .unitAttention: return 0
    case .busy: break
    // A unit needs more than a moment.
    case .becomingReady: return min(maximumDelay, backOff(attempts, from: delay &* 16))
    case .aborted: guard isIdempotent else { return nil }
    default: return nil
    }
    return backOff(attempts, from: delay)
  }

  private func backOff(_ attempts: Int, from delay: UInt64) -> UInt64 {
    let (wait, overflow) = delay.multipliedReportingOverflow(by: 1 << UInt64(min(attempts, 30)))
    return overflow ? maximumDelay : min(wait, maximumDelay)
  }
}
