// SPDX-License-Identifier: Apache-2.0

import SimulatedBus
import SimulatedHost
import StorageVSC
import Testing
import VSC

/// The storage driver and the simulated host, joined as two processes would be, with faults.
@Suite(.timeLimit(.minutes(10))) struct StorageOverBusTests {
  struct Bed {
    let host: SimulatedHost
    let bus: SimulatedBus
    let worker: Worker
    let disk: BlockDevice

    func close() async {
      await disk.close()
      await bus.disconnect()
      worker.stop()
      host.stop()
    }
  }

  static let megabyte: UInt64 = 1 << 20
  static let instance: GUID = "8d1f6a2e-59a6-4a4f-93b7-5f60c0e1a003"

  func makeBed(
    _ machine: Machine = .isolated, flags: OfferFlags = [], faults: [FaultPlan] = [],
    timeout: UInt64 = 30_000_000_000
  ) async throws -> Bed {
    let host = try SimulatedHost(path: socketPath("storage"))
    var controller = SCSIController()
    let image = try DiskImage.inMemory(byteCount: 8 * Self.megabyte)
    let attached = controller.attach(
      try SCSIDisk(image, identity: Self.instance), lun: 0)
    #expect(attached)
    // The start-up has 9 completions at most; the faults come after it.
    host.add(StorVSP(controller, instance: Self.instance, flags: flags), faults: faults)
    let bus = try await SimulatedBus.connect(path: host.path, .init(machine: machine))
    let worker = try Worker(.init(name: "disk"))
    let transport = try #require(bus.devices.first)
    let disk = try await StorageVSC.open(
      Device(transport, workers: [worker]), .init(depth: 16, timeout: timeout))
    return Bed(host: host, bus: bus, worker: worker, disk: disk)
  }

  static func pattern(_ count: Int, seed: UInt8) -> [UInt8] {
    (0..<count).map { UInt8(truncatingIfNeeded: $0 &* 31 &+ $0 >> 8) ^ seed }
  }

  @Test(arguments: [
    (Machine.plain, OfferFlags(), MemoryVisibility.hostVisible, false),
    (.isolated, OfferFlags(), .hostVisible, true),
    (.confidential, .confidentialRingBuffer, .hostVisible, true),
    (.confidential, .confidential, .encrypted, false),
  ])
  func whatIsWrittenIsReadBack(
    _ machine: Machine, _ flags: OfferFlags, _ memory: MemoryVisibility, _ isBounced: Bool
  ) async throws {
    let bed = try await makeBed(machine, flags: flags)
    #expect(bed.disk.information.dataMemory == memory)
    #expect(bed.disk.information.isBounced == isBounced)
    let bytes = Self.pattern(700_001, seed: 5)
    try await bed.disk.write(at: 4099, bytes)
    try await bed.disk.flush()
    #expect(try await bed.disk.read(at: 4099, count: bytes.count) == bytes)
    // Around it nothing changed.
    #expect(try await bed.disk.read(at: 0, count: 4099).allSatisfy { $0 == 0 })
    #expect(
      try await bed.disk.read(at: 4099 + 700_001, count: 5000).allSatisfy { $0 == 0 })
    let memory = try #require(await bed.disk.memoryStatistics())
    #expect(memory.inUse == 0 && memory.lost == 0)
    #expect(isBounced ? memory.scrubbed >= 2 * 700_001 : memory.scrubbed == 0)
    await bed.close()
  }

  @Test func manyTasksShareTheDisk() async throws {
    let bed = try await makeBed()
    let disk = bed.disk
    try await withThrowingTaskGroup(of: Void.self) { group in
      for task in 0..<32 {
        group.addTask {
          let bytes = Self.pattern(10_000, seed: UInt8(task))
          // Neighbours share blocks: each writes a part of them.
          try await disk.write(at: UInt64(task) * 10_000, bytes)
        }
      }
      try await group.waitForAll()
    }
    for task in 0..<32 {
      let found = try await disk.read(at: UInt64(task) * 10_000, count: 10_000)
      #expect(found == Self.pattern(10_000, seed: UInt8(task)))
    }
    await bed.close()
  }

  @Test func repeatedAndInventedCompletionsAreCountedAndDropped() async throws {
    let bed = try await makeBed(
      faults: [FaultPlan(.twice, after: 12, count: 20), FaultPlan(.invent, after: 40, count: 20)])
    for round in 0..<60 {
      let bytes = Self.pattern(4096, seed: UInt8(round))
      try await bed.disk.write(at: UInt64(round) * 4096, bytes)
      #expect(try await bed.disk.read(at: UInt64(round) * 4096, count: 4096) == bytes)
    }
    let counters = try #require(await bed.disk.counters())
    #expect(counters.unknownCompletions == 40)
    await bed.close()
  }

  @Test func aDelayedCompletionIsWaitedFor() async throws {
    let bed = try await makeBed(faults: [FaultPlan(.delay(50_000_000), after: 12, count: 3)])
    for round in 0..<8 {
      let bytes = Self.pattern(4096, seed: UInt8(round))
      try await bed.disk.write(at: 0, bytes)
      #expect(try await bed.disk.read(at: 0, count: 4096) == bytes)
    }
    await bed.close()
  }

  @Test func aDroppedCompletionTimesOutAndTheDiskGoesOn() async throws {
    let bed = try await makeBed(
      faults: [FaultPlan(.drop, after: 20, count: 1)], timeout: 2_000_000_000)
    var timedOut = 0
    for round in 0..<30 {
      do {
        try await bed.disk.write(at: UInt64(round) * 512, Self.pattern(512, seed: 1))
      } catch .timedOut {
        timedOut += 1
      }
    }
    #expect(timedOut == 1)
    #expect(try await bed.disk.read(at: 0, count: 512) == Self.pattern(512, seed: 1))
    await bed.close()
  }

  @Test func garbageInTheRingEndsTheDiskAndNothingElse() async throws {
    let bed = try await makeBed(faults: [FaultPlan(.garbage, after: 20, count: 1)])
    let disk = bed.disk
    let error: StorageError? = await {
      do throws(StorageError) {
        for _ in 0..<100 { _ = try await disk.read(at: 0, count: 4096) }
        return nil
      } catch {
        return error
      }
    }()
    guard case .channel = try #require(error) else {
      Issue.record("ended with \(String(describing: error))")
      return
    }
    await disk.waitUntilEnded()
    await #expect(throws: StorageError.self) { try await disk.read(at: 0, count: 512) }
    await bed.close()
  }

  @Test func aRescindFailsWhatIsUnderWay() async throws {
    let bed = try await makeBed(faults: [FaultPlan(.rescind, after: 30, count: 1)])
    let disk = bed.disk
    await withTaskGroup(of: Void.self) { group in
      for task in 0..<8 {
        group.addTask {
          // Each ends by an error, none hangs.
          while (try? await disk.read(at: UInt64(task) * 4096, count: 4096)) != nil {}
        }
      }
    }
    // The end is told after what it made fail.
    await disk.waitUntilEnded()
    #expect(disk.ended == .channel(.ended(.rescinded)))
    await bed.close()
  }
}
