// SPDX-License-Identifier: Apache-2.0

public import BlockStorage
import NVMeProtocol
public import PCIFunction
public import Platform
import Synchronization
public import VSC

extension NVMeController {
  // MARK: - Queues

  /// Queue pairs that the controller grants.
  public var grantedQueues: Int { state.withLock { $0.granted } }

  /// A queue pair of a worker for a program that drives it itself. It ends with the first reset of the
  /// controller.
  ///
  /// - Parameter index: of the worker; below `grantedQueues`, and used once.
  public func makeQueue(
    _ index: Int, namespace: UInt32, depth: Int
  ) async throws(StorageError) -> sending NVMeQueue {
    let information = try await inquire(namespace)
    let record = try makeRecord(index, depth: depth)
    try await create(record)
    state.withLock { $0.queues.append(record) }
    return try queue(record, namespace, information, depth: depth)
  }

  /// DMA memory for a queue that a program drives itself.
  public func makePool(
    count: Int, byteCount: Int
  ) throws(PCIError) -> DMAPool<HostVisible> {
    try function.makePool(count: count, byteCount: byteCount)
  }

  /// Gives a worker what drives such a queue. `close` drops it before the memory goes.
  public func attach<Value: Pollable & ~Copyable>(
    _ value: consuming sending Value, to index: Int, ended: @escaping @Sendable () -> Void
  ) {
    let dropped = Promise<Void>()
    let handle = workers[index].attach(value) {
      ended()
      dropped.keep(())
    }
    state.withLock { state in
      state.dropped.append(dropped)
      state.attached.append { handle.detach() }
    }
  }

  private func makeRecord(_ index: Int, depth: Int) throws(StorageError) -> QueueRecord {
    guard index >= 0, index < grantedQueues else {
      throw .unusableController("it grants fewer queues")
    }
    do throws(PCIError) {
      return QueueRecord(
        number: UInt16(index + 1),
        memory: try QueueMemory(
          function, depth: min(depth, capabilities.maximumEntries - 1),
          pageCount: configuration.usableBufferByteCount / 4096),
        vector: UInt16(index))
    } catch {
      throw storageError(error)
    }
  }

  private func queue(
    _ record: QueueRecord, _ namespace: UInt32, _ information: DiskInformation, depth: Int
  ) throws(StorageError) -> sending NVMeQueue {
    let pair: QueuePair
    do throws(PCIError) {
      pair = try QueuePair(
        record.number, record.memory, registers, stride: capabilities.doorbellStride)
    } catch {
      throw storageError(error)
    }
    return NVMeQueue(
      pair, namespace: namespace, information, depth: depth, timeout: configuration.timeout,
      takesDescriptors: state.withLock { $0.data.takesDescriptors }, state: life.state)
  }

  /// Makes a queue pair known to the controller.
  private func create(_ record: QueueRecord) async throws(StorageError) {
    let vector = function.vectorCount > 0 ? record.vector : nil
    _ = try await execute(
      .createCompletionQueue(
        record.number, address: record.memory.completionAddress, entries: record.memory.entries,
        vector: vector))
    _ = try await execute(
      .createSubmissionQueue(
        record.number, address: record.memory.submissionAddress, entries: record.memory.entries,
        completionQueue: record.number))
  }

  /// One queue pair with its service for each worker, as far as the controller grants them.
  private func startServices() async throws(StorageError) {
    guard state.withLock({ $0.services.isEmpty }) else { return }
    for index in 0..<grantedQueues {
      let record: QueueRecord
      let pool: DMAPool<HostVisible>
      do throws(StorageError) {
        record = try makeRecord(index, depth: configuration.usableDepth)
        try await create(record)
        do throws(PCIError) {
          pool = try function.makePool(
            count: configuration.bufferCount, byteCount: configuration.usableBufferByteCount)
        } catch {
          throw storageError(error)
        }
      } catch {
        // With one queue it works too.
        if index == 0 { throw error }
        break
      }
      // The service's requests name their namespace themselves.
      let queue = try queue(
        record, 0, DiskInformation(), depth: configuration.usableDepth)
      let admin = admin
      let service = NVMeService(queue, pool, configuration, life) { queue, identifier in
        admin.perform { $0.late(queue: queue, identifier: identifier, now: MonotonicClock.now()) }
      }
      let dropped = Promise<Void>()
      let handle = workers[index].attach(service) { dropped.keep(()) }
      state.withLock { state in
        state.queues.append(record)
        state.dropped.append(dropped)
        state.services.append(handle)
      }
    }
    if let reason = life.endReason { throw reason }
  }

  // MARK: - Namespaces

  /// The ids of the namespaces that are there.
  public func namespaces() async throws(StorageError) -> [UInt32] {
    let bytes = try await execute(.identify(2), byteCount: 4096).bytes
    var reader = WireReader(unsafe bytes.span.bytes, name: "NVMe namespaces")
    var list: [UInt32] = []
    // They ascend; a zero ends them.
    while let id = try? reader.read(UInt32.self), id > list.last ?? 0, id != .max {
      list.append(id)
    }
    return list
  }

  /// What a namespace is.
  public func inquire(_ namespace: UInt32) async throws(StorageError) -> DiskInformation {
    guard namespace > 0, namespace < .max else { throw .noNamespace(namespace) }
    let bytes: [UInt8]
    do throws(StorageError) {
      bytes = try await execute(.identify(0, namespace: namespace), byteCount: 4096).bytes
    } catch .rejected(let status) where status.condition == .invalidNamespace {
      throw .noNamespace(namespace)
    }
    let data = state.withLock { $0.data }
    return try DiskInformation(
      data, parse(bytes), identifier: namespace,
      maximumTransfer: configuration.usableBufferByteCount)
  }

  /// A namespace as a disk. Closing it closes the controller.
  public func disk(_ namespace: UInt32) async throws(StorageError) -> BlockDevice {
    if let reason = life.endReason { throw reason }
    let information = try await inquire(namespace)
    try await startServices()
    let unit = state.withLock { state in
      if let known = state.units[namespace] { return known }
      let unit = StorageUnit(information, number: namespace) { [weak self] transfer in
        guard let self else { return transfer.settle(.channel(.ended(.closed))) }
        hand(transfer)
      }
      state.units[namespace] = unit
      return unit
    }
    if let reason = life.endReason { unit.end(reason) }
    return BlockDevice(self, unit, ownsController: true)
  }

  /// Compares the namespaces in use with what the controller says of them.
  func rescan() async {
    // Reading the list of changed ones has the controller tell of the next change.
    _ = try? await execute(.logPage(4, byteCount: 4096), byteCount: 4096)
    for (namespace, unit) in state.withLock({ $0.units }) {
      do throws(StorageError) {
        let found = try await inquire(namespace)
        let old = unit.information
        if old.geometry.blockByteCount != found.geometry.blockByteCount
          || old.serial != found.serial
        {
          unit.end(.noNamespace(namespace))
        } else if old != found {
          unit.update(found)
        }
      } catch .noNamespace {
        unit.end(.noNamespace(namespace))
      } catch {
        // What the scan itself fails with, the next event or the end repairs.
      }
    }
  }

  // MARK: - Resets

  /// Stops the controller, gives back what was under way, and starts it again.
  func reset() async {
    let services = state.withLock { $0.services }
    let hasBurstQueues = state.withLock { $0.queues.count > $0.services.count }
    for service in services { _ = await service.value { $0.suspend() } }
    _ = await admin.value { $0.suspend() }
    do throws(StorageError) {
      // Nobody would give the requests of these back.
      if hasBurstQueues { throw .reset }
      try await quiet()
      _ = await admin.value { $0.restart() }
      for service in services { _ = await service.value { $0.restart() } }
      try await enable()
      try await configure()
      for record in state.withLock({ $0.queues }) { try await create(record) }
      for service in services { _ = await service.value { $0.resume() } }
      _ = await admin.value { $0.resetEnded(true) }
    } catch {
      if let end = function.endReason { return self.end(.channel(.ended(end))) }
      _ = await admin.value { $0.resetEnded(false) }
    }
  }
}
