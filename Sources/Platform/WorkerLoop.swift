// SPDX-License-Identifier: Apache-2.0

import CLinux
import Synchronization
import SystemPackage

/// What a worker's thread owns. It lives behind a pointer that only that thread follows, so that
/// neither exclusivity nor references need to be checked at run time (law 4).
@safe
struct WorkerLoop: ~Copyable {
  /// Trivial values only, in memory of our own: a round touches no reference count.
  private var entries: UnsafeMutablePointer<PollEntry>
  private var count = 0
  private var capacity = 16
  private var ended: [UInt64: @Sendable () -> Void] = [:]
  private var watched: [Int32: @Sendable () -> Void] = [:]
  private var account = Worker.Account(busyCycles: 0, idleCycles: 0, sleeps: 0, unitsOfWork: 0)
  private var isStopping = false

  private let epoll: Epoll
  private let wake: Int32
  private let budget: Int
  private let spinRounds: Int

  init(_ configuration: Worker.Configuration, _ epoll: consuming Epoll, wake: Int32) {
    unsafe entries = .allocate(capacity: capacity)
    self.epoll = epoll
    self.wake = wake
    budget = max(configuration.budget, 1)
    // On the only processor, whoever would bring work waits until this thread sleeps. What is never to
    // sleep has been asked for.
    let waits = configuration.spinRounds == .max || Self.processorCount > 1
    spinRounds = waits ? max(configuration.spinRounds, 0) : 0
  }

  private static let processorCount = sysconf(Int32(_SC_NPROCESSORS_ONLN))

  deinit { unsafe entries.deallocate() }

  /// The value with that identifier, if it still lives.
  func value(_ identifier: UInt64) -> UnsafeMutableRawPointer? {
    for index in 0..<count where unsafe entries[index].identifier == identifier {
      return unsafe entries[index].value
    }
    return nil
  }

  /// Rounds of polls and deadlines, with sleep when there has been nothing to do for a while, until
  /// mail comes or the loop is over. Mail may call back into this value, so the caller delivers it.
  mutating func run(_ worker: Worker) {
    var idleRounds = 0
    var roundsSinceClock = 0
    var last = vmbus_cycles()
    while !isStopping {
      if worker.hasMail.load(ordering: .relaxed) { return }
      let work = pollAll()
      let now = vmbus_cycles()
      if work > 0 {
        account.busyCycles &+= now &- last
        account.unitsOfWork &+= UInt64(truncatingIfNeeded: work)
        idleRounds = 0
      } else {
        account.idleCycles &+= now &- last
        idleRounds &+= 1
        if idleRounds > spinRounds {
          if !armAll() {
            worker.counters.publish(account)
            sleep()
            roundsSinceClock = 0
          }
          idleRounds = 0
          last = vmbus_cycles()
          continue
        }
        vmbus_pause()
      }
      last = now
      roundsSinceClock &+= 1
      if roundsSinceClock >= 1024 {
        roundsSinceClock = 0
        worker.counters.publish(account)
        expireAll(vmbus_now())
        // A worker that never sleeps must learn too that a device has gone.
        if !watched.isEmpty { drainReady(milliseconds: 0) }
      }
    }
  }

  var isOver: Bool { isStopping }

  private mutating func pollAll() -> Int {
    var work = 0
    var index = 0
    while index < count {
      let entry = unsafe entries[index]
      guard let done = unsafe entry.type.poll(entry.value, budget) else {
        remove(at: index)
        work &+= 1
        continue
      }
      if done > 0 {
        work &+= done
        if entry.isArmed {
          unsafe entry.type.disarm(entry.value)
          unsafe entries[index].isArmed = false
        }
      }
      index &+= 1
    }
    return work
  }

  /// Asks all values, those that are armed too: what they wait for may have changed in a poll that did
  /// no work. Returns true when there was work after all.
  private mutating func armAll() -> Bool {
    var found = false
    for index in 0..<count {
      let hasWork = unsafe entries[index].type.arm(entries[index].value)
      // There is no interrupt to be had for what is polled at once.
      if hasWork { unsafe entries[index].type.disarm(entries[index].value) }
      unsafe entries[index].isArmed = !hasWork
      found = found || hasWork
    }
    return found
  }

  private mutating func sleep() {
    var deadline = UInt64.max
    for index in 0..<count {
      deadline = min(deadline, unsafe entries[index].type.nextDeadline(entries[index].value))
    }
    var milliseconds: Int32 = -1
    if deadline != .max {
      let now = vmbus_now()
      milliseconds =
        deadline <= now
        ? 0 : Int32(truncatingIfNeeded: min((deadline - now) / 1_000_000 + 1, 60_000))
    }
    account.sleeps &+= 1
    drainReady(milliseconds: milliseconds)
    if deadline != .max { expireAll(vmbus_now()) }
  }

  /// Waits for descriptors that are ready, and drains them.
  private func drainReady(milliseconds: Int32) {
    // Only EBADF, EFAULT and EINVAL are left, and the descriptor and the memory are our own.
    _ = try? epoll.wait(milliseconds: milliseconds) { token in
      if token == 0 {
        vmbus_event_drain(wake)
      } else if let drain = watched[Int32(truncatingIfNeeded: token) - 1] {
        drain()
      }
    }
  }

  private mutating func expireAll(_ now: UInt64) {
    for index in 0..<count {
      let entry = unsafe entries[index]
      if unsafe entry.type.nextDeadline(entry.value) <= now {
        unsafe entry.type.expire(entry.value, now)
      }
    }
  }

  // MARK: - Mail

  mutating func attach(_ entry: PollEntry, ended whenEnded: (@Sendable () -> Void)?) {
    if count == capacity {
      let larger = UnsafeMutablePointer<PollEntry>.allocate(capacity: capacity * 2)
      unsafe larger.moveInitialize(from: entries, count: count)
      unsafe entries.deallocate()
      unsafe entries = larger
      capacity *= 2
    }
    unsafe (entries + count).initialize(to: entry)
    count += 1
    ended[entry.identifier] = whenEnded
  }

  mutating func detach(_ identifier: UInt64) {
    for index in 0..<count where unsafe entries[index].identifier == identifier {
      return remove(at: index)
    }
  }

  private mutating func remove(at index: Int) {
    let entry = unsafe entries[index]
    count -= 1
    unsafe entries[index] = entries[count]
    unsafe entry.type.destroy(entry.value)
    ended.removeValue(forKey: entry.identifier)?()
  }

  mutating func watch(
    _ descriptor: Int32, hangUpOnly: Bool, _ drain: @escaping @Sendable () -> Void
  ) {
    watched[descriptor] = drain
    // Fails only for a descriptor that can't be polled or is watched already; then it never wakes
    // this worker, and its owner, who passed it, is at fault.
    try? epoll.add(
      descriptor, token: UInt64(UInt32(bitPattern: descriptor)) + 1, hangUpOnly: hangUpOnly)
  }

  mutating func unwatch(_ descriptor: Int32) {
    // In this order: `drain` may own the descriptor, and one that is closed can't be removed.
    epoll.remove(descriptor)
    watched[descriptor] = nil
  }

  mutating func stop() {
    while count > 0 { remove(at: count - 1) }
    // What drains a descriptor may hold the worker, which holds this.
    for descriptor in Array(watched.keys) { unwatch(descriptor) }
    isStopping = true
  }
}
