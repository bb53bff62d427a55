// SPDX-License-Identifier: Apache-2.0

import StorageProtocol
import Synchronization
import VMBus

/// The size of a disk's logical blocks.
public enum DiskBlockSize: Int, Sendable, CaseIterable {
  case bytes512 = 512
  case bytes4096 = 4096
}

/// A direct-access SCSI device over an image. Several workers may execute commands at once.
public struct SCSIDisk: ~Copyable, Sendable {
  public let image: DiskImage
  public let blockSize: DiskBlockSize
  /// A physical block has two to that power logical ones.
  public let physicalExponent: UInt8
  /// Where the serial number and the device identification come from.
  public let identity: GUID
  public let faults = StorageFaults()
  /// What clients change.
  let mode = Atomic<UInt8>(SCSIDiskMode.initial.rawValue)

  /// - Parameter physicalBlockSize: for a disk that emulates smaller blocks than it has (512e): a
  ///   power of two times the block size, which is also the default.
  public init(
    _ image: consuming DiskImage, blockSize: DiskBlockSize = .bytes512,
    physicalBlockSize: Int? = nil, identity: GUID
  ) throws(DiskImageError) {
    try DiskImageError.check(image.byteCount, multipleOf: blockSize.rawValue, name: image.name)
    let ratio =
      max(physicalBlockSize ?? blockSize.rawValue, blockSize.rawValue) / blockSize.rawValue
    physicalExponent = UInt8(truncatingIfNeeded: min(ratio.trailingZeroBitCount, 15))
    self.image = image
    self.blockSize = blockSize
    self.identity = identity
  }

  /// A file that is no whole number of blocks any more has the whole ones.
  public var blockCount: UInt64 { image.byteCount / UInt64(blockSize.rawValue) }

  /// Blocks that are given back are counted as free by the image.
  var isThin: Bool { !image.isReadOnly }

  /// Executes one command.
  ///
  /// - Parameters:
  ///   - limit: bytes of `data` that the request lets the device use.
  ///   - maximumTransfer: bytes that the host moves for one command.
  func execute<Data: ExternalData & ~Copyable & ~Escapable>(
    _ command: DiskCommand, for client: SCSIClient, limit: UInt32, maximumTransfer: UInt32,
    data: inout Data
  ) -> SCSIOutcome {
    if let strike = faults.strike(command) {
      guard case .overstate(let more) = strike.outcome else { return SCSIOutcome(strike) }
      let outcome = executeWell(
        command, for: client, limit: limit, maximumTransfer: maximumTransfer, data: &data)
      guard case .good(let moved) = outcome else { return outcome }
      return .good(moved.addingReportingOverflow(more).overflow ? .max : moved &+ more)
    }
    return executeWell(
      command, for: client, limit: limit, maximumTransfer: maximumTransfer, data: &data)
  }

  private func executeWell<Data: ExternalData & ~Copyable & ~Escapable>(
    _ command: DiskCommand, for client: SCSIClient, limit: UInt32, maximumTransfer: UInt32,
    data: inout Data
  ) -> SCSIOutcome {
    if client.hasAttention, command.reportsAttention, let attention = client.takeAttention() {
      return .check(attention.sense)
    }
    if currentMode.contains(.stopped), command.needsMedium { return .check(.stopped) }
    switch command {
    case .read(let extent):
      return read(extent, limit: limit, maximumTransfer: maximumTransfer, into: &data)
    case .write(let extent):
      return write(extent, limit: limit, maximumTransfer: maximumTransfer, from: &data)
    case .synchronizeCache(let extent): return synchronize(extent)
    case .testUnitReady: return .good(0)
    case .startStopUnit(let isStart, let flushes): return start(isStart, flushes: flushes)
    case .writeAndVerify, .verify, .writeSame, .unmap, .provisioning, .modeSelect:
      return change(
        command, for: client, limit: limit, maximumTransfer: maximumTransfer, data: &data)
    default:
      return describe(
        command, for: client, limit: limit, maximumTransfer: maximumTransfer, data: &data)
    }
  }

  /// The commands that are rare and change something, or compare.
  @inline(never)
  private func change<Data: ExternalData & ~Copyable & ~Escapable>(
    _ command: DiskCommand, for client: SCSIClient, limit: UInt32, maximumTransfer: UInt32,
    data: inout Data
  ) -> SCSIOutcome {
    switch command {
    case .writeAndVerify(var extent, let compares):
      // Verified means that it lies on the medium.
      extent.options = 0x08
      let written = write(extent, limit: limit, maximumTransfer: maximumTransfer, from: &data)
      guard compares, case .good(let moved) = written else { return written }
      let compared = compare(extent, with: .data, limit: limit, data: &data)
      guard case .good = compared else { return compared }
      return .good(moved)
    case .verify(let extent, let comparison):
      return verify(
        extent, comparison, limit: limit, maximumTransfer: maximumTransfer, data: &data)
    case .writeSame(let extent, let unmaps, let hasData):
      return writeSame(extent, unmaps: unmaps, hasData: hasData, limit: limit, from: &data)
    case .unmap(let listLength): return unmap(listLength, limit: limit, from: &data)
    case .provisioning(let address, let length):
      return reportProvisioning(address, allocationLength: length, limit: limit, to: &data)
    case .modeSelect(let select): return selectMode(select, for: client, limit: limit, from: &data)
    default: return .check(.unknownCommand)
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
      return failure(error, .unrecoveredRead, extent)
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
      if extent.isForced { try image.flush() } else { try flushUnlessCached() }
      return .good(count)
    } catch {
      return failure(error, .writeError, extent)
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

  private func start(_ isStart: Bool, flushes: Bool) -> SCSIOutcome {
    guard !isStart else {
      mode.bitwiseAnd(~SCSIDiskMode.stopped.rawValue, ordering: .relaxed)
      return .good(0)
    }
    do throws(BlockError) {
      if flushes { try image.flush() }
      mode.bitwiseOr(SCSIDiskMode.stopped.rawValue, ordering: .relaxed)
      return .good(0)
    } catch {
      return SCSIOutcome(error, medium: .writeError)
    }
  }
}

/// What clients can change of a disk, for all of them.
struct SCSIDiskMode: OptionSet {
  let rawValue: UInt8

  /// Writes are cached until a flush (WCE).
  static let writeCache = SCSIDiskMode(rawValue: 1)
  /// Sense data comes in the descriptor format (D_SENSE).
  static let descriptorSense = SCSIDiskMode(rawValue: 2)
  static let stopped = SCSIDiskMode(rawValue: 4)
  static let initial: SCSIDiskMode = .writeCache
}

/// Who asks: the unit that the request names, of one guest.
///
/// `@safe`: it lives for one command, and the channel holds both objects for longer.
@safe
struct SCSIClient {
  private unowned(unsafe) let core: SCSICore
  private unowned(unsafe) let nexus: SCSINexus
  let lun: UInt8

  init(core: SCSICore, nexus: SCSINexus, lun: UInt8) {
    unsafe self.core = core
    unsafe self.nexus = nexus
    self.lun = lun
  }

  /// Looked at before each command.
  var hasAttention: Bool { unsafe nexus.hasAttention(lun: lun) }

  func takeAttention() -> UnitAttention? { unsafe nexus.takeAttention(lun: lun) }

  func tellOthers(_ attention: UnitAttention) {
    unsafe core.establish(attention, units: SCSINexus.bit(lun), except: nexus)
  }
}

extension DiskCommand {
  /// INQUIRY, REPORT LUNS and REQUEST SENSE are answered all the same.
  fileprivate var reportsAttention: Bool {
    switch self {
    case .inquiry, .reportLUNs, .requestSense: false
    default: true
    }
  }
}

extension SCSIDisk {
  var currentMode: SCSIDiskMode { SCSIDiskMode(rawValue: mode.load(ordering: .relaxed)) }

  func flushUnlessCached() throws(BlockError) {
    if !currentMode.contains(.writeCache) { try image.flush() }
  }

  /// As at power on.
  func reset() { mode.store(SCSIDiskMode.initial.rawValue, ordering: .relaxed) }

  func failure(_ error: BlockError, _ medium: SCSISense, _ extent: SCSIExtent) -> SCSIOutcome {
    let block: UInt64 =
      if case .ended(let offset) = error { offset / UInt64(blockSize.rawValue) } else {
        extent.address
      }
    let outcome = SCSIOutcome(error, medium: medium)
    return outcome == .check(medium) ? .check(medium, .information(block)) : outcome
  }

  /// What stands against moving the blocks of `extent`; nil if nothing does.
  ///
  /// The client's numbers may be anything up to 64 bits: after this check their byte count fits
  /// `maximumTransfer`, and their end lies on the disk.
  func refusal(
    of extent: SCSIExtent, limit: UInt32, maximumTransfer: UInt32
  ) -> SCSIOutcome? {
    guard isOnDisk(extent) else { return .check(.addressOutOfRange) }
    // At most 32 bits of count times 4096: no overflow.
    let needed = UInt64(extent.count) &* UInt64(blockSize.rawValue)
    guard needed <= UInt64(maximumTransfer) else { return .check(.invalidField) }
    // The command and the request disagree: nothing is moved, since a part would be taken for all.
    guard needed <= UInt64(limit) else { return .invalidRequest }
    return nil
  }

  func isOnDisk(_ extent: SCSIExtent) -> Bool {
    isOnDisk(extent.address, UInt64(extent.count))
  }

  func isOnDisk(_ address: UInt64, _ count: UInt64) -> Bool {
    let blockCount = blockCount
    return address <= blockCount && count <= blockCount &- address
  }

  /// For an extent that has passed `refusal`.
  func byteCount(of extent: SCSIExtent) -> UInt32 {
    extent.count &* UInt32(blockSize.rawValue)
  }

  /// For an extent that lies on the disk.
  func byteOffset(of extent: SCSIExtent) -> UInt64 {
    extent.address &* UInt64(blockSize.rawValue)
  }
}
