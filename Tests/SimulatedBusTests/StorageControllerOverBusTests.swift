// SPDX-License-Identifier: Apache-2.0

import SimulatedBus
import SimulatedHost
import StorageProtocol
import StorageVSC
import SystemPackage
import Testing
import VSC

/// A controller with several disks of the simulated host.
@Suite(.timeLimit(.minutes(10))) struct StorageControllerOverBusTests {
  struct Bed {
    let host: SimulatedHost
    let bus: SimulatedBus
    let workers: [Worker]
    let controller: StorageController

    func close() async {
      await controller.close()
      await bus.disconnect()
      for worker in workers { worker.stop() }
      host.stop()
    }
  }

  static let megabyte: UInt64 = 1 << 20
  static let instance: GUID = "8d1f6a2e-59a6-4a4f-93b7-5f60c0e1a0c1"

  static func disk(
    _ identity: GUID, blockSize: DiskBlockSize = .bytes512, readOnly: Bool = false
  ) throws -> SCSIDisk {
    try SCSIDisk(
      try DiskImage.inMemory(byteCount: 4 * megabyte, readOnly: readOnly), blockSize: blockSize,
      identity: identity)
  }

  static func makeBed(workers count: Int = 1, _ vsp: StorVSP) async throws -> Bed {
    let host = try SimulatedHost(path: socketPath("controller"))
    host.add(vsp)
    let bus = try await SimulatedBus.connect(path: host.path, .init(machine: .isolated))
    let workers = try (0..<count).map { try Worker(.init(name: "disk-\($0)")) }
    let transport = try #require(bus.devices.first)
    let controller = try await StorageVSC.openController(
      Device(transport, workers: workers),
      .init(lun: nil, controller: .init(depth: 16, bufferByteCount: 65536)))
    return Bed(host: host, bus: bus, workers: workers, controller: controller)
  }

  static func pattern(_ count: Int, seed: UInt8) -> [UInt8] {
    (0..<count).map { UInt8(truncatingIfNeeded: $0 &* 31 &+ $0 >> 8) ^ seed }
  }

  static func threeDisks() throws -> SCSIController {
    var controller = SCSIController()
    let attached = [
      controller.attach(try disk("8d1f6a2e-59a6-4a4f-93b7-5f60c0e1a0d0"), lun: 0),
      controller.attach(
        try disk("8d1f6a2e-59a6-4a4f-93b7-5f60c0e1a0d5", blockSize: .bytes4096), lun: 5),
      controller.attach(try disk("8d1f6a2e-59a6-4a4f-93b7-5f60c0e1a0d9", readOnly: true), lun: 9),
    ]
    #expect(attached == [true, true, true])
    return controller
  }

  @Test func severalDisksShareTheChannels() async throws {
    let bed = try await Self.makeBed(StorVSP(Self.threeDisks(), instance: Self.instance))
    let disks = bed.controller.disks
    #expect(disks.map(\.lun) == [0, 5, 9])
    #expect(disks.map(\.information.disk.geometry.blockByteCount) == [512, 4096, 512])
    #expect(disks.map(\.information.disk.isReadOnly) == [false, false, true])
    #expect(Set(disks.map(\.information.disk.serial)).count == 3)
    try await withThrowingTaskGroup(of: Void.self) { group in
      for disk in disks.prefix(2) {
        for task in 0..<8 {
          group.addTask {
            let bytes = Self.pattern(50_001, seed: UInt8(task) ^ disk.lun)
            let offset = UInt64(task) * 50_001
            try await disk.write(at: offset, bytes, forced: task == 0)
            let found = try await disk.read(at: offset, count: bytes.count)
            #expect(found == bytes)
          }
        }
      }
      try await group.waitForAll()
    }
    for disk in disks.prefix(2) { try await disk.flush() }
    #expect(try await disks[2].read(at: 0, count: 4096).allSatisfy { $0 == 0 })
    await #expect(throws: StorageError.readOnly) { try await disks[2].write(at: 0, [1]) }
    await bed.close()
  }

  @Test func zeroesReplaceWhatWasThere() async throws {
    let bed = try await Self.makeBed(StorVSP(Self.threeDisks(), instance: Self.instance))
    for disk in bed.controller.disks.prefix(2) {
      let bytes = Self.pattern(300_000, seed: 1)
      try await disk.write(at: 0, bytes)
      try await disk.writeZeroes(at: 1000, count: 200_000, forced: true)
      let found = try await disk.read(at: 0, count: 300_000)
      #expect(Array(found[0..<1000]) == Array(bytes[0..<1000]))
      #expect(found[1000..<201_000].allSatisfy { $0 == 0 })
      #expect(Array(found[201_000...]) == Array(bytes[201_000...]))
    }
    await bed.close()
  }

  /// A host without subchannels serves a driver with several workers by its primary channel.
  @Test func moreWorkersThanChannels() async throws {
    let bed = try await Self.makeBed(
      workers: 3, StorVSP(Self.threeDisks(), instance: Self.instance))
    #expect(bed.controller.channelCount == 1)
    let disk = try bed.controller.disk(0)
    try await disk.write(at: 0, Self.pattern(100_000, seed: 3))
    #expect(try await disk.read(at: 0, count: 100_000) == Self.pattern(100_000, seed: 3))
    await bed.close()
  }

  // MARK: - Subchannels

  @Test(arguments: [
    (StorageVersion.windows81, UInt16(2), 3), (.windows8, 1, 2), (.windows7, 2, 1),
    (.windowsVista, 2, 1),
  ])
  func eachWorkerHasAChannel(
    _ version: StorageVersion, _ maximum: UInt16, _ channels: Int
  ) async throws {
    let bed = try await Self.makeBed(
      workers: 3,
      StorVSP(
        Self.threeDisks(), instance: Self.instance, newestVersion: version,
        maximumSubchannels: maximum))
    #expect(bed.controller.channelCount == channels)
    #expect(bed.controller.version == "\(version)")
    let disk = try bed.controller.disk(0)
    try await withThrowingTaskGroup(of: Void.self) { group in
      for task in 0..<32 {
        group.addTask {
          // Neighbours share blocks: each writes a part of them.
          let bytes = Self.pattern(10_000, seed: UInt8(task))
          try await disk.write(at: UInt64(task) * 10_000, bytes)
        }
      }
      try await group.waitForAll()
    }
    try await disk.flush()
    for task in 0..<32 {
      let found = try await disk.read(at: UInt64(task) * 10_000, count: 10_000)
      #expect(found == Self.pattern(10_000, seed: UInt8(task)))
    }
    let counters = await bed.controller.counters()
    #expect(counters.count == channels && counters.allSatisfy { $0.channel.sent > 5 })
    await bed.close()
  }

  @Test func theDeviceCanBeOpenedAgain() async throws {
    let bed = try await Self.makeBed(StorVSP(Self.threeDisks(), instance: Self.instance))
    try await bed.controller.disk(0).write(at: 0, Self.pattern(5000, seed: 1))
    await bed.controller.close()
    let transport = try #require(bed.bus.devices.first)
    let again = try await StorageVSC.openController(
      Device(transport, workers: bed.workers), .init(lun: nil))
    #expect(try await again.disk(0).read(at: 0, count: 5000) == Self.pattern(5000, seed: 1))
    await again.close()
    await bed.close()
  }

  // MARK: - Disks that come, go and change

  private func next(
    _ events: AsyncStream<StorageController.Event>
  ) async throws -> StorageController.Event {
    var iterator = events.makeAsyncIterator()
    return try #require(await iterator.next())
  }

  @Test func disksComeAndGo() async throws {
    let vsp = StorVSP(
      try Self.threeDisks(), instance: Self.instance, maximumSubchannels: 1)
    let bed = try await Self.makeBed(workers: 2, vsp)
    let events = bed.controller.events()
    vsp.attach(try Self.disk("8d1f6a2e-59a6-4a4f-93b7-5f60c0e1a0e1"), lun: 33)
    guard case .added(let disk) = try await next(events) else {
      Issue.record("no disk came")
      return await bed.close()
    }
    #expect(disk.lun == 33)
    try await disk.write(at: 0, Self.pattern(5000, seed: 4))
    vsp.detach(lun: 33)
    guard case .removed(lun: 33) = try await next(events) else {
      Issue.record("no disk went")
      return await bed.close()
    }
    await disk.waitUntilEnded()
    #expect(disk.ended == .removed(lun: 33))
    #expect(bed.controller.disks.map(\.lun) == [0, 5, 9])
    await bed.close()
  }

  @Test func aDiskThatGrows() async throws {
    let path = socketPath("grows") + ".img"
    let file = try FileDescriptor.open(
      FilePath(path), .readWrite, options: [.create, .truncate], permissions: .ownerReadWrite)
    defer {
      try? file.close()
      removeFile(path)
    }
    try file.resize(to: Int64(Self.megabyte))
    var controller = SCSIController()
    let attached = controller.attach(
      try SCSIDisk(try DiskImage.open(path: path), identity: Self.instance), lun: 0)
    #expect(attached)
    let vsp = StorVSP(controller, instance: Self.instance)
    let bed = try await Self.makeBed(vsp)
    let disk = try bed.controller.disk(0)
    let events = bed.controller.events()
    #expect(disk.byteCount == Self.megabyte)
    try file.resize(to: Int64(2 * Self.megabyte))
    vsp.rescan()
    guard case .resized(let resized, from: Self.megabyte) = try await next(events) else {
      Issue.record("the disk did not grow")
      return await bed.close()
    }
    #expect(resized === disk && disk.byteCount == 2 * Self.megabyte)
    try await disk.write(at: 2 * Self.megabyte - 5, [1, 2, 3, 4, 5])
    #expect(try await disk.read(at: 2 * Self.megabyte - 5, count: 5) == [1, 2, 3, 4, 5])
    await bed.close()
  }

  // MARK: - Provisioning

  @Test func aThinDiskGivesBlocksBack() async throws {
    let bed = try await Self.makeBed(StorVSP(Self.threeDisks(), instance: Self.instance))
    for disk in bed.controller.disks.prefix(2) {
      let provisioning = disk.information.disk.provisioning
      #expect(provisioning.canUnmap && provisioning.canFill && provisioning.isThin)
      let bytes = Self.pattern(300_000, seed: 1)
      try await disk.write(at: 0, bytes)
      try await disk.discard(at: 8192, count: 65536)
      #expect(try await disk.read(at: 0, count: 8192) == Array(bytes[0..<8192]))
      if provisioning.readsZeros {
        #expect(try await disk.read(at: 8192, count: 65536).allSatisfy { $0 == 0 })
      }
      let end = 8192 + 65536
      #expect(try await disk.read(at: UInt64(end), count: 4096) == Array(bytes[end..<end + 4096]))
      try await disk.writeZeroes(at: 100_000, count: 100_000, onlyFast: true)
      #expect(try await disk.read(at: 100_000, count: 100_000).allSatisfy { $0 == 0 })
    }
    await bed.close()
  }

  // MARK: - Faults

  @Test func errorsOfADiskAreTypedAndRetried() async throws {
    let vsp = StorVSP(try Self.threeDisks(), instance: Self.instance)
    let bed = try await Self.makeBed(vsp)
    let disk = try bed.controller.disk(0)
    // The disks have told each of their power on.
    let before = await bed.controller.counters().map(\.retries)
    vsp.withFaults(lun: 0) {
      $0.inject(StorageFault(.device(.busy), count: 2))
      $0.inject(StorageFault(.sense(SCSISense(key: .abortedCommand)), count: 2))
      $0.inject(StorageFault(.request(.busReset), count: 1))
    }
    try await disk.write(at: 0, Self.pattern(512, seed: 1))
    #expect(try await disk.read(at: 0, count: 512) == Self.pattern(512, seed: 1))
    let counters = await bed.controller.counters()
    #expect(counters.map(\.retries) == before.map { $0 + 5 })
    vsp.withFaults(lun: 0) { $0.inject(StorageFault(.sense(.unrecoveredRead), count: 1)) }
    await #expect(
      throws: StorageError.failed(.error.withSense, .checkCondition, .unrecoveredRead)
    ) { try await disk.read(at: 0, count: 512) }
    await bed.close()
  }

  /// A host that claims more than it moved.
  @Test func aLengthThatLiesIsNotBelieved() async throws {
    let vsp = StorVSP(try Self.threeDisks(), instance: Self.instance)
    let bed = try await Self.makeBed(vsp)
    let disk = try bed.controller.disk(0)
    try await disk.write(at: 0, Self.pattern(4096, seed: 1))
    vsp.withFaults(lun: 0) { $0.inject(StorageFault(.overstate(1 << 20), count: 1)) }
    #expect(try await disk.read(at: 0, count: 4096) == Self.pattern(4096, seed: 1))
    await bed.close()
  }
}
