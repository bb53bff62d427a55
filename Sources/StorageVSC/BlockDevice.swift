// SPDX-License-Identifier: Apache-2.0

public import VSC

/// A disk for everybody: any thread and any task may read and write any bytes of it.
///
/// Requests go to the worker that owns the channel, which cuts them up, copies their bytes
/// through DMA memory and keeps many of them under way. Everything that waits gets an error when
/// the channel ends. The burst face is `StorageQueue`.
public final class BlockDevice: Sendable {
  public struct Information: Sendable {
    public var disk: DiskInformation
    public var identity: DeviceIdentity
    /// Who reads what is sent in the ring, and who reads the disk's data in DMA memory.
    public var ringMemory: MemoryVisibility
    public var dataMemory: MemoryVisibility
    /// The data must not stay in DMA memory, since the host sees that and nothing else of this
    /// machine: it is copied.
    public var isBounced: Bool
  }

  public let information: Information
  public let worker: Worker
  private let device: Device
  private let life: ServiceLife
  private let hand: @Sendable (Transfer) -> Void
  private let drop: @Sendable () -> Void
  private let readCounters: @Sendable (@escaping @Sendable (ChannelCounters?) -> Void) -> Void

  init<Ring: Visibility, External: Visibility>(
    _ information: Information, _ device: Device,
    _ service: WorkerHandle<StorageService<Ring, External>>, _ life: ServiceLife
  ) {
    self.information = information
    self.device = device
    self.life = life
    worker = service.worker
    hand = { transfer in
      service.perform { service in
        service.add(transfer)
      } orElse: {
        transfer.outcome.keep(life.endReason ?? .channel(.ended(.closed)))
      }
    }
    drop = { service.detach() }
    readCounters = { body in
      service.perform { service in
        body(service.counters)
      } orElse: {
        body(nil)
      }
    }
  }

  /// Bytes of the disk.
  public var byteCount: UInt64 { information.disk.geometry.byteCount }

  /// Why the disk can be used no more, or nil while it can.
  public var ended: StorageError? { life.endReason }

  /// Suspends until the disk can be used no more: it was closed, or the host took it away.
  public func waitUntilEnded() async { await life.waitUntilEnded() }

  /// What the channel has done so far, or nil when it is over.
  public func counters() async -> ChannelCounters? {
    let promise = Promise<ChannelCounters?>()
    readCounters { promise.keep($0) }
    return await promise.value()
  }

  /// Ends all requests and gives the device back. Its memory is freed when the host is known to
  /// be done with it.
  public func close() async {
    drop()
    await waitUntilEnded()
    await device.close()
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
      Transfer(.read, offset: offset, byteCount: bytes.count, memory: unsafe .lent(start)))
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
    try runAndWait(
      Transfer(
        .write(forced: forced), offset: offset, byteCount: bytes.count,
        memory: unsafe .lent(memory)))
  }

  /// Brings all writes that have returned to stable storage.
  public func flush() throws(StorageError) { try runAndWait(Transfer(.flush)) }

  private func runAndWait(_ transfer: Transfer) throws(StorageError) {
    guard !worker.isCurrent else { throw .onWorkerThread }
    hand(transfer)
    if let error = transfer.outcome.wait() { throw error }
  }

  // MARK: - For tasks

  /// Reads `count` bytes. Cancelling the task ends the wait at once, and the device in its time.
  public func read(at offset: UInt64, count: Int) async throws(StorageError) -> [UInt8] {
    try check(offset, count)
    guard count > 0 else { return [] }
    let transfer = Transfer(
      .read, offset: offset, byteCount: count,
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
    try await run(
      Transfer(
        .write(forced: forced), offset: offset, byteCount: bytes.count, memory: .owned(bytes)))
  }

  /// Brings all writes that have returned to stable storage.
  public func flush() async throws(StorageError) { try await run(Transfer(.flush)) }

  private func run(_ transfer: Transfer) async throws(StorageError) {
    hand(transfer)
    let error = await withTaskCancellationHandler {
      await transfer.outcome.value()
    } onCancel: {
      transfer.outcome.keep(.cancelled)
    }
    if let error { throw error }
  }

  // MARK: - Checks

  private func check(_ offset: UInt64, _ count: Int) throws(StorageError) {
    guard count >= 0, offset <= byteCount, UInt64(count) <= byteCount - offset else {
      throw .outOfRange(offset: offset, byteCount: count, capacity: byteCount)
    }
  }

  private func checkWrite(_ offset: UInt64, _ count: Int) throws(StorageError) {
    try check(offset, count)
    if information.disk.isReadOnly { throw .readOnly }
  }
}
