// SPDX-License-Identifier: Apache-2.0

import CLinux
import Synchronization
public import SystemPackage

/// One thread, pinned where asked for, that polls what is attached to it.
///
/// It polls while there is work, then arms the interrupts, looks once more, and sleeps (law 5).
/// It is a task executor too: an async user of a device that runs with this worker as its
/// preferred executor resumes on the device's own thread.
@safe
public final class Worker: TaskExecutor, Sendable {
  public struct Configuration: Sendable {
    /// As the system's tools show the thread; cut off at 15 bytes.
    public var name: String
    /// The processor to run on, or nil for any.
    public var cpu: Int?
    /// Rounds without work before it sleeps: 0 sleeps at once, `Int.max` never. On a machine with one
    /// processor all others sleep at once.
    public var spinRounds: Int
    /// Units of work per value and round.
    public var budget: Int

    public init(name: String, cpu: Int? = nil, spinRounds: Int = 2000, budget: Int = 64) {
      self.name = name
      self.cpu = cpu
      self.spinRounds = spinRounds
      self.budget = budget
    }
  }

  /// What the worker did so far.
  public struct Account: Sendable, Equatable {
    /// Cycles in rounds that did work, and in rounds that did not, sleep excluded.
    public var busyCycles: UInt64
    public var idleCycles: UInt64
    public var sleeps: UInt64
    public var unitsOfWork: UInt64
  }

  enum Mail: Sendable {
    case job(UnownedJob)
    case call(@Sendable () -> Void)
    case attach(PollEntry, ended: (@Sendable () -> Void)?)
    case detach(UInt64)
    case watch(Int32, hangUpOnly: Bool, @Sendable () -> Void)
    case unwatch(Int32)
    case stop
  }

  public let configuration: Configuration
  private struct Mailbox {
    var mail: [Mail] = []
    /// The thread has taken its last mail.
    var isClosed = false
  }

  private let mailbox = Lock(Mailbox())
  let hasMail = Atomic<Bool>(false)
  let wake: EventDescriptor
  let counters = WorkerCounters()
  private let isStopping = Atomic<Bool>(false)
  private let nextIdentifier = Atomic<UInt64>(1)
  private let thread = Lock<WorkerThread>(.ended)
  /// Followed by the worker's thread only, once it runs.
  nonisolated(unsafe) private let loop: UnsafeMutablePointer<WorkerLoop>

  /// Starts the thread.
  ///
  /// - Throws: `invalidArgument` when the processor is not one that this process may use.
  public init(_ configuration: Configuration) throws(Errno) {
    if let cpu = configuration.cpu, !vmbus_may_use_cpu(Int32(clamping: cpu)) {
      throw .invalidArgument
    }
    self.configuration = configuration
    wake = try EventDescriptor()
    let epoll = try Epoll()
    try epoll.add(wake.rawValue, token: 0)
    unsafe loop = .allocate(capacity: 1)
    unsafe loop.initialize(to: WorkerLoop(configuration, epoll, wake: wake.rawValue))
    let started = try WorkerThread.start(self)
    thread.withLock { $0 = started }
  }

  deinit {
    unsafe loop.deinitialize(count: 1)
    unsafe loop.deallocate()
  }

  /// Gives a value to the worker.
  ///
  /// - Parameter ended: called on the worker's thread when the value was dropped: because its
  ///   `poll` said so, `detach` was called, or the worker stops.
  public func attach<Value: Pollable & ~Copyable>(
    _ value: consuming sending Value, ended: (@Sendable () -> Void)? = nil
  ) -> WorkerHandle<Value> {
    let pointer = UnsafeMutablePointer<Value>.allocate(capacity: 1)
    unsafe pointer.initialize(to: value)
    let identifier = nextIdentifier.add(1, ordering: .relaxed).oldValue
    unsafe deliver(
      .attach(
        PollEntry(
          identifier: identifier, value: UnsafeMutableRawPointer(pointer),
          type: PollableOf<Value>.self), ended: ended))
    return WorkerHandle(worker: self, identifier: identifier)
  }

  /// Runs `body` on the worker's thread, between two polls.
  public func post(_ body: @escaping @Sendable () -> Void) { deliver(.call(body)) }

  /// Wakes the worker when a descriptor is ready, and calls `drain` there, which must make it
  /// unready again. All values are polled after that.
  ///
  /// - Parameters:
  ///   - hangUpOnly: what can be read from the descriptor does not wake the worker, only its end.
  ///   - drain: should own the descriptor: it is let go after the worker has stopped watching.
  public func watch(
    _ descriptor: Int32, hangUpOnly: Bool = false, drain: @escaping @Sendable () -> Void
  ) {
    deliver(.watch(descriptor, hangUpOnly: hangUpOnly, drain))
  }

  public func unwatch(_ descriptor: Int32) { deliver(.unwatch(descriptor)) }

  public func enqueue(_ job: UnownedJob) { deliver(.job(job)) }

  public var account: Account { counters.account }

  /// Drops all values and ends the thread; returns when it has ended (a second call returns at
  /// once). Not from the worker's own thread.
  public func stop() {
    guard !isStopping.exchange(true, ordering: .relaxed) else { return }
    deliver(.stop)
    // Joined outside of the lock: the worker's last jobs may ask `isCurrent`.
    thread.withLock { $0 }.join()
  }

  /// Whether the caller runs on this worker's thread.
  public var isCurrent: Bool { thread.withLock { $0.isCurrent } }

  func deliver(_ mail: Mail) {
    let isClosed = mailbox.withLock { box in
      if !box.isClosed { box.mail.append(mail) }
      return box.isClosed
    }
    if isClosed { return handleAfterEnd(mail) }
    // The mail, then the flag, then the wake-up: the worker clears the flag before it looks.
    if !hasMail.exchange(true, ordering: .sequentiallyConsistent) { wake.signal() }
  }

  /// What came since the last call.
  ///
  /// - Parameter last: nothing is taken any more after this call.
  func takeMail(last: Bool = false) -> [Mail] {
    hasMail.store(false, ordering: .sequentiallyConsistent)
    return mailbox.withLock { box in
      let mail = box.mail
      box.mail.removeAll(keepingCapacity: true)
      box.isClosed = last
      return mail
    }
  }

  /// Mail for a worker that has ended. Nobody may wait for ever: jobs and calls still run, on the
  /// thread that brings them, and find no value; a value that comes is dropped.
  func handleAfterEnd(_ mail: Mail) {
    switch mail {
    case .job(let job): unsafe job.runSynchronously(on: asUnownedTaskExecutor())
    case .call(let body): body()
    case .attach(let entry, let ended):
      unsafe entry.type.destroy(entry.value)
      ended?()
    case .detach, .watch, .unwatch, .stop: break
    }
  }

  // MARK: - On the worker's thread. Safe: `loop` is followed by no other, one call at a time.

  var isOver: Bool { unsafe loop.pointee.isOver }

  func runLoop() { unsafe loop.pointee.run(self) }

  func value(_ identifier: UInt64) -> UnsafeMutableRawPointer? {
    unsafe loop.pointee.value(identifier)
  }

  func handle(_ mail: Mail) {
    // What came after `stop`, in the same batch.
    if isOver { return handleAfterEnd(mail) }
    switch mail {
    case .job(let job): unsafe job.runSynchronously(on: asUnownedTaskExecutor())
    case .call(let body): body()
    case .attach(let entry, let ended): unsafe loop.pointee.attach(entry, ended: ended)
    case .detach(let identifier): unsafe loop.pointee.detach(identifier)
    case .watch(let descriptor, let hangUpOnly, let drain):
      unsafe loop.pointee.watch(descriptor, hangUpOnly: hangUpOnly, drain)
    case .unwatch(let descriptor): unsafe loop.pointee.unwatch(descriptor)
    case .stop: unsafe loop.pointee.stop()
    }
  }
}

/// Names a value that was attached to a worker.
public struct WorkerHandle<Value: Pollable & ~Copyable>: Sendable {
  public let worker: Worker
  let identifier: UInt64

  /// Calls `body` with the value on the worker's thread, or `gone` when it has been dropped.
  public func perform(
    _ body: @escaping @Sendable (inout Value) -> Void,
    orElse gone: @escaping @Sendable () -> Void = {}
  ) {
    let (worker, identifier) = (worker, identifier)
    worker.post {
      // Safe: on the worker's thread, between two polls, so nobody else has the value; and the
      // identifier was given to a value of this type.
      guard let value = unsafe worker.value(identifier) else { return gone() }
      unsafe body(&value.assumingMemoryBound(to: Value.self).pointee)
    }
  }

  /// Drops the value.
  public func detach() { worker.deliver(.detach(identifier)) }
}

/// Published by the loop now and then, read by anybody.
final class WorkerCounters: Sendable {
  let busyCycles = Atomic<UInt64>(0)
  let idleCycles = Atomic<UInt64>(0)
  let sleeps = Atomic<UInt64>(0)
  let unitsOfWork = Atomic<UInt64>(0)

  var account: Worker.Account {
    Worker.Account(
      busyCycles: busyCycles.load(ordering: .relaxed),
      idleCycles: idleCycles.load(ordering: .relaxed),
      sleeps: sleeps.load(ordering: .relaxed),
      unitsOfWork: unitsOfWork.load(ordering: .relaxed))
  }

  func publish(_ account: Worker.Account) {
    busyCycles.store(account.busyCycles, ordering: .relaxed)
    idleCycles.store(account.idleCycles, ordering: .relaxed)
    sleeps.store(account.sleeps, ordering: .relaxed)
    unitsOfWork.store(account.unitsOfWork, ordering: .relaxed)
  }
}
