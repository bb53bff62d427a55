// SPDX-License-Identifier: Apache-2.0

public import VSC

/// A disk for everybody: any thread and any task may read and write any bytes of it.
///
/// Requests go to a worker that owns a channel of the controller, which cuts them up, copies their
/// bytes through DMA memory and keeps many of them under way. A caller that runs on such a worker
/// uses its channel; others take turns. Everything that waits gets an error when a channel ends. The
/// burst face is `StorageQueue`.
///
/// Requests that are under way at the same time are executed in any order. `flush` covers all writes
/// that returned before it was called, on whichever channel they went: the disk has one cache.
public final class BlockDevice: Sendable {
  public struct Information: Sendable {
    public var disk: DiskInformation
    public var place: Place
    /// Channels that share the requests.
    public var channelCount: Int
    /// Who reads what is sent in the ring, and who reads the disk's data in DMA memory.
    public var ringMemory: MemoryVisibility
    public var dataMemory: MemoryVisibility
    /// The data must not stay in DMA memory, since the host sees that and nothing else of this
    /// machine: it is copied.
    public var isBounced: Bool
  }

  /// Where a disk is found.
  public struct Place: Sendable {
    /// A GUID, or the address of a PCI function.
    public var device: String
    /// Of the device's channel on VMBus; nil for other devices.
    public var relid: UInt32?
    /// The LUN on its controller, or the id of the NVMe namespace.
    public var number: UInt32
    public var transport: String

    package init(device: String, relid: UInt32? = nil, number: UInt32, transport: String) {
      self.device = device
      self.relid = relid
      self.number = number
      self.transport = transport
    }
  }

  package let controller: any BlockController
  package let unit: StorageUnit
  private let ownsController: Bool

  package init(
    _ controller: any BlockController, _ unit: StorageUnit, ownsController: Bool = false
  ) {
    self.controller = controller
    self.unit = unit
    self.ownsController = ownsController
  }

  /// The same disk; `close` closes the controller.
  package func owningController() -> BlockDevice {
    BlockDevice(controller, unit, ownsController: true)
  }

  public var lun: UInt8 { unit.lun }

  /// What is known of the disk now: its size may change.
  public var information: Information {
    Information(
      disk: unit.information, place: controller.place(of: unit),
      channelCount: controller.channelCount, ringMemory: controller.memories.ring,
      dataMemory: controller.memories.data, isBounced: controller.memories.isBounced)
  }

  /// Bytes of the disk.
  public var byteCount: UInt64 { unit.information.geometry.byteCount }

  /// Why the disk can be used no more, or nil while it can.
  public var ended: StorageError? { unit.endReason ?? controller.ended }

  /// Suspends until the disk can be used no more: it was closed, or the host took it away.
  public func waitUntilEnded() async { await unit.waitUntilEnded() }

  /// What the controller's channels have done so far, together, or nil when they are over.
  public func counters() async -> ChannelCounters? {
    let all = await controller.counters()
    guard !all.isEmpty else { return nil }
    return all.reduce(into: ChannelCounters()) { $0.add($1.channel) }
  }

  /// What the DMA memory of the controller's channels is used for, together, or nil when they are over.
  public func memoryStatistics() async -> DMAStatistics? {
    let all = await controller.counters()
    guard !all.isEmpty else { return nil }
    return all.reduce(into: DMAStatistics()) { $0.add($1.memory) }
  }

  /// Ends the use of the disk. One that was opened by itself is closed with its device: all
  /// requests end, and the memory is freed when the host is known to be done with it.
  public func close() async {
    if ownsController { await controller.close() }
    unit.end(.channel(.ended(.closed)))
  }

  // MARK: - For threads

  /// Fills `bytes` from the disk; returns when that is done.
  ///
  /// - Parameter offset: bytes from the disk's start; need not be a multiple of anything.
  public func read(
    at offset: UInt64, into bytes: UnsafeMutableRawBufferPointer
  ) throws(StorageError) {
    try check(offset, bytes.count)
    guard let start = bytes.baseAddress, bytes.count > 0 else { return }
    try runAndWait(
      Transfer(.read, unit, offset: offset, byteCount: bytes.count, memory: unsafe .lent(start)))
  }

  /// Writes `bytes` to the disk; returns when the host has them, which need not mean that they
  /// are on stable storage.
  ///
  /// - Parameter forced: they are on stable storage when this returns.
  public func write(
    at offset: UInt64, from bytes: UnsafeRawBufferPointer, forced: Bool = false
  ) throws(StorageError) {
    try checkWrite(offset, bytes.count)
    guard let start = bytes.baseAddress, bytes.count > 0 else { return }
    // A write only reads its memory.
    let memory = unsafe UnsafeMutableRawPointer(mutating: start)
    try runAndWait(write(offset, bytes.count, forced, unsafe .lent(memory)))
  }

  /// Brings all writes that have returned to stable storage.
  public func flush() throws(StorageError) { try runAndWait(Transfer(.flush, unit)) }

  /// Tells the disk that the bytes are not needed any more: what is read there is undefined until
  /// they are written. Parts of blocks are left as they are.
  ///
  /// - Throws: `unsupported` when the disk takes no such hint.
  public func discard(at offset: UInt64, count: UInt64) throws(StorageError) {
    for transfer in try discards(offset, count) { try runAndWait(transfer) }
  }

  /// Fills bytes with zeros, without sending them where the disk can do that.
  ///
  /// - Parameters:
  ///   - mayUnmap: a thin disk may give their storage back.
  ///   - forced: they are on stable storage when this returns.
  ///   - onlyFast: rather throw `unsupported` than send them.
  public func writeZeroes(
    at offset: UInt64, count: UInt64, mayUnmap: Bool = true, forced: Bool = false,
    onlyFast: Bool = false
  ) throws(StorageError) {
    for transfer in try zeroes(offset, count, mayUnmap, forced, onlyFast) {
      try runAndWait(transfer)
    }
  }

  private func runAndWait(_ transfer: Transfer) throws(StorageError) {
    guard !controller.workers.contains(where: { $0.isCurrent }) else {
      throw .onWorkerThread
    }
    unit.begin(transfer)
    if let error = transfer.outcome.wait() { throw error }
  }

  // MARK: - For tasks

  /// Reads `count` bytes. Cancelling the task ends the wait at once, and the device in its time.
  public func read(at offset: UInt64, count: Int) async throws(StorageError) -> [UInt8] {
    try check(offset, count)
    guard count > 0 else { return [] }
    let transfer = Transfer(
      .read, unit, offset: offset, byteCount: count,
      memory: .owned([UInt8](repeating: 0, count: count)))
    try await run(transfer)
    return transfer.takeBytes()
  }

  /// Writes bytes; see the blocking form.
  public func write(
    at offset: UInt64, _ bytes: [UInt8], forced: Bool = false
  ) async throws(StorageError) {
    try checkWrite(offset, bytes.count)
    guard !bytes.isEmpty else { return }
    try await run(write(offset, bytes.count, forced, .owned(bytes)))
  }

  /// Brings all writes that have returned to stable storage.
  public func flush() async throws(StorageError) { try await run(Transfer(.flush, unit)) }

  /// See the blocking form.
  public func discard(at offset: UInt64, count: UInt64) async throws(StorageError) {
    for transfer in try discards(offset, count) { try await run(transfer) }
  }

  /// See the blocking form.
  public func writeZeroes(
    at offset: UInt64, count: UInt64, mayUnmap: Bool = true, forced: Bool = false,
    onlyFast: Bool = false
  ) async throws(StorageError) {
    for transfer in try zeroes(offset, count, mayUnmap, forced, onlyFast) {
      try await run(transfer)
    }
  }

  private func run(_ transfer: Transfer) async throws(StorageError) {
    unit.begin(transfer)
    let error = await withTaskCancellationHandler {
      await transfer.outcome.value()
    } onCancel: {
      transfer.outcome.keep(.cancelled)
    }
    if let error { throw error }
  }

  // MARK: - Transfers

  private func write(
    _ offset: UInt64, _ count: Int, _ forced: Bool, _ memory: consuming Transfer.Memory
  ) -> Transfer {
    let canForce = unit.information.supportsForcedWrites
    return Transfer(
      .write(forced: forced && canForce), unit, offset: offset, byteCount: count,
      flush: forced && !canForce, memory: memory)
  }

  /// The whole blocks of a range, as one transfer or none.
  private func discards(_ offset: UInt64, _ count: UInt64) throws(StorageError) -> [Transfer] {
    let count = try checkRange(offset, count)
    let disk = unit.information
    guard disk.provisioning.canDiscard else { throw .unsupported }
    let mask = UInt64(disk.geometry.blockByteCount) &- 1
    let start = (offset &+ mask) & ~mask
    let end = (offset &+ UInt64(count)) & ~mask
    guard start < end else { return [] }
    return [Transfer(.discard, unit, offset: start, byteCount: Int(end &- start))]
  }

  private func zeroes(
    _ offset: UInt64, _ count: UInt64, _ mayUnmap: Bool, _ forced: Bool, _ onlyFast: Bool
  ) throws(StorageError) -> [Transfer] {
    let count = try checkRange(offset, count)
    let provisioning = unit.information.provisioning
    if onlyFast, !provisioning.canFill { throw .unsupported }
    guard count > 0 else { return [] }
    let canUnmap = mayUnmap && provisioning.canFillByUnmap && provisioning.readsZeros
    let method: Transfer.ZeroMethod =
      canUnmap ? .fillOrUnmap : provisioning.canFill ? .fill : .writes
    // No command that fills can force, so a flush follows.
    return [
      Transfer(.writeZeroes(method), unit, offset: offset, byteCount: count, flush: forced)
    ]
  }

  // MARK: - Checks

  private func check(_ offset: UInt64, _ count: Int) throws(StorageError) {
    if let end = ended { throw end }
    let byteCount = byteCount
    guard count >= 0, offset <= byteCount, UInt64(count) <= byteCount - offset else {
      throw .outOfRange(offset: offset, byteCount: count, capacity: byteCount)
    }
  }

  private func checkWrite(_ offset: UInt64, _ count: Int) throws(StorageError) {
    try check(offset, count)
    if unit.information.isReadOnly { throw .readOnly }
  }

  private func checkRange(_ offset: UInt64, _ count: UInt64) throws(StorageError) -> Int {
    let bytes = Int(clamping: count)
    try checkWrite(offset, bytes)
    return bytes
  }
}

extension ChannelCounters {
  fileprivate mutating func add(_ other: ChannelCounters) {
    sent &+= other.sent
    received &+= other.received
    doorbells &+= other.doorbells
    full &+= other.full
    corrupt &+= other.corrupt
    unknownCompletions &+= other.unknownCompletions
    malformed &+= other.malformed
  }
}
