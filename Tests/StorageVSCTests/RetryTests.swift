// SPDX-License-Identifier: Apache-2.0

import Platform
import StorageProtocol
import Synchronization
import Testing

@testable import StorageVSC
@testable import VMBus
@testable import VSC

@Suite(.serialized) struct RetryTests {
  /// What is sent again without anybody noticing.
  @Test(arguments: [
    reply(scsi: 0x08), reply(scsi: 0x28), reply(scsi: 0x40), reply(srb: 0x05), reply(srb: 0x02),
    reply(srb: 0x0E), check(0x6, 0x29), check(0xB, 0x00), check(0x2, 0x04, 0x01),
  ])
  func transientErrorsArePassedOver(_ failure: [UInt8]) async throws {
    let machine = try await Machine()
    machine.shared.control.withLock { $0.failures = [failure, failure] }
    try await machine.disk.write(at: 0, [UInt8](repeating: 7, count: 512))
    machine.shared.control.withLock { $0.failures = [failure] }
    #expect(try await machine.disk.read(at: 0, count: 512).allSatisfy { $0 == 7 })
    let counters = await machine.controller.counters()
    #expect(counters.map(\.retries) == [3])
  }

  /// What says the same the next time is told at once.
  @Test(arguments: [
    (check(0x3, 0x11), StorageFailure.medium), (check(0x4, 0x44), .hardware),
    (check(0x5, 0x24), .illegalRequest), (check(0x7, 0x27), .writeProtected),
    (check(0x7, 0x27, 0x07), .outOfSpace), (check(0xE, 0x1D), .miscompare),
    (check(0x2, 0x3A), .notReady), (reply(scsi: 0x18), .reservationConflict),
    (reply(srb: 0x0B), .hostTimeout), (check(0x9, 0x80), .other),
  ])
  func finalErrorsAreTold(_ answer: [UInt8], _ failure: StorageFailure) async throws {
    let machine = try await Machine()
    machine.shared.control.withLock { $0.failures = [answer] }
    let disk = try machine.disk
    do throws(StorageError) {
      try await disk.write(at: 0, [UInt8](repeating: 7, count: 512))
      Issue.record("no error")
    } catch {
      #expect(error.failure == failure)
    }
    #expect(machine.shared.control.withLock { $0.requests } == 1)
  }

  @Test func retriesHaveALimit() async throws {
    let machine = try await Machine(retry: RetryPolicy(limit: 3, delay: 1000))
    machine.shared.control.withLock { $0.busy = 100 }
    await #expect(throws: StorageError.failed(.success, .busy, nil)) {
      _ = try await machine.disk.read(at: 0, count: 512)
    }
    #expect(machine.shared.control.withLock { $0.requests } == 4)
  }

  @Test func theWaitGrowsToItsLimit() {
    let policy = RetryPolicy(limit: 5, delay: 10, maximumDelay: 60)
    let busy = StorageError.failed(.success, .busy, nil)
    let waits = (0...5).map { policy.wait(busy, attempts: $0, isIdempotent: false) }
    #expect(waits == [10, 20, 40, 60, 60, nil])
    let attention = StorageError.failed(
      .success, .checkCondition, SCSISense(key: .unitAttention, code: 0x29))
    #expect(policy.wait(attention, attempts: 4, isIdempotent: false) == 0)
    #expect(policy.wait(.timedOut, attempts: 0, isIdempotent: true) == nil)
    let large = RetryPolicy(limit: 99, delay: .max, maximumDelay: 7)
    #expect(large.wait(busy, attempts: 98, isIdempotent: true) == 7)
  }

  /// It may have been executed in part: only what can be done twice is done again.
  @Test func anAbortedCommandIsRepeatedOnlyIfThatIsHarmless() {
    let policy = RetryPolicy()
    for error in [
      StorageError.failed(.aborted, .good, nil), .failed(.success, .taskAborted, nil),
      .failed(.success, .checkCondition, SCSISense(key: .abortedCommand)),
    ] {
      #expect(policy.wait(error, attempts: 0, isIdempotent: true) != nil)
      #expect(policy.wait(error, attempts: 0, isIdempotent: false) == nil)
    }
  }
}
