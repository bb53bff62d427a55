// SPDX-License-Identifier: Apache-2.0

import StorageProtocol
import VMBus

/// The disks behind one storage device, and the commands that are for none of them.
///
/// Built before the device is offered; from then on workers borrow it, several at once.
public struct SCSIController: ~Copyable, Sendable {
  /// The host serves LUNs 0 to 63 of path 0, target 0.
  public static let maximumDisks = 64

  /// Bytes that one command may move.
  public let maximumTransferBytes: UInt32
  private var disks: InlineArray<64, SCSIDisk?> = InlineArray { _ in nil }

  public init(maximumTransferBytes: UInt32 = 0x40000) {
    self.maximumTransferBytes = maximumTransferBytes
  }

  /// Puts a disk at a LUN in place of what was there; false, and the disk is closed, if the
  /// controller has no such LUN.
  public mutating func attach(_ disk: consuming SCSIDisk, lun: Int) -> Bool {
    guard disks.indices.contains(lun) else { return false }
    disks[lun] = consume disk
    return true
  }

  /// The faults of the disk at `lun`: calls `body` unless there is none.
  public func withFaults(lun: Int, _ body: (borrowing StorageFaults) -> Void) {
    guard disks.indices.contains(lun) else { return }
    switch disks[lun] {
    case .some(let disk): body(disk.faults)
    case nil: break
    }
  }

  /// The disks, for listings.
  public var units: [SCSIUnit] {
    var units: [SCSIUnit] = []
    for lun in disks.indices {
      switch disks[lun] {
      case .some(let disk): units.append(SCSIUnit(lun: lun, disk))
      case nil: continue
      }
    }
    return units
  }

  /// Executes a request and turns it into its completion.
  ///
  /// Whatever the request says, only the first `transferLength` bytes of the data are touched,
  /// and a command that the data is too short for moves nothing.
  public func execute<Data: ExternalData & ~Copyable & ~Escapable>(
    _ request: inout SCSIRequest, version: StorageVersion, data: inout Data
  ) {
    outcome(of: request, data: &data).complete(&request, version: version)
  }

  private func outcome<Data: ExternalData & ~Copyable & ~Escapable>(
    of request: SCSIRequest, data: inout Data
  ) -> SCSIOutcome {
    let limit = min(request.transferLength, UInt32(clamping: data.byteCount))
    let hasDisk = isPresent(request)
    let command: SCSICommand
    do throws(WireError) {
      command = try SCSICommand(parsing: request.payload, length: request.commandLength)
    } catch .unknownType {
      return hasDisk ? .check(.unknownCommand) : SCSIController.noUnit
    } catch {
      return .invalidRequest
    }
    if case .reportLUNs(let selection, let length) = command, isTarget(request) {
      return reportLUNs(selection, allocationLength: length, limit: limit, to: &data)
    }
    guard hasDisk else {
      guard case .inquiry(_, _, let length) = command else { return SCSIController.noUnit }
      var inquiry = InquiryData()
      inquiry.deviceType = InquiryData.noUnit
      inquiry.additionalLength = 31
      return SCSIAnswer(inquiry).deliver(allocationLength: length, limit: limit, to: &data)
    }
    switch disks[Int(request.lun)] {
    case .some(let disk):
      return disk.execute(
        command, limit: limit, maximumTransfer: maximumTransferBytes, data: &data)
    case nil:
      return SCSIController.noUnit
    }
  }

  private static var noUnit: SCSIOutcome { .failed(.invalidLUN, .checkCondition) }

  private func isTarget(_ request: SCSIRequest) -> Bool {
    request.path == 0 && request.target == 0
  }

  private func isPresent(_ request: SCSIRequest) -> Bool {
    guard isTarget(request), disks.indices.contains(Int(request.lun)) else { return false }
    switch disks[Int(request.lun)] {
    case .some: return true
    case nil: return false
    }
  }

  private func reportLUNs<Data: ExternalData & ~Copyable & ~Escapable>(
    _ selection: UInt8, allocationLength: UInt32, limit: UInt32, to data: inout Data
  ) -> SCSIOutcome {
    guard selection <= 2 else { return .check(.invalidField) }
    let room = Int(min(allocationLength, limit))
    // Well-known units (1) are units that this controller does not have.
    let listsDisks = selection != 1
    var end = ReportLUNsHeader.byteCount
    do throws(ExternalDataError) {
      for lun in disks.indices where listsDisks {
        switch disks[lun] {
        case .some:
          try put(ReportedLUN(UInt8(lun)), at: end, room: room, to: &data)
          end &+= ReportedLUN.byteCount
        case nil: continue
        }
      }
      let listed = UInt32(truncatingIfNeeded: end &- ReportLUNsHeader.byteCount)
      try put(ReportLUNsHeader(length: listed), at: 0, room: room, to: &data)
    } catch {
      return .invalidRequest
    }
    return .good(UInt32(truncatingIfNeeded: min(end, room)))
  }

  /// Writes the part of a structure at `offset` that lies within `room`.
  private func put<Layout: WireLayout, Data: ExternalData & ~Copyable & ~Escapable>(
    _ layout: Layout, at offset: Int, room: Int, to data: inout Data
  ) throws(ExternalDataError) {
    let count = min(Layout.byteCount, room &- offset)
    guard count > 0 else { return }
    var bytes = InlineArray<8, UInt8>(repeating: 0)
    layout.write(into: &bytes)
    let span = bytes.span
    // Safe: any bit pattern is a UInt8.
    try data.write(unsafe span.bytes.extracting(first: count), at: offset)
  }
}

/// A disk of a controller, as listings show it.
public struct SCSIUnit: Equatable, Sendable {
  public let lun: Int
  public let name: String
  public let byteCount: UInt64
  /// Bytes.
  public let blockSize: Int
  public let isReadOnly: Bool

  init(lun: Int, _ disk: borrowing SCSIDisk) {
    self.lun = lun
    name = disk.image.name
    byteCount = disk.image.byteCount
    blockSize = disk.blockSize.rawValue
    isReadOnly = disk.image.isReadOnly
  }
}
