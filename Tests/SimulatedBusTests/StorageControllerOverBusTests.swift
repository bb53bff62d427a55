// SPDX-License-Identifier: Apache-2.0

import SimulatedBus
import SimulatedHost
import StorageVSC
import Testing
import VSC

/// A controller with several disks of the simulated host.
@Suite(.timeLimit(.minutes(2))) struct StorageControllerOverBusTests {
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
}
