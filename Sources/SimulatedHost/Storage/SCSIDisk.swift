// SPDX-License-Identifier: Apache-2.0

import StorageProtocol
import VMBus

/// The size of a disk's logical blocks.
public enum DiskBlockSize: Int, Sendable, CaseIterable {
  case bytes512 = 512
  case bytes4096 = 4096
}

/// How a SCSI command ended, before it is written into its completion.
enum SCSIOutcome: Equatable {
  /// Bytes moved.
  case good(UInt32)
  case check(SCSISense)
  case failed(SRBStatus, SCSIStatus)

  static var invalidRequest: SCSIOutcome { .failed(.invalidRequest, .good) }
}

/// A direct-access SCSI device over an image. Several workers may execute commands at once.
public struct SCSIDisk: ~Copyable, Sendable {
  public let image: DiskImage
  public let blockSize: DiskBlockSize
  public let blockCount: UInt64
  /// Where the serial number and the device identification come from.
  public let identity: GUID
  public let faults = StorageFaults()

  public init(
    _ image: consuming DiskImage, blockSize: DiskBlockSize = .bytes512, identity: GUID
  ) throws(DiskImageError) {
    let byteCount = image.byteCount
    try DiskImageError.check(byteCount, multipleOf: blockSize.rawValue, name: image.name)
    self.image = image
    self.blockSize = blockSize
    self.identity = identity
    blockCount = byteCount / UInt64(blockSize.rawValue)
  }

  /// Executes one command.
  ///
  /// - Parameters:
  ///   - limit: bytes of `data` that the request lets the device use.
  ///   - maximumTransfer: bytes that the host moves for one command.
  func execute<Data: ExternalData & ~Copyable & ~Escapable>(
    _ command: SCSICommand, limit: UInt32, maximumTransfer: UInt32, data: inout Data
  ) -> SCSIOutcome {
    if let fault = faults.strike(command) { return SCSIOutcome(fault) }
    switch command {
    case .read(let extent):
      return read(extent, limit: limit, maximumTransfer: maximumTransfer, into: &data)
    case .write(let extent):
      return write(extent, limit: limit, maximumTransfer: maximumTransfer, from: &data)
    case .synchronizeCache(let extent):
      return synchronize(extent)
    case .testUnitReady, .startStopUnit:
      return .good(0)
    default:
      return describe(command, limit: limit, maximumTransfer: maximumTransfer, data: &data)
    }
  }

  private func read<Data: ExternalData & ~Copyable & ~Escapable>(
    _ extent: SCSIExtent, limit: UInt32, maximumTransfer: UInt32, into data: inout Data
  ) -> SCSIOutcome {
    if let refusal = refusal(of: extent, limit: limit, maximumTransfer: maximumTransfer) {
      return refusal
    }
    let count = byteCount(of: extent)
    do throws(BlockError) {
      try image.read(at: byteOffset(of: extent), count: Int(count), into: &data)
      return .good(count)
    } catch {
      return SCSIOutcome(error, medium: .unrecoveredRead)
    }
  }

  private func write<Data: ExternalData & ~Copyable & ~Escapable>(
    _ extent: SCSIExtent, limit: UInt32, maximumTransfer: UInt32, from data: inout Data
  ) -> SCSIOutcome {
    if let refusal = refusal(of: extent, limit: limit, maximumTransfer: maximumTransfer) {
      return refusal
    }
    guard !image.isReadOnly else { return .check(.writeProtected) }
    let count = byteCount(of: extent)
    do throws(BlockError) {
      try image.write(at: byteOffset(of: extent), count: Int(count), from: &data)
      if extent.isForced { try image.flush() }
      return .good(count)
    } catch {
      return SCSIOutcome(error, medium: .writeError)
    }
  }

  private func synchronize(_ extent: SCSIExtent) -> SCSIOutcome {
    guard isOnDisk(extent) else { return .check(.addressOutOfRange) }
    do throws(BlockError) {
      // A file can be flushed as a whole only.
      try image.flush()
      return .good(0)
    } catch {
      return SCSIOutcome(error, medium: .writeError)
    }
  }

  /// What stands against moving the blocks of `extent`; nil if nothing does.
  ///
  /// The client's numbers may be anything up to 64 bits: after this check their byte count fits
  /// `maximumTransfer`, and their end lies on the disk.
  private func refusal(
    of extent: SCSIExtent, limit: UInt32, maximumTransfer: UInt32
  ) -> SCSIOutcome? {
    // No disk here is formatted with protection information.
    guard extent.protection == 0 else { return .check(.invalidField) }
    guard isOnDisk(extent) else { return .check(.addressOutOfRange) }
    // At most 32 bits of count times 4096: no overflow.
    let needed = UInt64(extent.count) &* UInt64(blockSize.rawValue)
    guard needed <= UInt64(maximumTransfer) else { return .check(.invalidField) }
    // The command and the request disagree: nothing is moved, since a part would be taken for all.
    guard needed <= UInt64(limit) else { return .invalidRequest }
    return nil
  }

  private func isOnDisk(_ extent: SCSIExtent) -> Bool {
    extent.address <= blockCount && UInt64(extent.count) <= blockCount &- extent.address
  }

  /// For an extent that has passed `refusal`.
  private func byteCount(of extent: SCSIExtent) -> UInt32 {
    extent.count &* UInt32(blockSize.rawValue)
  }

  /// For an extent that has passed `refusal`.
  private func byteOffset(of extent: SCSIExtent) -> UInt64 {
    extent.address &* UInt64(blockSize.rawValue)
  }
}

extension SCSIOutcome {
  init(_ fault: StorageFault.Outcome) {
    self =
      switch fault {
      case .sense(let sense): .check(sense)
      case .request(let status): .failed(status, .good)
      case .device(let status): .failed(.error, status)
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
  func complete(_ request: inout SCSIRequest, version: StorageVersion) {
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
    case .check(let sense):
      request.srbStatus = SRBStatus.error.withSense
      request.scsiStatus = .checkCondition
      FixedSenseData(sense).write(into: &request.payload)
    case .failed(let srbStatus, let scsiStatus):
      request.srbStatus = srbStatus
      request.scsiStatus = scsiStatus
    }
  }
}
