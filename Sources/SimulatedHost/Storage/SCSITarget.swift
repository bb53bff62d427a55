// SPDX-License-Identifier: Apache-2.0

import StorageProtocol
import VMBus

/// A controller as one channel of one guest sees it.
///
/// It holds the disks that were there at the last `refresh`: a request finds its disk without a
/// lock and without counting references.
@safe
public struct SCSITarget: ~Copyable, @unchecked Sendable {
  private let core: SCSICore
  let nexus: SCSINexus
  private var units: InlineArray<64, Unmanaged<LogicalUnit>?> = unsafe InlineArray { _ in
    nil
  }

  /// - Parameter nexus: the guest, which all of its channels share.
  public init(_ controller: borrowing SCSIController, nexus: SCSINexus) {
    self.init(controller.core, nexus: nexus)
  }

  init(_ core: SCSICore, nexus: SCSINexus) {
    self.core = core
    self.nexus = nexus
    refresh()
  }

  deinit {
    for lun in 0..<SCSIController.maximumDisks { unsafe units[lun]?.release() }
  }

  /// Takes over the disks that are there now. Those that went are let go of.
  public mutating func refresh() {
    let present = core.units
    for lun in 0..<SCSIController.maximumDisks {
      let before = unsafe units[lun]
      // Safe: each is retained here, and released when it is replaced or with the target.
      unsafe units[lun] = present[lun].map { unsafe Unmanaged.passRetained($0) }
      unsafe before?.release()
    }
  }

  /// Bytes that one command may move.
  public var maximumTransferBytes: UInt32 { core.maximumTransferBytes }

  /// Executes a request and turns it into its completion.
  ///
  /// Whatever the request says, only the first `transferLength` bytes of the data are touched,
  /// and a command that the data is too short for moves nothing.
  ///
  /// - Returns: whether the completion is to be sent; otherwise it waits for a reset.
  @discardableResult
  public func execute<Data: ExternalData & ~Copyable & ~Escapable>(
    _ request: inout SCSIRequest, version: StorageVersion, data: inout Data
  ) -> Bool {
    let limit = min(request.transferLength, UInt32(clamping: data.byteCount))
    let isTarget = request.path == 0 && request.target == 0
    let command = DiskCommand.decode(request.payload, length: request.commandLength)
    guard isTarget, request.lun < 64, let unit = unsafe units[Int(request.lun)] else {
      let outcome = withoutUnit(command, isTarget: isTarget, limit: limit, data: &data)
      outcome.complete(&request, version: version)
      return true
    }
    // Safe: the target holds it until the end of the call.
    return unsafe unit._withUnsafeGuaranteedRef { unit in
      let outcome = execute(command, on: unit, lun: request.lun, limit: limit, data: &data)
      outcome.complete(
        &request, version: version,
        descriptorFormat: unit.disk.currentMode.contains(.descriptorSense))
      return outcome != .held
    }
  }

  private func execute<Data: ExternalData & ~Copyable & ~Escapable>(
    _ command: Result<DiskCommand, SCSIRefusal>, on unit: borrowing LogicalUnit, lun: UInt8,
    limit: UInt32, data: inout Data
  ) -> SCSIOutcome {
    switch command {
    case .failure(let refusal): return SCSIOutcome(refusal)
    case .success(.reportLUNs(let selection, let length)):
      return reportLUNs(
        selection, isTarget: true, allocationLength: length, limit: limit, to: &data)
    case .success(let command):
      return unit.disk.execute(
        command, for: SCSIClient(core: core, nexus: nexus, lun: lun), limit: limit,
        maximumTransfer: maximumTransferBytes, data: &data)
    }
  }

  /// What a unit that is not there says.
  private func withoutUnit<Data: ExternalData & ~Copyable & ~Escapable>(
    _ command: Result<DiskCommand, SCSIRefusal>, isTarget: Bool, limit: UInt32, data: inout Data
  ) -> SCSIOutcome {
    switch command {
    case .failure(.request): return .invalidRequest
    // The controller answers for units and targets that are not there too: Linux asks each target
    // whose INQUIRY succeeds, and logs an error where this one then fails.
    case .success(.reportLUNs(let selection, let length)):
      return reportLUNs(
        selection, isTarget: isTarget, allocationLength: length, limit: limit, to: &data)
    case .success(.inquiry(_, _, let length)):
      var inquiry = InquiryData()
      inquiry.deviceType = InquiryData.noUnit
      inquiry.additionalLength = 31
      return SCSIAnswer(inquiry).deliver(allocationLength: length, limit: limit, to: &data)
    case .success, .failure: return .failed(.invalidLUN, .checkCondition)
    }
  }

  @inline(never)
  private func reportLUNs<Data: ExternalData & ~Copyable & ~Escapable>(
    _ selection: UInt8, isTarget: Bool, allocationLength: UInt32, limit: UInt32,
    to data: inout Data
  ) -> SCSIOutcome {
    guard selection <= 2 else { return .invalidField(byte: 2) }
    // All disks are of one target. Well-known units (1) are units that it does not have.
    let listsDisks = isTarget && selection != 1
    var stream = SCSIStream(room: Int(min(allocationLength, limit)))
    stream.skip(ReportLUNsHeader.byteCount)
    do throws(ExternalDataError) {
      for lun in 0..<SCSIController.maximumDisks where listsDisks {
        guard unsafe units[lun] != nil else { continue }
        try stream.append(SCSIAnswer(ReportedLUN(UInt8(lun))), to: &data)
      }
      let listed = UInt32(truncatingIfNeeded: stream.end &- ReportLUNsHeader.byteCount)
      try stream.put(SCSIAnswer(ReportLUNsHeader(length: listed)), at: 0, to: &data)
    } catch {
      return .invalidRequest
    }
    if isTarget { nexus.forgetInventory() }
    return .good(stream.moved)
  }

  /// Resets a unit, or all of them.
  func reset(lun: UInt8?) { core.reset(lun: lun) }
}
