// SPDX-License-Identifier: Apache-2.0

import Platform
import StorageProtocol
import Synchronization
import Testing

@testable import StorageVSC
@testable import VMBus
@testable import VSC

@Suite(.serialized) struct BlockDeviceTests {
  @Test func tellsWhatItIs() async throws {
    let machine = try await Machine()
    let information = try machine.disk.information
    #expect(information.disk.product == "Virtual Disk" && information.channelCount == 1)
    #expect(try machine.disk.byteCount == 1 << 20)
    #expect(information.disk.geometry.physicalBlockByteCount == 4096)
    #expect(information.disk.hasWriteCache == true && information.disk.isRotating == nil)
    #expect(information.ringMemory == .hostVisible && information.isBounced)
  }

  @Test(arguments: [
    (0, 512), (0, 1 << 20), (1, 1), (511, 2), (100, 70000), (1 << 20 - 1, 1), (65536, 131072),
    (513, 511), (4096, 0), (1 << 20, 0),
  ])
  func readsAnyBytes(offset: Int, count: Int) async throws {
    let machine = try await Machine()
    let read = try await machine.disk.read(at: UInt64(offset), count: count)
    #expect(read == Array(machine.shared.bytes[offset..<offset + count]))
    #expect(machine.shared.control.withLock { $0.largest } <= 65536)
  }

  @Test(arguments: [
    (0, 512), (1, 1), (511, 2), (100, 70000), (1 << 20 - 1, 1), (65536, 131072), (513, 511),
    (512, 1000), (3, 3000), (4096, 0),
  ])
  func writesAnyBytesAndNoOthers(offset: Int, count: Int) async throws {
    let machine = try await Machine()
    var expected = machine.shared.bytes
    let new = [UInt8](repeating: 0xEE, count: count)
    expected.replaceSubrange(offset..<offset + count, with: new)
    try await machine.disk.write(at: UInt64(offset), new)
    #expect(machine.shared.bytes == expected)
  }

  @Test func partsOfOneBlockWrittenAtOnceDoNotUndoEachOther() async throws {
    let machine = try await Machine()
    let disk = try machine.disk
    try await withThrowingTaskGroup(of: Void.self) { group in
      for index in 0..<512 {
        group.addTask { try await disk.write(at: UInt64(index), [UInt8(index & 0xFF) ^ 0x5A]) }
      }
      try await group.waitForAll()
    }
    let first = Array(machine.shared.bytes[0..<512])
    #expect(first == (0..<512).map { UInt8($0 & 0xFF) ^ 0x5A })
  }

  @Test func threadsMayWait() async throws {
    let machine = try await Machine()
    var bytes = [UInt8](repeating: 0, count: 5000)
    try unsafe bytes.withUnsafeMutableBytes { try unsafe machine.disk.read(at: 77, into: $0) }
    #expect(bytes == Array(machine.shared.bytes[77..<5077]))
    let new = [UInt8](repeating: 1, count: 2000)
    try unsafe new.withUnsafeBytes { try unsafe machine.disk.write(at: 9, from: $0) }
    #expect(Array(machine.shared.bytes[9..<2009]) == new)
    let disk = try machine.disk
    func flush() throws { try disk.flush() }
    try flush()
    #expect(machine.shared.control.withLock { $0.flushes } == 1)
  }

  @Test func tasksResumeOnTheWorkerWhenItIsTheirExecutor() async throws {
    let machine = try await Machine()
    let (disk, worker) = (try machine.disk, machine.worker)
    let isThere = try await Task(executorPreference: worker) {
      _ = try await disk.read(at: 0, count: 512)
      return worker.isCurrent
    }.value
    #expect(isThere)
    let refused = await Task(executorPreference: worker) {
      func flush() -> StorageError? {
        do { try disk.flush() } catch { return error }
        return nil
      }
      return flush()
    }.value
    #expect(refused == .onWorkerThread)
  }

  @Test func whatIsNotOnTheDiskIsRefused() async throws {
    let machine = try await Machine()
    for (offset, count) in [(UInt64(1 << 20), 1), (1 << 20 - 1, 2), (.max, 1), (0, 1 << 20 + 1)] {
      await #expect(throws: StorageError.self) {
        _ = try await machine.disk.read(at: offset, count: count)
      }
      await #expect(throws: StorageError.self) {
        try await machine.disk.write(at: offset, [UInt8](repeating: 0, count: count))
      }
    }
    #expect(machine.shared.control.withLock { $0.requests } == 0)
  }

  @Test func aReadOnlyDiskTakesNoWrites() async throws {
    let machine = try await Machine { $0.readOnly = true }
    await #expect(throws: StorageError.readOnly) { try await machine.disk.write(at: 0, [1]) }
    _ = try await machine.disk.read(at: 0, count: 1)
  }

  @Test func aBusyDiskIsAskedAgain() async throws {
    let machine = try await Machine()
    machine.shared.control.withLock { $0.busy = 3 }
    let bytes = try await machine.disk.read(at: 0, count: 512)
    #expect(bytes == Array(machine.shared.bytes[0..<512]))
    machine.shared.control.withLock { $0.busy = 1000 }
    await #expect(throws: StorageError.failed(.success, .busy, nil)) {
      _ = try await machine.disk.read(at: 0, count: 512)
    }
  }

  @Test(arguments: [ChannelEnd.hostGone, .rescinded])
  func theEndReachesEverybody(_ reason: ChannelEnd) async throws {
    let machine = try await Machine(depth: 4)
    let disk = try machine.disk
    machine.shared.control.withLock { $0.isSilent = true }
    let tasks = (0..<20).map { index in
      Task {
        do {
          _ = try await disk.read(at: UInt64(index) * 512, count: 100_000)
          return StorageError?.none
        } catch let error as StorageError {
          return error
        }
      }
    }
    while machine.shared.control.withLock({ $0.requests }) < 4 { await Task.yield() }
    machine.transport.end(reason)
    for task in tasks {
      let error = try await task.value
      #expect(error == .channel(.ended(reason)))
    }
    await disk.waitUntilEnded()
    await #expect(throws: StorageError.channel(.ended(reason))) { try await disk.flush() }
    #expect(disk.ended == .channel(.ended(reason)))
  }

  @Test func aCancelledTaskDoesNotWait() async throws {
    let machine = try await Machine()
    let disk = try machine.disk
    machine.shared.control.withLock { $0.isSilent = true }
    let task = Task { try await disk.read(at: 0, count: 512) }
    while machine.shared.control.withLock({ $0.requests }) == 0 { await Task.yield() }
    task.cancel()
    let result = await task.result
    #expect(throws: StorageError.cancelled) { try result.get() }
    machine.shared.control.withLock { $0.isSilent = false }
    // The disk goes on.
    _ = try await disk.read(at: 0, count: 512)
  }

  @Test func aSilentHostMakesTimeoutsEvenForThoseThatWait() async throws {
    let machine = try await Machine(timeout: 1_000_000_000, depth: 2)
    let disk = try machine.disk
    machine.shared.control.withLock { $0.isSilent = true }
    let tasks = (0..<6).map { index in
      Task { try await disk.read(at: UInt64(index) * 512, count: 512) }
    }
    for task in tasks {
      let result = await task.result
      #expect(throws: StorageError.timedOut) { try result.get() }
    }
  }

  @Test func closingAndStoppingLeaveNobodyWaiting() async throws {
    let machine = try await Machine()
    let disk = try machine.disk
    machine.shared.control.withLock { $0.isSilent = true }
    let task = Task { try await disk.read(at: 0, count: 512) }
    while machine.shared.control.withLock({ $0.requests }) == 0 { await Task.yield() }
    await machine.controller.close()
    let result = await task.result
    #expect(throws: StorageError.channel(.ended(.closed))) { try result.get() }
    machine.worker.stop()
    await #expect(throws: StorageError.self) { try await disk.flush() }
    #expect(await disk.counters() == nil)
  }
}
