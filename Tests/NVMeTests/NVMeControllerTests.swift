// SPDX-License-Identifier: Apache-2.0

import BlockStorage
import NVMe
import NVMeProtocol
import SimulatedNVMe
import Testing
import VSC

@Suite struct NVMeControllerTests {
  @Test(arguments: [
    (512, false, true), (512, false, false), (4096, false, true), (512, true, true),
  ])
  func readsWhatItWrote(block: Int, isIsolated: Bool, takesDescriptors: Bool) async throws {
    var settings = NVMeSettings()
    settings.takesDescriptors = takesDescriptors
    let bed = try await NVMeBed(settings, blockByteCount: block, isIsolated: isIsolated)
    let disk = try await bed.controller.disk(1)
    #expect(disk.byteCount == 16 << 20)
    #expect(disk.information.isBounced == isIsolated)
    #expect(disk.information.disk.product == "Simulated NVMe")
    #expect(disk.information.disk.protocolName == "NVMe 1.4")
    #expect(disk.information.disk.geometry.blockByteCount == block)
    // Whole blocks, parts of blocks, one page, two, a list, and more than one request.
    for (offset, count) in [
      (0, 4096), (4096, 8192), (100, 300), (5000, 20000), (65536, 3 << 20), (511, 2),
    ] {
      let bytes = NVMeBed.pattern(count, seed: offset)
      try await disk.write(at: UInt64(offset), bytes, forced: count == 4096)
      #expect(try await disk.read(at: UInt64(offset), count: count) == bytes)
    }
    try await disk.flush()
    let memory = await disk.memoryStatistics()
    #expect(memory?.inUse == 0 && memory?.lost == 0)
    #expect(isIsolated == ((memory?.scrubbed ?? 0) > 0))
    await bed.close()
    #expect(bed.device.statistics.refusedAccesses == 0)
    #expect(bed.device.statistics.badDoorbells == 0)
  }

  /// Each is a disk of its own, over the same queues.
  @Test func severalNamespaces() async throws {
    let bed = try await NVMeBed(byteCount: 1 << 20, namespaces: 3)
    let controller = bed.controller
    #expect(try await controller.namespaces() == [1, 2, 3])
    var disks: [BlockDevice] = []
    for id in 1...3 as ClosedRange<UInt32> { disks.append(try await controller.disk(id)) }
    #expect(disks.map(\.byteCount) == [1 << 20, 2 << 20, 4 << 20])
    for (index, disk) in disks.enumerated() {
      try await disk.write(at: 8192, NVMeBed.pattern(20000, seed: index))
    }
    for (index, disk) in disks.enumerated() {
      #expect(
        try await disk.read(at: 8192, count: 20000) == NVMeBed.pattern(20000, seed: index))
    }
    // What one does not reach is not another one's.
    await #expect(throws: StorageError.self) { try await disks[0].read(at: 1 << 20, count: 512) }
    for id in [0, 4, .max] as [UInt32] {
      await #expect(throws: StorageError.noNamespace(id)) { _ = try await controller.disk(id) }
    }
    await bed.close()
    #expect(bed.device.statistics.refusedAccesses == 0)
  }

  @Test func zeroesAndDiscards() async throws {
    let bed = try await NVMeBed()
    let disk = try await bed.controller.disk(1)
    let bytes = NVMeBed.pattern(1 << 20, seed: 7)
    try await disk.write(at: 0, bytes)
    try await disk.discard(at: 4096, count: 8192)
    try await disk.writeZeroes(at: 100_000, count: 123_457)
    var expected = bytes
    for index in 4096..<12288 { expected[index] = 0 }
    for index in 100_000..<223_457 { expected[index] = 0 }
    #expect(try await disk.read(at: 0, count: 1 << 20) == expected)
    await bed.close()
  }

  @Test func queuesOfSeveralWorkers() async throws {
    var settings = NVMeSettings()
    settings.queueCount = 3
    let bed = try await NVMeBed(settings, workers: 4)
    let disk = try await bed.controller.disk(1)
    // The device grants fewer than there are workers.
    #expect(disk.information.channelCount == 3)
    try await withThrowingTaskGroup(of: Void.self) { group in
      for part in 0..<8 {
        group.addTask {
          for round in 0..<20 {
            let offset = UInt64(part) << 20 + UInt64(round * 5000)
            let bytes = NVMeBed.pattern(5000, seed: part + round)
            try await disk.write(at: offset, bytes)
            #expect(try await disk.read(at: offset, count: 5000) == bytes)
          }
        }
      }
      try await group.waitForAll()
    }
    let counters = await bed.controller.counters()
    #expect(counters.count == 3)
    #expect(counters.allSatisfy { $0.channel.sent > 0 && $0.underWay == 0 })
    #expect(counters.allSatisfy { $0.channel.unknownCompletions == 0 })
    await bed.close()
  }

  @Test func namespaces() async throws {
    let bed = try await NVMeBed()
    #expect(try await bed.controller.namespaces() == [1])
    await #expect(throws: StorageError.noNamespace(2)) { try await bed.controller.disk(2) }
    await #expect(throws: StorageError.noNamespace(0)) { try await bed.controller.disk(0) }
    await bed.close()
    await #expect(throws: StorageError.channel(.ended(.closed))) {
      try await bed.controller.disk(1)
    }
  }

  @Test func aControllerThatNeverBecomesReady() async throws {
    var settings = NVMeSettings()
    settings.neverReady = true
    var configuration = NVMeBed.impatient
    configuration.startupLimit = 50_000_000
    await #expect(
      throws: NVMeOpenError.storage(.unusableController("it did not become ready in time"))
    ) {
      _ = try await NVMeBed(settings, configuration)
    }
  }

  @Test func anotherDriverAfterThis() async throws {
    let bed = try await NVMeBed()
    let disk = try await bed.controller.disk(1)
    try await disk.write(at: 0, NVMeBed.pattern(4096, seed: 3))
    await bed.controller.close()
    let function = try bed.again()
    let controller = try await NVMeController.open(function, workers: bed.workers)
    let second = try await controller.disk(1)
    #expect(try await second.read(at: 0, count: 4096) == NVMeBed.pattern(4096, seed: 3))
    await controller.close()
    await bed.close()
  }

  // MARK: - The end

  @Test func theFunctionIsTakenAway() async throws {
    let bed = try await NVMeBed()
    let disk = try await bed.controller.disk(1)
    try await disk.write(at: 0, NVMeBed.pattern(4096, seed: 3))
    bed.device.remove()
    await disk.waitUntilEnded()
    #expect(disk.ended == .channel(.ended(.rescinded)))
    await #expect(throws: StorageError.channel(.ended(.rescinded))) {
      try await disk.read(at: 0, count: 512)
    }
    await bed.close()
  }

  @Test func theDeviceDies() async throws {
    let bed = try await NVMeBed()
    let disk = try await bed.controller.disk(1)
    let reader = Task {
      while true { _ = try await disk.read(at: 0, count: 512) }
    }
    bed.device.stop()
    await #expect(throws: StorageError.self) { try await reader.value }
    #expect(disk.ended == .channel(.ended(.hostGone)))
    await bed.close()
  }

  // MARK: - Faults

  @Test func whatWasNeverAskedIsCounted() async throws {
    var settings = NVMeSettings()
    settings.faults = [.init(.twice), .init(.invent), .init(.wrongQueue)]
    let bed = try await NVMeBed(settings)
    let disk = try await bed.controller.disk(1)
    let bytes = NVMeBed.pattern(512, seed: 1)
    for _ in 0..<8 { try await disk.write(at: 0, bytes) }
    #expect(try await disk.read(at: 0, count: 512) == bytes)
    let counters = await bed.controller.counters()[0]
    #expect(counters.channel.unknownCompletions == 2 && counters.channel.malformed == 1)
    await bed.close()
  }

  @Test func transientErrorsAreTriedAgain() async throws {
    var settings = NVMeSettings()
    settings.faults = [
      .init(.status(.namespaceNotReady)), .init(.status(.internalError), count: 2),
    ]
    let bed = try await NVMeBed(settings)
    let disk = try await bed.controller.disk(1)
    try await disk.write(at: 0, NVMeBed.pattern(512, seed: 1))
    #expect(await bed.controller.counters()[0].retries == 3)
    bed.device.inject(.init(.status(.unrecoveredRead)))
    var found: StorageError?
    // The order is taken some rounds later.
    for _ in 0..<10_000 where found == nil {
      do { _ = try await disk.read(at: 0, count: 512) } catch {
        found = error
      }
    }
    #expect(found == .rejected(NVMeStatus(.unrecoveredRead)))
    #expect(found?.failure == .medium)
    await bed.close()
  }

  @Test func aHeldRequestIsAborted() async throws {
    var settings = NVMeSettings()
    settings.faults = [.init(.hold)]
    let bed = try await NVMeBed(settings, NVMeBed.impatient)
    let disk = try await bed.controller.disk(1)
    await #expect(throws: StorageError.timedOut) { try await disk.read(at: 0, count: 4096) }
    // Its completion comes after all, and with it the buffer.
    try await until { await bed.controller.counters().first?.late == 1 }
    let counters = await bed.controller.counters()[0]
    #expect(counters.timeouts == 1 && counters.abandoned == 0 && counters.memory.inUse == 0)
    #expect(await bed.controller.adminCounters()?.aborts == 1)
    #expect(await bed.controller.adminCounters()?.resets == 0)
    _ = try await disk.read(at: 0, count: 4096)
    await bed.close()
  }

  @Test(arguments: [NVMeFault.Kind.drop, .fail])
  func aLostRequestResetsTheController(kind: NVMeFault.Kind) async throws {
    var settings = NVMeSettings()
    settings.faults = [.init(kind, after: 5)]
    let bed = try await NVMeBed(settings, workers: 2, NVMeBed.impatient)
    let disk = try await bed.controller.disk(1)
    try await withThrowingTaskGroup(of: Int.self) { group in
      for part in 0..<16 {
        group.addTask {
          let bytes = NVMeBed.pattern(4096, seed: part)
          do throws(StorageError) {
            try await disk.write(at: UInt64(part) << 12, bytes)
            let found = try await disk.read(at: UInt64(part) << 12, count: 4096)
            #expect(found == bytes)
            return 0
          } catch {
            // One that the controller never had an answer for; whether it was executed is not known.
            guard error == .timedOut else { throw error }
            return 1
          }
        }
      }
      var late = 0
      for try await count in group { late += count }
      #expect(late >= 1)
    }
    try await until { bed.device.statistics.resets >= 1 }
    // Everything works again, on all queues, and no buffer is missing.
    for part in 0..<32 {
      let bytes = NVMeBed.pattern(4096, seed: part &+ 100)
      try await disk.write(at: UInt64(part) << 12, bytes)
      #expect(try await disk.read(at: UInt64(part) << 12, count: 4096) == bytes)
    }
    let counters = await bed.controller.counters()
    #expect(
      counters.allSatisfy { $0.abandoned == 0 && $0.memory.inUse == 0 && $0.memory.lost == 0 })
    #expect(await bed.controller.adminCounters()?.resets == 1)
    await bed.close()
  }

  /// Nothing is late: the driver sees that the controller has failed, and sends again what was under way.
  @Test func aFailedControllerIsSeen() async throws {
    var settings = NVMeSettings()
    settings.faults = [.init(.fail, after: 5), .init(.fail, after: 20)]
    let bed = try await NVMeBed(
      settings, workers: 2, .init(depth: 16, timeout: .max / 2, lookInterval: 10_000_000))
    let disk = try await bed.controller.disk(1)
    try await withThrowingTaskGroup(of: Void.self) { group in
      for part in 0..<32 {
        group.addTask {
          let bytes = NVMeBed.pattern(4096, seed: part)
          try await disk.write(at: UInt64(part) << 12, bytes)
          #expect(try await disk.read(at: UInt64(part) << 12, count: 4096) == bytes)
        }
      }
      try await group.waitForAll()
    }
    #expect(await bed.controller.adminCounters()?.resets == 2)
    let counters = await bed.controller.counters()
    #expect(
      counters.allSatisfy { $0.timeouts == 0 && $0.abandoned == 0 && $0.memory.inUse == 0 })
    await bed.close()
  }

  @Test func oneThatNeverAnswersIsGivenUp() async throws {
    var settings = NVMeSettings()
    settings.faults = [.init(.drop, count: .max)]
    let bed = try await NVMeBed(settings, NVMeBed.impatient)
    let disk = try await bed.controller.disk(1)
    while disk.ended == nil { _ = try? await disk.read(at: 0, count: 512) }
    #expect(disk.ended == .unresponsive)
    await bed.close()
  }

  /// Waits for something that happens soon.
  private func until(_ condition: () async -> Bool) async throws {
    for _ in 0..<1000 {
      if await condition() { return }
      try await Task.sleep(for: .milliseconds(10))
    }
    Issue.record("it did not happen")
  }
}
