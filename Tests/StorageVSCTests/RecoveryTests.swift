// SPDX-License-Identifier: Apache-2.0

import Platform
import StorageProtocol
import Synchronization
import Testing

@testable import StorageVSC
@testable import VMBus
@testable import VSC

@Suite(.serialized) struct RecoveryTests {
  @Test func aUnitIsResetThenTheBusThenTheChannelIsGivenUp() {
    var recovery = Recovery(grace: 10)
    #expect(recovery.timedOut(3) == .reset(.resetLUN, lun: 3))
    // One at a time.
    #expect(recovery.timedOut(3) == .none)
    #expect(recovery.answered(false, now: 100) == .reset(.resetBus, lun: 0))
    #expect(recovery.answered(false, now: 200) == .giveUp)
  }

  @Test func requestsThatComeBackNeedNoMore() {
    var recovery = Recovery(grace: 10)
    #expect(recovery.timedOut(3) == .reset(.resetLUN, lun: 3))
    #expect(recovery.answered(true, now: 100) == .none)
    #expect(recovery.deadline == 110)
    #expect(recovery.expire(now: 109, missing: 1) == .none)
    #expect(recovery.expire(now: 110, missing: 0) == .none)
    #expect(recovery.isIdle && recovery.deadline == .max)
  }

  @Test func thoseThatDoNotComeBackNeedTheBus() {
    var recovery = Recovery(grace: 10)
    #expect(recovery.timedOut(3) == .reset(.resetLUN, lun: 3))
    #expect(recovery.answered(true, now: 100) == .none)
    #expect(recovery.expire(now: 110, missing: 1) == .reset(.resetBus, lun: 0))
    // The host lives and has lost a completion.
    #expect(recovery.answered(true, now: 120, missing: 1) == .none)
    #expect(recovery.isIdle)
    // The lost one does not count any more.
    #expect(recovery.timedOut(4) == .reset(.resetLUN, lun: 4))
    #expect(recovery.answered(true, now: 200) == .none)
    #expect(recovery.expire(now: 210, missing: 1) == .none)
    #expect(recovery.isIdle)
  }

  @Test func anotherUnitHasItsTurn() {
    var recovery = Recovery(grace: 10)
    #expect(recovery.timedOut(3) == .reset(.resetLUN, lun: 3))
    #expect(recovery.timedOut(4) == .none)
    #expect(recovery.answered(true, now: 0) == .none)
    #expect(recovery.expire(now: 10, missing: 0) == .reset(.resetLUN, lun: 4))
  }

  @Test func aLateRequestHasItsUnitReset() async throws {
    let machine = try await Machine(timeout: 1_000_000_000, resetTimeout: 2_000_000_000)
    let disk = try machine.disk
    machine.shared.control.withLock { $0.isSilent = true }
    await #expect(throws: StorageError.timedOut) { _ = try await disk.read(at: 0, count: 512) }
    machine.shared.control.withLock { $0.isSilent = false }
    let controls = { machine.shared.control.withLock { $0.controls.dropFirst(4).map { $0[0] } } }
    // RESET_LUN, and since the request does not come back, RESET_BUS.
    while controls().count < 2 { await Task.yield() }
    #expect(controls() == [4, 6])
    // The disk goes on, and the lost request keeps its memory.
    #expect(try await disk.read(at: 0, count: 512) == Array(machine.shared.bytes[0..<512]))
    let counters = try #require(await machine.controller.counters().first)
    #expect(counters.abandoned == 1 && counters.timeouts == 1 && counters.resets == 2)
  }

  @Test func aLateCompletionIsDroppedAndCounted() async throws {
    // The resets are answered in time, also on a slow machine: their answers are not late.
    let machine = try await Machine(timeout: 1_000_000_000, resetTimeout: 30_000_000_000)
    let disk = try machine.disk
    machine.shared.control.withLock { $0.isSilent = true }
    await #expect(throws: StorageError.timedOut) { _ = try await disk.read(at: 0, count: 512) }
    // The id of the first request after the start-up: the one slot that is in use.
    let id = try #require(
      machine.shared.control.withLock { control -> UInt64? in
        control.isSilent = false
        return control.requestIDs.last
      })
    machine.tell(reply(moved: 512), id: id, type: .completion)
    var counters = StorageCounters()
    while counters.late == 0 {
      counters = try #require(await machine.controller.counters().first)
    }
    #expect(counters.late == 1 && counters.abandoned == 0)
    // Once more is once too often.
    machine.tell(reply(moved: 512), id: id, type: .completion)
    while counters.channel.unknownCompletions == 0 {
      counters = try #require(await machine.controller.counters().first)
    }
    #expect(counters.late == 1)
  }

  @Test func aHostThatAnswersNothingIsGivenUp() async throws {
    let machine = try await Machine(timeout: 100_000_000, resetTimeout: 50_000_000, channels: 2)
    let disk = try machine.disk
    machine.shared.control.withLock {
      $0.isSilent = true
      $0.ignoresResets = true
    }
    let tasks = (0..<40).map { index in
      Task { () -> StorageError? in
        do throws(StorageError) {
          _ = try await disk.read(at: UInt64(index) * 512, count: 512)
          return nil
        } catch {
          return error
        }
      }
    }
    for task in tasks {
      let error = await task.value
      #expect(error == .timedOut || error == .unresponsive)
    }
    await machine.controller.waitUntilEnded()
    #expect(machine.controller.ended == .unresponsive)
    await #expect(throws: StorageError.unresponsive) { try await disk.flush() }
  }
}
