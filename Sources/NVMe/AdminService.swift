// SPDX-License-Identifier: Apache-2.0

import BlockStorage
import NVMeProtocol
import PCIFunction
import Platform
import Synchronization
import VSC

/// A command for the admin queue, and who waits for its end.
struct AdminJob: Sendable {
  struct Answer: Sendable {
    var result: UInt32 = 0
    /// What the controller has written.
    var bytes: [UInt8] = []
  }

  var command: NVMeCommand
  /// Bytes that the controller may write, at most 4096.
  var byteCount = 0
  let outcome = Promise<Result<Answer, StorageError>>()
}

/// The admin queue, on its worker's thread: commands of the start-up, events that the controller tells
/// unasked, aborts; and what is done about a controller that does not answer.
struct AdminService: Pollable, ~Copyable {
  private enum Kind {
    case job(AdminJob)
    case event
    case abort
  }

  private struct Request: ~Copyable {
    let kind: Kind
    var buffer: DMABuffer<HostVisible>?
  }

  private var pair: QueuePair
  private var pool: DMAPool<HostVisible>
  private var requests: Requests<Request>
  private var waiting: [AdminJob] = []
  /// Those whose end is not told yet.
  private var underWay: [AdminJob] = []
  private var recovery: ControllerRecovery
  private let life: ControllerLife
  private let registers: PCIRegisters
  private let timeout: UInt64
  private let lookInterval: UInt64
  /// When the controller's status is read next.
  private var nextLook = UInt64.max
  private var isOpen = true
  private var received: UInt64 = 0
  private(set) var counters = ChannelCounters()
  private(set) var resets: UInt64 = 0
  private(set) var aborts: UInt64 = 0
  private(set) var events: UInt64 = 0

  static var depth: Int { 16 }
  private static var lastGeneration: UInt32 { 0xFFE }

  init(
    _ pair: consuming QueuePair, _ pool: consuming DMAPool<HostVisible>, _ life: ControllerLife,
    _ registers: PCIRegisters, timeout: UInt64, grace: UInt64, lookInterval: UInt64
  ) {
    self.pair = pair
    self.pool = pool
    self.life = life
    self.registers = registers
    self.timeout = timeout
    // A century at most: it is added to the time.
    self.lookInterval = min(lookInterval, 1 << 61)
    requests = Requests(capacity: Self.depth, lastGeneration: Self.lastGeneration)
    recovery = ControllerRecovery(grace: grace)
  }

  deinit {
    let error = life.endReason ?? .channel(.ended(.closed))
    for job in waiting + underWay { job.outcome.keep(.failure(error)) }
  }

  // MARK: - Pollable

  mutating func poll(budget: Int) -> Int? {
    var work = 0
    while isOpen, work < budget, let completion = pair.pop() {
      work &+= 1
      finish(completion)
    }
    begin()
    return work
  }

  mutating func arm() -> Bool { isOpen && pair.hasCompletion }
  mutating func disarm() {}

  var nextDeadline: UInt64 { min(requests.nextDeadline, recovery.deadline, nextLook) }

  mutating func expire(now: UInt64) {
    var isLate = false
    let error = StorageError.timedOut
    requests.expire(now: now) { request in
      isLate = true
      if case .job(let job) = request.kind { job.outcome.keep(.failure(error)) }
    }
    if isLate { late(queue: 0, identifier: 0, now: now) }
    act(
      recovery.expire(
        now: now, missing: life.missing.load(ordering: .relaxed),
        completed: life.completed.load(ordering: .relaxed)))
    if now >= nextLook { look(now: now) }
  }

  // MARK: - Commands

  mutating func add(_ job: AdminJob) {
    guard isOpen else {
      _ = job.outcome.keep(.failure(.reset))
      return
    }
    waiting.append(job)
    begin()
  }

  /// Lets the controller tell of events: it answers the command when there is one.
  mutating func listen() {
    send(NVMeCommand(.asynchronousEvent), Request(kind: .event, buffer: nil), deadline: .max)
    publish()
  }

  private mutating func begin() {
    while isOpen, !waiting.isEmpty, requests.count < Self.depth {
      var job = waiting[0]
      var buffer: DMABuffer<HostVisible>?
      if job.byteCount > 0 {
        guard var taken = pool.take(), job.byteCount <= taken.byteCount else { break }
        job.command.data1 = taken.deviceAddress(ofPage: 0)
        taken.lend(job.byteCount)
        buffer = consume taken
      }
      waiting.removeFirst()
      underWay.removeAll { $0.outcome.isKept }
      underWay.append(job)
      send(
        job.command, Request(kind: .job(job), buffer: buffer),
        deadline: MonotonicClock.now() &+ timeout)
    }
    publish()
  }

  private mutating func send(
    _ command: NVMeCommand, _ request: consuming Request, deadline: UInt64
  ) {
    guard isOpen, let id = requests.nextID else { return }
    var command = command
    command.identifier = UInt16(truncatingIfNeeded: (id >> 32) << 4 | id & 0xF)
    pair.push(command)
    counters.sent &+= 1
    requests.insert(request, deadline: deadline)
  }

  private mutating func publish() {
    if isOpen { counters.doorbells &+= UInt64(pair.publish()) }
  }

  private mutating func finish(_ completion: NVMeCompletion) {
    counters.received &+= 1
    guard completion.queue == 0 else {
      counters.malformed &+= 1
      return
    }
    let id = UInt64(completion.identifier)
    guard var request = requests.complete((id >> 4) << 32 | id & 0xF) else {
      counters.unknownCompletions &+= 1
      return
    }
    let status = NVMeStatus(field: completion.status)
    var bytes: [UInt8] = []
    if var buffer = request.payload.buffer.take() {
      buffer.takeBack()
      if case .job(let job) = request.payload.kind, status.condition == .success {
        bytes = unsafe buffer.bytes.extracting(first: job.byteCount).withUnsafeBytes {
          unsafe [UInt8]($0)
        }
      }
    }
    if request.wasAbandoned { return }
    switch request.payload.kind {
    case .job(let job):
      job.outcome.keep(
        status.condition == .success
          ? .success(AdminJob.Answer(result: completion.result, bytes: bytes))
          : .failure(.rejected(status)))
    case .abort:
      // Bit 0 of the result: it was not aborted.
      act(
        recovery.aborted(
          status.condition == .success && completion.result & 1 == 0,
          completed: life.completed.load(ordering: .relaxed)))
    case .event:
      // One that is refused is not asked for again.
      guard status.condition == .success else { return }
      events &+= 1
      // Reading the log page, as a rescan does, has the next one told.
      life.ask(.rescan)
      listen()
    }
  }

  // MARK: - Recovery

  /// A request of a queue is late.
  mutating func late(queue: UInt16, identifier: UInt16, now: UInt64) {
    act(
      recovery.late(
        queue: queue, identifier: identifier, hasFailed: status.needsReset,
        completed: life.completed.load(ordering: .relaxed), now: now))
  }

  private var status: NVMeControllerStatus {
    NVMeControllerStatus(rawValue: (try? registers.read32(at: NVMeRegister.status)) ?? .max)
  }

  /// Looks from now on whether the controller is still ready. One that failed, or that was reset behind the
  /// driver's back, answers nothing: all requests would wait until they are late.
  mutating func watch() { nextLook = MonotonicClock.now() &+ lookInterval }

  private mutating func look(now: UInt64) {
    nextLook = now &+ lookInterval
    let status = status
    // Of a function that is gone its transport tells.
    if !status.isGone { act(recovery.looked(hasFailed: status.needsReset)) }
  }

  private mutating func act(_ action: ControllerRecovery.Action) {
    switch action {
    case .none: break
    case .abort(let queue, let identifier):
      aborts &+= 1
      send(
        .abort(identifier, of: queue), Request(kind: .abort, buffer: nil),
        deadline: MonotonicClock.now() &+ timeout)
      publish()
    case .reset:
      resets &+= 1
      life.ask(.reset)
    case .giveUp: life.ask(.end(.unresponsive))
    }
  }

  /// The controller is about to be reset.
  mutating func suspend() {
    isOpen = false
    let error = StorageError.reset
    for job in waiting { job.outcome.keep(.failure(error)) }
    waiting.removeAll()
  }

  /// The controller is quiet: it has no command any more, and knows no queue.
  mutating func restart() {
    pair.restart()
    let error = StorageError.reset
    requests.drainAll { request, wasAbandoned in
      var request = request
      if var buffer = request.buffer.take() { buffer.takeBack() }
      if !wasAbandoned, case .job(let job) = request.kind { job.outcome.keep(.failure(error)) }
    }
    isOpen = true
  }

  mutating func resetEnded(_ succeeded: Bool) { act(recovery.resetEnded(succeeded)) }
}
