// SPDX-License-Identifier: Apache-2.0

import Platform
import StorageProtocol
import Synchronization
import Testing

@testable import StorageVSC
@testable import VMBus
@testable import VSC

@Suite(.serialized) struct SubchannelTests {
  @Test func eachFurtherWorkerGetsAChannel() async throws {
    let machine = try await Machine(channels: 3)
    #expect(machine.controller.channelCount == 3)
    // CREATE_SUB_CHANNELS once, after END_INITIALIZATION, for two.
    let controls = machine.shared.control.withLock { $0.controls.map { Array($0.prefix(14)) } }
    #expect(controls.map(\.first) == [7, 9, 10, 8, 13])
    #expect(controls.last == [13, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 2, 0])
    for index in 0..<30 { _ = try await machine.disk.read(at: UInt64(index) * 512, count: 512) }
    // In turns.
    #expect(machine.shared.control.withLock { $0.commands.map(\.count) } == [10, 10, 10, 0])
  }

  @Test func aCallerOnAWorkerUsesItsChannel() async throws {
    let machine = try await Machine(channels: 2)
    let disk = try machine.disk
    try await Task(executorPreference: machine.workers[1]) {
      for index in 0..<10 { _ = try await disk.read(at: UInt64(index) * 512, count: 512) }
    }.value
    #expect(machine.shared.control.withLock { $0.commands.map(\.count) } == [0, 10, 0, 0])
  }

  @Test(arguments: [(0, true, 3, 1), (1, true, 3, 2), (2, false, 3, 1), (2, true, 2, 2)])
  func fewerThanWantedAreEnough(
    _ maximum: UInt8, _ grants: Bool, _ offered: Int, _ channels: Int
  ) async throws {
    let machine = try await Machine(channels: 3, offered: offered) {
      $0.maximumSubchannels = maximum
      $0.grantsSubchannels = grants
    }
    #expect(machine.controller.channelCount == channels)
    let bytes = try await machine.disk.read(at: 0, count: 5000)
    #expect(bytes == Array(machine.shared.bytes[0..<5000]))
  }

  @Test(arguments: [0, 1, 2]) func oneEndEndsAll(_ channel: Int) async throws {
    let machine = try await Machine(channels: 3)
    let disk = try machine.disk
    machine.shared.control.withLock { $0.isSilent = true }
    let tasks = (0..<12).map { index in
      Task {
        do {
          _ = try await disk.read(at: UInt64(index) * 512, count: 512)
          return StorageError?.none
        } catch let error as StorageError {
          return error
        }
      }
    }
    await machine.waitForRequests(12)
    machine.transport.end(.rescinded, channel: channel)
    for task in tasks {
      let error = try await task.value
      #expect(error == .channel(.ended(.rescinded)))
    }
    await machine.controller.waitUntilEnded()
    #expect(disk.ended == .channel(.ended(.rescinded)))
    #expect(machine.controller.disks.isEmpty)
  }

  /// A write to a part of a block must not undo another one that went over another channel.
  @Test func partsOfOneBlockAreSafeOverSeveralChannels() async throws {
    let machine = try await Machine(channels: 3)
    let disk = try machine.disk
    try await withThrowingTaskGroup(of: Void.self) { group in
      for index in 0..<512 {
        group.addTask { try await disk.write(at: 100 + UInt64(index), [UInt8(index & 0xFF)]) }
        if index % 64 == 0 {
          // A whole block beside them.
          group.addTask { try await disk.write(at: 4096, [UInt8](repeating: 9, count: 512)) }
        }
      }
      try await group.waitForAll()
    }
    let bytes = machine.shared.bytes
    #expect(Array(bytes[100..<612]) == (0..<512).map { UInt8($0 & 0xFF) })
    #expect(bytes[4096..<4608].allSatisfy { $0 == 9 })
  }

  @Test func aFlushGoesToTheDiskOnce() async throws {
    let machine = try await Machine(channels: 2)
    try await machine.disk.write(at: 0, [UInt8](repeating: 1, count: 512))
    try await machine.disk.write(at: 512, [UInt8](repeating: 1, count: 512))
    try await machine.disk.flush()
    #expect(machine.shared.control.withLock { $0.flushes } == 1)
  }
}
