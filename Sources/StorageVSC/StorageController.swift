// SPDX-License-Identifier: Apache-2.0

public import BlockStorage
import Platform
import StorageProtocol
import Synchronization
public import VSC

/// A SCSI controller of the host with all of its disks, over one channel for each worker.
///
/// The channels live and die together: when one ends, all requests fail, with its reason.
public final class StorageController: BlockController, Sendable {
  public struct Configuration: Sendable {
    /// Requests of each channel at one time.
    public var depth: Int
    /// Bytes of the largest request.
    public var bufferByteCount: Int
    /// Bytes of each channel's DMA memory. Requests for which it has no room wait. Nil for room for
    /// `depth` of the largest.
    public var poolByteCount: Int?
    /// Nanoseconds that the host has for a request.
    public var timeout: UInt64
    /// Nanoseconds that it has for a reset, and after that for the requests that it ends.
    public var resetTimeout: UInt64
    public var retry: RetryPolicy
    public var ringByteCount: Int
    /// Channels beyond the primary one, at most; one for each further worker is asked for.
    public var maximumSubchannels: Int

    public init(
      depth: Int = 64, bufferByteCount: Int = 256 * 1024, poolByteCount: Int? = nil,
      timeout: UInt64 = 30_000_000_000, resetTimeout: UInt64 = 10_000_000_000,
      retry: RetryPolicy = RetryPolicy(),
      ringByteCount: Int = 128 * 1024, maximumSubchannels: Int = 1023
    ) {
      self.depth = depth
      self.bufferByteCount = bufferByteCount
      self.poolByteCount = poolByteCount
      self.timeout = timeout
      self.resetTimeout = resetTimeout
      self.retry = retry
      self.ringByteCount = ringByteCount
      self.maximumSubchannels = maximumSubchannels
    }

    var usableDepth: Int { min(max(depth, 1), 4096) }
    var usableBufferByteCount: Int { min(max(bufferByteCount, 4096), 1 << 30) }
    /// At least one, with which requests go after each other.
    var bufferCount: Int {
      guard let poolByteCount else { return usableDepth }
      return min(max(poolByteCount / usableBufferByteCount, 1), usableDepth)
    }
  }

  /// What happens to the disks.
  public enum Event: Sendable {
    case added(BlockDevice)
    case removed(lun: UInt8)
    /// The disk has another size; `information` has it.
    case resized(BlockDevice, from: UInt64)
    /// The disk is the same, and something else of what it says of itself is not, such as whether it
    /// takes writes.
    case changed(BlockDevice)
  }

  private struct State {
    var disks: [UInt8: BlockDevice] = [:]
    var events: [AsyncStream<Event>.Continuation] = []
  }

  public let identity: DeviceIdentity
  public let version: String
  package let memories: (ring: MemoryVisibility, data: MemoryVisibility, isBounced: Bool)
  let life: ServiceLife
  let channels: ControllerChannels
  private let device: Device
  private let capabilities: StorageCapabilities
  /// The only disk that matters, or nil for all of them.
  private let onlyLUN: UInt8?
  private let state = Lock(State())
  private let signals: AsyncStream<Void>.Continuation

  init(
    _ device: Device, _ capabilities: StorageCapabilities, _ channels: ControllerChannels,
    _ life: ServiceLife, onlyLUN: UInt8?,
    memories: (ring: MemoryVisibility, data: MemoryVisibility, isBounced: Bool)
  ) {
    self.device = device
    self.capabilities = capabilities
    self.channels = channels
    self.life = life
    self.onlyLUN = onlyLUN
    self.memories = memories
    identity = device.identity
    version = "\(capabilities.version)"
    let (stream, signals) = AsyncStream<Void>.makeStream(bufferingPolicy: .bufferingNewest(1))
    self.signals = signals
    life.whenSignalled { _ in signals.yield() }
    life.whenEnded { [weak self] error in
      signals.finish()
      self?.ended(error)
    }
    Task { [weak self] in
      // What the scan itself fails with, the next event or the end repairs.
      for await _ in stream { try? await self?.rescan() }
    }
  }

  private func ended(_ error: StorageError) {
    for channel in channels.all { channel.drop() }
    let (disks, events) = state.withLock { state in
      // A disk holds its controller.
      defer { (state.disks, state.events) = ([:], []) }
      return (Array(state.disks.values), state.events)
    }
    for disk in disks { disk.unit.end(error) }
    for continuation in events { continuation.finish() }
  }

  // MARK: - Faces

  /// The disks that are there now, by LUN.
  public var disks: [BlockDevice] {
    guard life.endReason == nil else { return [] }
    return state.withLock { $0.disks.values.sorted { $0.lun < $1.lun } }
  }

  public func disk(_ lun: UInt8) throws(StorageError) -> BlockDevice {
    if let reason = life.endReason { throw reason }
    guard let disk = state.withLock({ $0.disks[lun] }) else { throw .noDisk(lun: lun) }
    return disk
  }

  /// Channels in use.
  public var channelCount: Int { channels.all.count }

  package var workers: [Worker] { channels.all.map(\.worker) }

  package func place(of unit: StorageUnit) -> BlockDevice.Place {
    BlockDevice.Place(
      device: "\(identity.instance)", relid: identity.channel.rawValue, number: unit.number,
      transport: identity.transport)
  }

  /// Why the controller can be used no more, or nil while it can.
  public var ended: StorageError? { life.endReason }

  public func waitUntilEnded() async { await life.waitUntilEnded() }

  /// What happens to the disks from now on. It ends with the controller.
  public func events() -> AsyncStream<Event> {
    let (stream, continuation) = AsyncStream<Event>.makeStream(
      bufferingPolicy: .bufferingNewest(256))
    state.withLock { $0.events.append(continuation) }
    if life.endReason != nil { continuation.finish() }
    return stream
  }

  /// What each channel has done so far; empty when they are over.
  public func counters() async -> [StorageCounters] {
    var all: [StorageCounters] = []
    for channel in channels.all {
      if let counters = await channel.counters() { all.append(counters) }
    }
    return all
  }

  /// Ends all requests and gives the device back. Its memory is freed when the host is known to
  /// be done with it.
  public func close() async {
    for channel in channels.all { channel.drop() }
    await waitUntilEnded()
    await device.close()
  }

  // MARK: - Commands

  /// Executes a command that is not on a disk's data path.
  ///
  /// - Parameter count: bytes of data that the unit may send.
  func execute(
    _ command: SCSICommand, lun: UInt8, count: Int
  ) async throws(StorageError) -> [UInt8] {
    let transfer = Transfer(
      .command(SCSICommandBlock(command)), lun: lun, byteCount: count,
      memory: .owned([UInt8](repeating: 0, count: count)))
    channels.all.first?.hand(transfer)
    if let error = await transfer.outcome.value() { throw error }
    return Array(transfer.takeBytes().prefix(transfer.moved))
  }

  /// Asks a unit what it is.
  private func inquire(_ lun: UInt8) async throws(StorageError) -> DiskInformation {
    let limit = min(Int(capabilities.maximumTransferBytes), 2 << 20)
    var inquiry = UnitInquiry(lun: lun, version: capabilities.version, maximumTransfer: limit)
    var step = inquiry.begin()
    while true {
      switch step {
      case .ready(let information): return information
      case .command(let command, let count):
        var bytes: [UInt8] = []
        var result = Result<Int, StorageError>.success(0)
        do throws(StorageError) {
          bytes = try await execute(command, lun: lun, count: count)
          result = .success(bytes.count)
        } catch {
          if let reason = life.endReason { throw reason }
          result = .failure(error)
        }
        step = try inquiry.answered(result, unsafe bytes.span.bytes)
      }
    }
  }

  /// The units that the host lists. One that can't list them is asked for each.
  private func listUnits() async throws(StorageError) -> [UInt8] {
    let count = ReportLUNsHeader.byteCount + 256 * ReportedLUN.byteCount
    let bytes: [UInt8]
    do throws(StorageError) {
      bytes = try await execute(
        .reportLUNs(selection: 0, allocationLength: UInt32(count)), lun: 0, count: count)
    } catch {
      switch error.failure {
      case .illegalRequest, .unitGone: return Array(0..<64)
      default: throw error
      }
    }
    return try reportedUnits(bytes)
  }

  // MARK: - Scans

  /// Looks which disks are there. It is called whenever the host tells of a change.
  public func rescan() async throws(StorageError) {
    if let onlyLUN { return try await look(at: onlyLUN) }
    let listed = try await listUnits()
    let known = state.withLock { Array($0.disks.keys) }
    for lun in known where !listed.contains(lun) { remove(lun) }
    for lun in listed { try? await look(at: lun) }
    if let reason = life.endReason { throw reason }
  }

  /// Compares a unit with what is known of it.
  private func look(at lun: UInt8) async throws(StorageError) {
    let found: DiskInformation
    do throws(StorageError) {
      found = try await inquire(lun)
    } catch {
      switch error {
      case .noDisk, .notADisk: remove(lun)
      case _ where error.isUnitGone: remove(lun)
      default: break
      }
      throw error
    }
    let known = state.withLock { $0.disks[lun] }
    guard let known else { return add(found, lun) }
    let old = known.unit.information
    if !old.isSameDisk(as: found) {
      // Another disk in the place of the old one.
      remove(lun)
      return add(found, lun)
    }
    guard old != found else { return }
    known.unit.update(found)
    tell(
      old.geometry.byteCount != found.geometry.byteCount
        ? .resized(known, from: old.geometry.byteCount) : .changed(known))
  }

  private func add(_ information: DiskInformation, _ lun: UInt8) {
    let channels = channels
    let unit = StorageUnit(information, number: UInt32(lun)) { channels.hand($0) }
    let disk = BlockDevice(self, unit)
    // Two scans at the same time may find it both.
    let isFirst = state.withLock { state in
      guard state.disks[lun] == nil else { return false }
      state.disks[lun] = disk
      return true
    }
    guard isFirst else { return }
    if let reason = life.endReason { unit.end(reason) }
    tell(.added(disk))
  }

  private func remove(_ lun: UInt8) {
    guard let disk = state.withLock({ $0.disks.removeValue(forKey: lun) }) else { return }
    disk.unit.end(.removed(lun: lun))
    tell(.removed(lun: lun))
  }

  private func tell(_ event: Event) {
    for continuation in state.withLock({ $0.events }) { continuation.yield(event) }
  }
}

extension DiskInformation {
  /// Whether the same blocks are behind it, however many there are.
  fileprivate func isSameDisk(as other: DiskInformation) -> Bool {
    vendor == other.vendor && product == other.product && serial == other.serial
      && geometry.blockByteCount == other.geometry.blockByteCount
  }
}

/// The units in an answer to REPORT LUNS: those of the first level, 0 to 255.
func reportedUnits(_ bytes: [UInt8]) throws(StorageError) -> [UInt8] {
  do throws(WireError) {
    var reader = WireReader(unsafe bytes.span.bytes, name: "reported units")
    let header = try reader.read(ReportLUNsHeader.self)
    var list = WireReader(
      try reader.take(min(Int(header.length), reader.remaining)), name: "reported units")
    var units: [UInt8] = []
    while list.remaining >= ReportedLUN.byteCount {
      let lun = try list.read(ReportedLUN.self).lun
      // Peripheral addressing (0x00nn) and flat addressing (0x40nn) name the same units.
      guard lun & 0x3FFF <= 255, lun >> 14 <= 1 else { continue }
      let unit = UInt8(truncatingIfNeeded: lun)
      if !units.contains(unit) { units.append(unit) }
    }
    return units.sorted()
  } catch {
    throw .malformed(error)
  }
}
