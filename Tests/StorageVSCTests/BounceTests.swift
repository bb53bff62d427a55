// SPDX-License-Identifier: Apache-2.0

import Platform
import StorageProtocol
import Synchronization
import TestSupport
import Testing

@testable import StorageVSC
@testable import VMBus
@testable import VSC

/// What the driver does with memory that the host sees.
@Suite(.serialized) struct BounceTests {
  @Test func whatWasExposedIsGoneAndNoMoreIsScrubbed() async throws {
    let machine = try await Machine()
    let disk = try machine.disk
    let before = try #require(await disk.memoryStatistics())
    let secret = [UInt8](repeating: 0xA5, count: 4096)
    try await disk.write(at: 8192, secret)
    #expect(try await disk.read(at: 8192, count: 4096) == secret)
    let after = try #require(await disk.memoryStatistics())
    #expect(after.copiedIn - before.copiedIn == 4096)
    #expect(after.copiedOut - before.copiedOut == 4096)
    #expect(after.scrubbed - before.scrubbed == 8192)
    #expect(after.inUse == 0 && machine.transport.usedByteCount == 0)
  }

  /// One block of memory for eight requests at a time.
  @Test func requestsWaitForMemoryAndAllOfThemEnd() async throws {
    let machine = try await Machine(poolByteCount: 65536)
    let disk = try machine.disk
    let counts = [512, 1, 40_000, 4096, 70_000, 513, 8192, 65536]
    try await withThrowingTaskGroup(of: Void.self) { group in
      for (task, count) in counts.enumerated() {
        group.addTask {
          let start = UInt64(task) * 100_001
          for round in 0..<20 {
            let bytes = [UInt8](repeating: UInt8(task * 20 + round + 1), count: count)
            try await disk.write(at: start, bytes)
            #expect(try await disk.read(at: start, count: count) == bytes)
          }
        }
      }
      try await group.waitForAll()
    }
    let memory = try #require(await disk.memoryStatistics())
    #expect(memory.waits > 0 && memory.highWater == 65536 && memory.byteCount == 65536)
    #expect(memory.inUse == 0 && machine.transport.usedByteCount == 0)
  }

  @Test func aCancelledRequestKeepsItsMemoryUntilItsCompletion() async throws {
    let machine = try await Machine()
    let disk = try machine.disk
    machine.shared.control.withLock { $0.isSilent = true }
    let seen = machine.shared.control.withLock { $0.requests }
    let task = Task { try await disk.write(at: 0, [UInt8](repeating: 0xA5, count: 512)) }
    await machine.waitForRequests(seen + 1)
    task.cancel()
    await #expect(throws: StorageError.cancelled) { try await task.value }
    // The device may read it still.
    let kept = try #require(await disk.memoryStatistics())
    #expect(kept.inUse == 512 && machine.transport.usedByteCount == 512)
    let id = try #require(machine.shared.control.withLock { $0.requestIDs.last })
    machine.tell(reply(moved: 512), id: id, type: .completion)
    while try #require(await disk.memoryStatistics()).inUse > 0 { await Task.yield() }
    #expect(machine.transport.usedByteCount == 0)
  }

  /// The same calls as in `StorageQueueTests`, on a channel whose DMA memory is encrypted.
  @Test func encryptedMemoryIsGivenToTheDeviceAsItIs() async throws {
    var plain = try await Bed()
    try plain.start()
    let agreement = try unwrap(plain.queue.agreement)
    let transport = try ScriptedTransport(confidentiality: .ringAndExternalMemory)
    let worker = try Worker(Worker.Configuration(name: "test", spinRounds: 0))
    defer { worker.stop() }
    let device = Device(transport, workers: [worker])
    guard case .encrypted(let channel) = try await device.open(ChannelParameters(), on: worker)
    else { throw NoValue() }
    var pool: DMAPool<Encrypted> = try device.makePool(count: 2, byteCount: 65536)
    var queue = StorageQueue(subchannel: channel, .init(depth: 2), agreement)
    var host = try ScriptedHost(transport)
    var buffer = pool.take(4096)
    buffer?.withMutableBytes(4096) { $0.storeBytes(of: 0x5A, as: UInt8.self) }
    try queue.write(at: 0, blockCount: 8, from: &buffer, tag: 1)
    queue.publish()
    let packet = try #require(try host.receive())
    let first = unsafe packet.memory.first
    #expect(first == 0x5A)
    try host.send(reply(moved: 4096), id: packet.id)
    var completion = try unwrap(queue.next())
    expectSome(completion.buffer)
    completion.buffer = nil
    let memory = pool.statistics
    #expect(memory.copiedIn == 0 && memory.copiedOut == 0 && memory.scrubbed == 0)
    #expect(memory.inUse == 0 && memory.highWater == 65536)
  }
}
