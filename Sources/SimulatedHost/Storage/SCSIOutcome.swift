// SPDX-License-Identifier: Apache-2.0

import StorageProtocol
import VMBus

/// What sense data tells beside its codes.
enum SCSISenseDetail: Equatable {
  /// The first block of the trouble, or where in the data it lies.
  case information(UInt64)
  /// The field of the command.
  case command(byte: UInt8, bit: UInt8?)
  /// The field of the data that came with it.
  case parameter(byte: UInt16)
}

/// Why a command is not executed at all.
enum SCSIRefusal: Error, Equatable {
  /// The request itself is wrong.
  case request
  case sense(SCSISense, SCSISenseDetail?)
}

/// How a SCSI command ended, before it is written into its completion.
enum SCSIOutcome: Equatable {
  /// Bytes moved.
  case good(UInt32)
  case check(SCSISense, SCSISenseDetail? = nil)
  case failed(SRBStatus, SCSIStatus)
  /// Not executed, and not answered before a reset.
  case held

  static var invalidRequest: SCSIOutcome { .failed(.invalidRequest, .good) }

  static func invalidField(byte: UInt8, bit: UInt8? = nil) -> SCSIOutcome {
    .check(.invalidField, .command(byte: byte, bit: bit))
  }

  static func invalidParameter(byte: UInt16) -> SCSIOutcome {
    .check(.invalidParameterField, .parameter(byte: byte))
  }

  init(_ refusal: SCSIRefusal) {
    self =
      switch refusal {
      case .request: .invalidRequest
      case .sense(let sense, let detail): .check(sense, detail)
      }
  }

  /// - Parameter medium: what a failed system call stands for.
  init(_ error: BlockError, medium: SCSISense) {
    self =
      switch error {
      case .outOfRange: .check(.addressOutOfRange)
      case .readOnly: .check(.writeProtected)
      case .ended, .system: .check(medium)
      case .data: .invalidRequest
      }
  }

  /// Turns the request into its completion.
  ///
  /// - Parameter descriptorFormat: the form of sense data that the client has chosen (D_SENSE).
  func complete(
    _ request: inout SCSIRequest, version: StorageVersion, descriptorFormat: Bool = false
  ) {
    request.length = UInt16(truncatingIfNeeded: version.requestByteCount)
    request.commandLength = 16
    request.senseLength = 20
    request.transferLength = 0
    request.payload = InlineArray(repeating: 0)
    switch self {
    case .good(let count):
      request.srbStatus = .success
      request.scsiStatus = .good
      request.transferLength = count
    case .check(let sense, let detail):
      request.srbStatus = SRBStatus.error.withSense
      request.scsiStatus = .checkCondition
      SenseBytes(sense, detail, descriptorFormat: descriptorFormat).write(into: &request.payload)
    case .failed(let srbStatus, let scsiStatus):
      request.srbStatus = srbStatus
      request.scsiStatus = scsiStatus
    case .held:
      request.srbStatus = .busReset
      request.scsiStatus = .good
    }
  }
}

/// Sense data as it goes over the wire: at most 20 bytes, which is what a completion has room for.
struct SenseBytes {
  private(set) var bytes = InlineArray<20, UInt8>(repeating: 0)
  private(set) var count: Int

  init(_ sense: SCSISense, _ detail: SCSISenseDetail? = nil, descriptorFormat: Bool) {
    if descriptorFormat {
      bytes[0] = 0x72
      bytes[1] = sense.key.rawValue
      bytes[2] = sense.code
      bytes[3] = sense.qualifier
      count = 8
      appendDescriptor(detail)
    } else {
      count = 18
      FixedSenseData(sense).write(into: &bytes)
      putFixed(detail)
    }
  }

  private mutating func appendDescriptor(_ detail: SCSISenseDetail?) {
    switch detail {
    case nil: return
    case .information(let value):
      bytes[7] = 12
      bytes[8] = 0x00
      bytes[9] = 0x0A
      bytes[10] = 0x80
      for index in 0..<8 {
        bytes[12 &+ index] = UInt8(
          truncatingIfNeeded: value >> UInt64(truncatingIfNeeded: 56 &- 8 &* index))
      }
      count = 20
    case .command, .parameter:
      bytes[7] = 8
      bytes[8] = 0x02
      bytes[9] = 0x06
      putField(detail, at: 12)
      count = 16
    }
  }

  private mutating func putFixed(_ detail: SCSISenseDetail?) {
    switch detail {
    case .information(let value):
      // The field has four bytes, and is not valid for a larger number.
      guard let value = UInt32(exactly: value) else { return }
      bytes[0] |= 0x80
      for index in 0..<4 {
        bytes[3 &+ index] = UInt8(
          truncatingIfNeeded: value >> UInt32(truncatingIfNeeded: 24 &- 8 &* index))
      }
    case .command, .parameter: putField(detail, at: 15)
    case nil: return
    }
  }

  /// The field pointer: SKSV, C/D, BPV and the bit, then the byte.
  private mutating func putField(_ detail: SCSISenseDetail?, at index: Int) {
    switch detail {
    case .command(let byte, let bit):
      bytes[index] = 0xC0 | (bit.map { 0x08 | $0 & 7 } ?? 0)
      bytes[index &+ 2] = byte
    case .parameter(let byte):
      bytes[index] = 0x80
      bytes[index &+ 1] = UInt8(truncatingIfNeeded: byte >> 8)
      bytes[index &+ 2] = UInt8(truncatingIfNeeded: byte)
    default: return
    }
  }

  func write(into payload: inout InlineArray<20, UInt8>) { payload = bytes }
}

extension SCSISense {
  static var stopped: SCSISense { SCSISense(key: .notReady, code: 0x04, qualifier: 0x02) }
  static var listLength: SCSISense { SCSISense(key: .illegalRequest, code: 0x1A) }
  static var invalidParameterField: SCSISense { SCSISense(key: .illegalRequest, code: 0x26) }
  /// What was compared differs.
  static var miscompare: SCSISense { SCSISense(key: SCSISenseKey(rawValue: 0xE), code: 0x1D) }
}
