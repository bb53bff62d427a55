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

/// Does nothing in its polls but count them; from a poll on, which it is told of, it waits for something.
private struct Waiter: Pollable, ~Copyable {
  let state: Waiting
  var waits = false

  mutating func poll(budget: Int) -> Int? {
    waits = state.mustWait.load(ordering: .relaxed)
    return 0
  }

  mutating func arm() -> Bool {
    if waits { state.isAsked.store(true, ordering: .relaxed) }
    state.arms.add(1, ordering: .relaxed)
    return false
  }

  mutating func disarm() {}
}

private final class Waiting: Sendable {
  let mustWait = Atomic<Bool>(false)
  let isAsked = Atomic<Bool>(false)
  let arms = Atomic<Int>(0)
}

private func eventually(_ condition: () -> Bool) async throws -> Bool {
  for _ in 0..<2000 {
    if condition() { return true }
    try await Task.sleep(for: .milliseconds(5))
  }
  return false
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

  @Test func whatBeginsToWaitInAPollWithoutWorkIsArmedForIt() async throws {
    let worker = try Worker(.init(name: "test", spinRounds: 0))
    let state = Waiting()
    _ = worker.attach(Waiter(state: state))
    #expect(try await eventually { state.arms.load(ordering: .relaxed) > 0 })
    // The poll that this wakes up for does no work, and the value is armed already.
    worker.post { state.mustWait.store(true, ordering: .relaxed) }
    #expect(try await eventually { state.isAsked.load(ordering: .relaxed) })
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
