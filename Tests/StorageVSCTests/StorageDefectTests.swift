// SPDX-License-Identifier: Apache-2.0

import Platform
import Synchronization
import TestSupport
import Testing

@testable import StorageVSC
@testable import VMBus
@testable import VSC

/// What other drivers are known to get wrong, one test each; the rest of them is in
/// `StorageQueueTests`: unknown ids, a full ring, a host that never answers its start-up.
@Suite(.serialized) struct StorageDefectTests {
  @Test func aRepeatedCompletionEndsItsRequestOnce() async throws {
    var bed = try await Bed()
    try bed.start()
    let first = try bed.sendRead(tag: 1)
    _ = try bed.sendRead(tag: 2)
    for _ in 0..<3 { try bed.host.send(reply(moved: 512), id: first.id) }
    let completion = try unwrap(bed.queue.next())
    #expect(completion.tag == 1)
    expectNone(bed.queue.next())
    #expect(bed.queue.counters.unknownCompletions == 2 && bed.queue.count == 1)
  }

  /// The slot is used again, with another generation: the old id must not end the new request.
  @Test func anIdOfAnEarlierRequestInTheSameSlotIsStale() async throws {
    var bed = try await Bed(depth: 1)
    try bed.start()
    let first = try bed.sendRead(tag: 1)
    try bed.host.send(reply(moved: 512), id: first.id)
    expectSome(bed.queue.next())
    let second = try bed.sendRead(tag: 2)
    try bed.host.send(reply(moved: 512), id: first.id)
    expectNone(bed.queue.next())
    try bed.host.send(reply(moved: 512), id: second.id)
    let completion = try unwrap(bed.queue.next())
    #expect(completion.tag == 2)
  }

  @Test(arguments: [65, 72, 128, 1024]) func aCompletionThatIsTooLongIsTaken(
    _ count: Int
  ) async throws {
    var bed = try await Bed()
    try bed.start()
    let packet = try bed.sendRead()
    let long = reply(moved: 512) + [UInt8](repeating: 0xFF, count: count - 64)
    try bed.host.send(long, id: packet.id)
    let completion = try unwrap(bed.queue.next())
    #expect(completion.result == .success(512))
  }

  /// Larger than a packet may be at all: that is corruption, not a request's error.
  @Test func aCompletionThatNoBufferHoldsEndsTheChannel() async throws {
    var bed = try await Bed()
    try bed.start()
    let packet = try bed.sendRead(tag: 9)
    try bed.host.send([UInt8](repeating: 1, count: 8192), id: packet.id)
    let completion = try unwrap(bed.queue.next())
    #expect(completion.tag == 9)
    #expect(bed.queue.failure != nil)
  }

  @Test(arguments: [0, 1, 511]) func fewerBytesThanAskedForAreAnError(_ moved: Int) async throws {
    let machine = try await Machine()
    machine.shared.control.withLock { $0.failures = [reply(moved: moved)] }
    await #expect(throws: StorageError.shortTransfer(asked: 512, moved: moved)) {
      _ = try await machine.disk.read(at: 0, count: 512)
    }
  }

  /// The host can't have moved more than it was given: what it did not write is the zeros that
  /// were there.
  @Test func moreBytesThanAskedForAreNot() async throws {
    let machine = try await Machine()
    machine.shared.control.withLock { $0.failures = [reply(moved: 1 << 30)] }
    let bytes = try await machine.disk.read(at: 0, count: 512)
    #expect(bytes.allSatisfy { $0 == 0 })
  }

  @Test func aFullRingMakesRequestsWaitAndNothingElse() async throws {
    let machine = try await Machine(depth: 512, bufferByteCount: 4096, ringByteCount: 4096)
    let disk = try machine.disk
    try await withThrowingTaskGroup(of: [UInt8].self) { group in
      for index in 0..<300 {
        group.addTask { try await disk.read(at: UInt64(index) * 512, count: 512) }
      }
      var count = 0
      for try await bytes in group where bytes.count == 512 { count += 1 }
      #expect(count == 300)
    }
  }
}
