// SPDX-License-Identifier: Apache-2.0

import BlockStorage
import NVMeProtocol
import Platform
import Synchronization
import VSC

/// One queue pair of a controller, on its worker's thread: it cuts transfers into requests, bounces their
/// bytes through DMA memory, and keeps as many under way as the queue takes.
struct NVMeService: Pollable, ~Copyable {
  private var queue: NVMeQueue
  private var pool: DMAPool<HostVisible>
  private let life: ControllerLife
  private var scheduler: TransferScheduler
  private var timeouts: UInt64 = 0
  /// What this queue has put into the controller's counts.
  private var toldMissing = 0
  private var completed: UInt64 = 0
  /// Called for a request that is late.
  private let whenLate: @Sendable (_ queue: UInt16, _ identifier: UInt16) -> Void
  /// The pool had no room for what was to begin last.
  private var lacksMemory = false

  init(
    _ queue: consuming NVMeQueue, _ pool: consuming DMAPool<HostVisible>,
    _ configuration: NVMeController.Configuration, _ life: ControllerLife,
    whenLate: @escaping @Sendable (_ queue: UInt16, _ identifier: UInt16) -> Void
  ) {
    self.queue = queue
    self.pool = pool
    self.life = life
    self.whenLate = whenLate
    scheduler = TransferScheduler(depth: configuration.usableDepth, retry: configuration.retry)
  }

  deinit { scheduler.settleAll(life.endReason ?? .channel(.ended(.closed))) }

  mutating func add(_ transfer: Transfer) { scheduler.add(transfer) }

  var counters: StorageCounters {
    var counters = StorageCounters()
    counters.channel = queue.counters
    counters.late = queue.lateCompletions
    counters.timeouts = timeouts
    counters.retries = scheduler.retries
    counters.underWay = queue.count
    counters.abandoned = queue.abandoned
    counters.memory = pool.statistics
    return counters
  }

  // MARK: - Pollable

  mutating func poll(budget: Int) -> Int? {
    let before = queue.received
    while Int(truncatingIfNeeded: queue.received &- before) < budget || queue.failure != nil,
      let completion = queue.next()
    {
      finish(completion)
    }
    // `next` has run dry, so all that was under way is told; `deinit` tells the rest.
    if queue.failure != nil { return nil }
    var work = Int(truncatingIfNeeded: queue.received &- before)
    if work > 0 { tell() }
    work &+= begin()
    queue.publish()
    return work
  }

  mutating func arm() -> Bool { queue.arm() }
  mutating func disarm() { queue.disarm() }

  var nextDeadline: UInt64 { min(queue.nextDeadline, scheduler.nextDeadline) }

  mutating func expire(now: UInt64) {
    while let late = queue.nextExpired(now: now) {
      let identifier = queue.lastExpired
      finish(late)
      timeouts &+= 1
      tell()
      whenLate(queue.number, identifier)
    }
    scheduler.expire(now: now)
    // The worker may be about to sleep: what waits for the late ones must not wait for ever.
    if queue.failure == nil { _ = begin() }
    queue.publish()
  }

  /// Adds what happened here to the counts of the controller.
  private mutating func tell() {
    let missing = queue.abandoned
    if missing != toldMissing {
      life.missing.add(missing - toldMissing, ordering: .relaxed)
      toldMissing = missing
    }
    let done = queue.received &- queue.counters.unknownCompletions &- queue.counters.malformed
    if done != completed {
      life.completed.add(done &- completed, ordering: .relaxed)
      completed = done
    }
  }

  // MARK: - Resets

  mutating func suspend() { queue.suspend() }

  /// The controller is quiet. What was under way is sent again, or fails, as its kind allows.
  mutating func restart() {
    var ended: [UInt64] = []
    queue.restart { ended.append($0) }
    tell()
    let now = MonotonicClock.now()
    for tag in ended {
      guard let (index, _) = scheduler.chunk(tag) else { continue }
      scheduler.failed(index, .reset, mayRepeat: true, now: now)
    }
  }

  mutating func resume() { queue.resume() }

  // MARK: - Beginning

  /// Sends what can be sent. Returns how many requests that were.
  private mutating func begin() -> Int {
    var count = 0
    lacksMemory = false
    var hasRoom = true
    while hasRoom, let (index, chunk) = scheduler.next(bufferByteCount: pool.bufferByteCount) {
      switch send(index, chunk) {
      case .sent:
        scheduler.sent(index)
        count &+= 1
      case .failed(let error): scheduler.refused(index, error)
      case .noRoom:
        scheduler.noRoom(index)
        hasRoom = false
      }
    }
    scheduler.finishRound()
    return count
  }

  private enum Outcome {
    case sent, noRoom
    case failed(StorageError)
  }

  /// Sends a chunk's first request.
  private mutating func send(_ index: Int, _ chunk: Chunk) -> Outcome {
    do throws(StorageError) {
      var buffer: DMABuffer<HostVisible>?
      let count = Self.dataByteCount(chunk)
      if count > 0 {
        guard count <= pool.bufferByteCount else { return .failed(.badLength(count)) }
        guard var taken = pool.take(count) else {
          lacksMemory = true
          return .noRoom
        }
        prepare(chunk, &taken)
        buffer = .some(taken)
      }
      try submit(chunk, &buffer, UInt64(index))
      return .sent
    } catch .wouldBlock {
      return .noRoom
    } catch {
      return .failed(error)
    }
  }

  private mutating func submit(
    _ chunk: Chunk, _ buffer: inout DMABuffer<HostVisible>?, _ tag: UInt64
  ) throws(StorageError) {
    try queue.submit(
      command(chunk), byteCount: Self.dataByteCount(chunk), buffer: &buffer, tag: tag)
  }

  /// Bytes that the controller is given.
  private static func dataByteCount(_ chunk: Chunk) -> Int {
    switch chunk.step {
    case .read, .write, .fetchForWrite: chunk.dataByteCount
    case .unmap: NVMeRange.byteCount
    case .fill, .flush, .command: 0
    }
  }

  private func command(_ chunk: Chunk) throws(StorageError) -> NVMeCommand {
    let namespace = chunk.transfer.number
    let (block, count) = (chunk.block, chunk.blockCount)
    switch chunk.step {
    case .read, .fetchForWrite:
      return NVMeCommand(.read, namespace: namespace, block: block, count: count)
    case .write:
      var forced = false
      if case .write(true) = chunk.transfer.kind { forced = true }
      return NVMeCommand(
        .write, namespace: namespace, block: block, count: count, forced: forced)
    case .unmap: return .deallocate(namespace: namespace, rangeCount: 1)
    case .fill:
      var command = NVMeCommand(.writeZeroes, namespace: namespace, block: block, count: count)
      command.mayDeallocate = true
      if case .writeZeroes(.fill) = chunk.transfer.kind { command.mayDeallocate = false }
      return command
    case .flush: return NVMeCommand(.flush, namespace: namespace)
    case .command: throw .unsupported
    }
  }

  /// Puts what the controller is to read into a buffer.
  private func prepare(_ chunk: Chunk, _ buffer: inout DMABuffer<HostVisible>) {
    switch chunk.step {
    case .write where chunk.transfer.isZeroing:
      buffer.clear(from: chunk.offsetInBlocks, count: chunk.byteCount)
    case .write:
      chunk.transfer.read(at: chunk.offsetInTransfer, count: chunk.byteCount) { bytes in
        buffer.copyIn(bytes, at: chunk.offsetInBlocks)
      }
    case .unmap:
      buffer.withMutableBytes(NVMeRange.byteCount) { target in
        NVMeRange(
          block: chunk.block, blockCount: UInt32(truncatingIfNeeded: chunk.blockCount)
        ).write(into: &target)
      }
    case .read, .fetchForWrite, .flush, .fill, .command: break
    }
  }

  // MARK: - Ending

  private mutating func finish(_ completion: consuming StorageCompletion<HostVisible>) {
    guard let (index, chunk) = scheduler.chunk(completion.tag) else { return }
    if case .failure(let error) = completion.result {
      return scheduler.failed(
        index, error, mayRepeat: queue.failure == nil, now: MonotonicClock.now())
    }
    var buffer = completion.buffer.take()
    switch chunk.step {
    case .read:
      if var filled = buffer.take(), chunk.offsetInBlocks &+ chunk.byteCount <= filled.byteCount {
        chunk.transfer.fill(at: chunk.offsetInTransfer, count: chunk.byteCount) { target in
          filled.moveOut(from: chunk.offsetInBlocks, into: &target)
        }
      }
      scheduler.end(index, nil)
    case .write, .flush, .unmap, .fill, .command: scheduler.end(index, nil)
    case .fetchForWrite:
      guard let next = scheduler.beginWriteBack(index) else { return }
      if var fetched = buffer.take() {
        prepare(next, &fetched)
        buffer = .some(fetched)
      }
      do throws(StorageError) {
        try submit(next, &buffer, UInt64(index))
      } catch .wouldBlock {
        // Nobody else can change these blocks meanwhile: fetching again is the same.
        scheduler.repeatChunk(index)
      } catch {
        scheduler.end(index, error)
      }
    }
  }
}
