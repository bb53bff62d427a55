// SPDX-License-Identifier: Apache-2.0

import BlockStorage
import NVMeProtocol
public import PCIFunction
public import Platform
import Synchronization
import VSC

extension NVMeController {
  /// Takes the function, starts its controller and asks it what it is. The queues come with the first
  /// disk.
  ///
  /// - Parameter workers: the admin queue runs on the first one.
  public static func open(
    _ function: any PCIFunction, workers: [Worker], _ configuration: Configuration = .init()
  ) async throws(NVMeOpenError) -> NVMeController {
    guard !workers.isEmpty else { throw .noWorker }
    do throws(PCIError) { try await function.open() } catch { throw .pci(error) }
    let controller: NVMeController
    do throws(PCIError) {
      let registers = try function.registers(ofBAR: 0)
      let capabilities = NVMeCapabilities(
        rawValue: try registers.read64(at: NVMeRegister.capabilities))
      guard capabilities.rawValue != .max else { throw .ended(function.endReason ?? .hostGone) }
      guard capabilities.hasNVMCommands, capabilities.minimumPageByteCount == 4096,
        capabilities.maximumEntries > AdminService.depth
      else {
        throw .transport(
          .unusable(reason: "the controller's capabilities are none that this driver can use"))
      }
      controller = try NVMeController(
        function, configuration, workers, registers, capabilities)
    } catch {
      await function.close()
      throw .pci(error)
    }
    do throws(StorageError) {
      try await controller.quiet()
      try await controller.enable()
      try await controller.identify()
      controller.follow()
      _ = await controller.admin.value { $0.watch() }
      return controller
    } catch {
      await controller.close()
      throw .storage(error)
    }
  }

  /// Does what the queues ask for, and learns of the function's end.
  private func follow() {
    let (needs, function) = (life.needs, function)
    Task { [weak self] in
      for await need in needs { await self?.meet(need) }
    }
    Task { [weak self] in
      let end = await function.ended()
      self?.end(.channel(.ended(end)))
    }
  }

  private func meet(_ need: ControllerLife.Need) async {
    switch need {
    case .reset: await reset()
    case .rescan: await rescan()
    case .end(let error): end(error)
    }
  }

  // MARK: - Off and on

  /// The controller does nothing any more, and knows no queue: by its own register, or else by a reset of
  /// the function.
  func quiet() async throws(StorageError) {
    do throws(StorageError) {
      try write(NVMeConfiguration.off.rawValue, at: NVMeRegister.configuration)
      try await wait("it did not stop in time") { !$0.isReady }
    } catch {
      if let end = function.endReason { throw .channel(.ended(end)) }
      do throws(PCIError) {
        try await function.reset()
      } catch let failure {
        throw storageError(failure)
      }
      try await wait("it did not stop after a reset") { !$0.isReady }
    }
  }

  /// Starts it with its admin queue.
  func enable() async throws(StorageError) {
    do throws(PCIError) {
      try function.setBusMastering(true)
      try function.enableInterrupts(Array(workers.prefix(max(function.vectorCount, 1))))
      let entries = UInt32(adminMemory.entries - 1)
      try registers.write32(entries << 16 | entries, at: NVMeRegister.adminQueueAttributes)
      try write64(adminMemory.submissionAddress, at: NVMeRegister.adminSubmissionQueue)
      try write64(adminMemory.completionAddress, at: NVMeRegister.adminCompletionQueue)
      try registers.write32(
        NVMeConfiguration.on.rawValue, at: NVMeRegister.configuration)
    } catch {
      throw storageError(error)
    }
    try await wait("it did not become ready in time") { $0.isReady }
  }

  /// A normal shutdown: caches are written.
  func shutDown() async {
    var configuration = NVMeConfiguration.on
    configuration.shutdown = 1
    do throws(StorageError) {
      try write(configuration.rawValue, at: NVMeRegister.configuration)
      try await wait("it did not shut down in time") { $0.isShutDown }
      try write(NVMeConfiguration.off.rawValue, at: NVMeRegister.configuration)
      try await wait("it did not stop in time") { !$0.isReady }
    } catch {
      // Closing the function makes it quiet in any case.
    }
  }

  /// Two halves: not every controller takes a register of 64 bits at once.
  private func write64(_ value: UInt64, at offset: Int) throws(PCIError) {
    try registers.write32(UInt32(truncatingIfNeeded: value), at: offset)
    try registers.write32(UInt32(truncatingIfNeeded: value >> 32), at: offset + 4)
  }

  private func write(_ value: UInt32, at offset: Int) throws(StorageError) {
    do throws(PCIError) { try registers.write32(value, at: offset) } catch {
      throw storageError(error)
    }
  }

  private func wait(
    _ failure: WireName, _ condition: (NVMeControllerStatus) -> Bool
  ) async throws(StorageError) {
    let limit = min(capabilities.timeout, configuration.startupLimit)
    let deadline = MonotonicClock.now().addingReportingOverflow(limit).partialValue
    while true {
      let value: UInt32
      do throws(PCIError) { value = try registers.read32(at: NVMeRegister.status) } catch {
        throw storageError(error)
      }
      let status = NVMeControllerStatus(rawValue: value)
      if let end = function.endReason { throw .channel(.ended(end)) }
      if !status.isGone, condition(status) { return }
      if MonotonicClock.now() >= deadline { throw .unusableController(failure) }
      do { try await Task.sleep(for: .milliseconds(1)) } catch { throw .cancelled }
    }
  }

  func storageError(_ error: PCIError) -> StorageError {
    switch error {
    case .ended(let end): .channel(.ended(end))
    default: .unusableController("its function refused")
    }
  }

  // MARK: - Asking

  func execute(
    _ command: NVMeCommand, byteCount: Int = 0
  ) async throws(StorageError) -> AdminJob.Answer {
    let job = AdminJob(command: command, byteCount: byteCount)
    let life = life
    admin.perform { service in
      service.add(job)
    } orElse: {
      job.outcome.keep(.failure(life.endReason ?? .channel(.ended(.closed))))
    }
    return try await job.outcome.value().get()
  }

  /// What the controller is, how many queues it grants, and that it tells of changes.
  func identify() async throws(StorageError) {
    let answer = try await execute(.identify(1), byteCount: 4096)
    let data: NVMeControllerData = try parse(answer.bytes)
    guard data.takesEntries else { throw .unusableController("its queue entries have other sizes") }
    state.withLock { $0.data = data }
    try await configure()
  }

  /// What a controller has to be told after each start.
  func configure() async throws(StorageError) {
    let data = state.withLock { $0.data }
    let wanted = min(
      workers.count, max(function.vectorCount, 1), max(configuration.maximumQueues, 1))
    let number = UInt32(wanted - 1)
    let granted = try await execute(.setFeature(.queueCount, number << 16 | number)).result
    let queues = min(Int(granted & 0xFFFF) + 1, Int(granted >> 16) + 1, wanted)
    state.withLock { $0.granted = queues }
    if data.tellsOfNamespaces {
      _ = try await execute(.setFeature(.asynchronousEvents, 1 << 8))
      _ = await admin.value { $0.listen() }
    }
  }

  func parse<Layout: WireLayout>(_ bytes: [UInt8]) throws(StorageError) -> Layout {
    do throws(WireError) { return try Layout(parsing: bytes) } catch { throw .malformed(error) }
  }
}
