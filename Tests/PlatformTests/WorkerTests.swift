// SPDX-License-Identifier: Apache-2.0

import Synchronization
import Testing

@testable import Platform

/// Counts up to a limit, asleep until it is woken.
private struct Counter: Pollable, ~Copyable {
  let tickets: Tickets
  var taken = 0

  mutating func poll(budget: Int) -> Int? {
    let found = tickets.take(budget)
    taken += found
    return taken >= tickets.limit ? nil : found
  }

  mutating func arm() -> Bool { tickets.available }
  mutating func disarm() {}
}

private final class Tickets: Sendable {
  let left = Atomic<Int>(0)
  let limit: Int

  init(limit: Int) { self.limit = limit }

  var available: Bool { left.load(ordering: .sequentiallyConsistent) > 0 }

  func take(_ budget: Int) -> Int {
    let found = min(left.load(ordering: .sequentiallyConsistent), budget)
    if found > 0 { left.subtract(found, ordering: .sequentiallyConsistent) }
    return found
  }
}

private final class Dropped: Sendable {
  let count = Atomic<Int>(0)
}

@Suite struct WorkerTests {
  @Test func pollsUntilFinishedAndTellsWhenItWasDropped() async throws {
    let worker = try Worker(.init(name: "test", spinRounds: 10))
    let tickets = Tickets(limit: 10_000)
    let wake = try EventDescriptor()
    let descriptor = wake.rawValue
    await withCheckedContinuation { ended in
      worker.watch(descriptor) { EventDescriptor.drain(descriptor) }
      _ = worker.attach(Counter(tickets: tickets)) { ended.resume() }
      for _ in 0..<100 {
        tickets.left.add(100, ordering: .sequentiallyConsistent)
        wake.signal()
      }
    }
    #expect(worker.account.unitsOfWork <= 10_001)
    worker.stop()
  }

  @Test func detachedAndStoppedValuesAreDropped() async throws {
    let worker = try Worker(.init(name: "test", spinRounds: 0))
    await withCheckedContinuation { ended in
      worker.attach(Counter(tickets: Tickets(limit: 1))) { ended.resume() }.detach()
    }
    let dropped = Dropped()
    _ = worker.attach(Counter(tickets: Tickets(limit: 1))) {
      dropped.count.add(1, ordering: .relaxed)
    }
    worker.stop()
    #expect(dropped.count.load(ordering: .relaxed) == 1)
  }

  @Test func whatComesAfterTheStopIsDroppedToo() async throws {
    let worker = try Worker(.init(name: "test", spinRounds: 0))
    await withCheckedContinuation { ended in
      // In one batch: the worker is in this call until both are in the mailbox.
      worker.post {
        worker.deliver(.stop)
        _ = worker.attach(Counter(tickets: Tickets(limit: 1))) { ended.resume() }
      }
    }
    worker.stop()
  }

  @Test func aStoppedWorkerLetsGoOfWhoHoldsIt() throws {
    weak var gone: Worker?
    let wake = try EventDescriptor()
    let descriptor = wake.rawValue
    do {
      let worker = try Worker(.init(name: "test", spinRounds: 0))
      gone = worker
      worker.watch(descriptor) { worker.unwatch(descriptor) }
      worker.stop()
    }
    #expect(gone == nil)
  }

  @Test func asyncWorkRunsOnTheWorkersThread() async throws {
    let worker = try Worker(.init(name: "test", spinRounds: 0))
    let onWorker = await withTaskExecutorPreference(worker) {
      await Task.yield()
      return worker.isCurrent
    }
    #expect(onWorker)
    #expect(!worker.isCurrent)
    worker.stop()
  }

  @Test func aProcessorThatIsNotThereIsRefused() {
    #expect(throws: (any Error).self) { try Worker(.init(name: "test", cpu: 100_000)) }
    #expect(throws: (any Error).self) { try Worker(.init(name: "test", cpu: -1)) }
  }
}
