// SPDX-License-Identifier: Apache-2.0

import BlockStorage
import StorageProtocol
import VSC

/// One channel of a controller, on its worker's thread: it cuts transfers into requests, bounces
/// their bytes through DMA memory, and keeps as many under way as the device takes.
struct StorageService<Ring: Visibility, External: Visibility>: Pollable, ~Copyable {
  var queue: StorageQueue<Ring, External>
  var pool: DMAPool<External>
  let life: ServiceLife
  let resetTimeout: UInt64
  var scheduler: TransferScheduler
  var recovery: Recovery
  var counts = StorageCounters()
  private var isAnnounced = false
  /// The pool had no room for what was to begin last.
  private var lacksMemory = false

  /// The tag of resets.
  static var resetTag: UInt64 { .max }

  init(
    _ queue: consuming StorageQueue<Ring, External>, _ pool: consuming DMAPool<External>,
    _ configuration: StorageController.Configuration, life: ServiceLife
  ) {
    self.queue = queue
    self.pool = pool
    self.life = life
    scheduler = TransferScheduler(depth: configuration.usableDepth, retry: configuration.retry)
    resetTimeout = configuration.resetTimeout
    recovery = Recovery(grace: configuration.resetTimeout)
  }

  deinit {
    life.end(queue.failure ?? .channel(.ended(.closed)))
    // The first reason counts: that of the channel which took the others with it.
    let error = life.endReason ?? .channel(.ended(.closed))
    scheduler.settleAll(error)
  }

  mutating func add(_ transfer: Transfer) { scheduler.add(transfer) }

  var counters: StorageCounters {
    var counters = counts
    counters.channel = queue.counters
    counters.late = queue.lateCompletions
    counters.underWay = queue.count
    counters.abandoned = queue.abandoned
    counters.retries = scheduler.retries
    counters.memory = pool.statistics
    return counters
  }

  // MARK: - Pollable

  // For the reason that `Pollable.poll` tells.
  @_specialize(where Ring == HostVisible, External == HostVisible)
  @_specialize(where Ring == Encrypted, External == HostVisible)
  @_specialize(where Ring == Encrypted, External == Encrypted)
  mutating func poll(budget: Int) -> Int? {
    // Packets that are not passed on count too: what was taken from the ring is work.
    let before = queue.received
    var work = 0
    while work < budget || queue.failure != nil, let completion = queue.next() {
      finish(completion)
      work = Int(truncatingIfNeeded: queue.received &- before)
    }
    work = Int(truncatingIfNeeded: queue.received &- before)
    if !isAnnounced, let agreement = queue.agreement {
      isAnnounced = true
      life.ready(agreement)
    }
    let events = queue.takeEvents()
    if !events.isEmpty { life.signal(events) }
    // `next` has run dry, so all that was under way is told; `deinit` tells the rest.
    if queue.failure != nil { return nil }
    if isAnnounced { work &+= begin() }
    queue.publish()
    return work
  }

  mutating func arm() -> Bool { queue.arm() }
  mutating func disarm() { queue.disarm() }

  var nextDeadline: UInt64 {
    min(queue.nextDeadline, recovery.deadline, scheduler.nextDeadline)
  }

  mutating func expire(now: UInt64) {
    while let late = queue.nextExpired(now: now) {
      if late.tag == Self.resetTag {
        act(recovery.answered(false, now: now), now)
        continue
      }
      let chunk = scheduler.chunk(late.tag)?.chunk
      finish(late)
      counts.timeouts &+= 1
      if let chunk { act(recovery.timedOut(chunk.transfer.lun), now) }
    }
    act(recovery.expire(now: now, missing: queue.abandoned), now)
    scheduler.expire(now: now)
    // The worker may be about to sleep: what waits for the late ones must not wait for ever.
    if isAnnounced, queue.failure == nil { _ = begin() }
    queue.publish()
  }

  // MARK: - Resets

  private mutating func act(_ action: Recovery.Action, _ now: UInt64) {
    switch action {
    case .none: break
    case .reset(let operation, let lun):
      counts.resets &+= 1
      do throws(StorageError) {
        try queue.submit(
          control: StorageNegotiation.reset(operation, lun: lun), tag: Self.resetTag,
          timeout: resetTimeout)
      } catch {
        // The ring is full: the host takes nothing.
        act(recovery.answered(false, now: now), now)
      }
    case .giveUp: queue.giveUp()
    }
  }

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
    if !scheduler.isIdle { giveUpIfStuck() }
    return count
  }

  private enum Outcome {
    case sent, noRoom
    case failed(StorageError)
  }

  /// Sends a chunk's first request.
  private mutating func send(_ index: Int, _ chunk: Chunk) -> Outcome {
    let tag = UInt64(index)
    do throws(StorageError) {
      var buffer: DMABuffer<External>?
      let count = chunk.dataByteCount
      if count > 0 {
        guard count <= pool.bufferByteCount else { return .failed(.badLength(count)) }
        guard var taken = pool.take(count) else {
          lacksMemory = true
          return .noRoom
        }
        prepare(chunk, &taken)
        buffer = .some(taken)
      }
      try send(chunk, &buffer, tag)
      return .sent
    } catch .wouldBlock {
      return .noRoom
    } catch {
      return .failed(error)
    }
  }

  private mutating func send(
    _ chunk: Chunk, _ buffer: inout DMABuffer<External>?, _ tag: UInt64
  ) throws(StorageError) {
    try queue.submit(
      block: chunk.command, lun: chunk.transfer.lun, byteCount: chunk.dataByteCount,
      buffer: &buffer, tag: tag)
  }

  // MARK: - Ending

  private mutating func finish(_ completion: consuming StorageCompletion<External>) {
    if completion.tag == Self.resetTag {
      let now = MonotonicClock.now()
      if case .success = completion.result {
        act(recovery.answered(true, now: now, missing: queue.abandoned), now)
      } else if queue.failure == nil {
        act(recovery.answered(false, now: now), now)
      }
      return
    }
    guard let (index, chunk) = scheduler.chunk(completion.tag) else { return }
    switch completion.result {
    case .failure(let error):
      scheduler.failed(
        index, error, mayRepeat: queue.failure == nil, now: MonotonicClock.now())
    case .success(let moved) where chunk.isCounted && moved != chunk.dataByteCount:
      scheduler.end(index, .shortTransfer(asked: chunk.dataByteCount, moved: moved))
    case .success(let moved):
      var buffer = completion.buffer.take()
      switch chunk.step {
      case .read, .command:
        chunk.transfer.moved = moved
        if var filled = buffer.take() { copyOut(chunk, moved, &filled) }
        // The system may have taken the memory away meanwhile.
        scheduler.end(index, queue.hasLostMemory ? .channel(.ended(.rescinded)) : nil)
      case .write, .flush, .unmap, .fill:
        scheduler.end(index, nil)
      case .fetchForWrite:
        guard let next = scheduler.beginWriteBack(index) else { return }
        if var fetched = buffer.take() {
          prepare(next, &fetched)
          buffer = .some(fetched)
        }
        do throws(StorageError) {
          try send(next, &buffer, UInt64(index))
        } catch .wouldBlock {
          // Nobody else can change these blocks meanwhile: fetching again is the same.
          scheduler.repeatChunk(index)
        } catch {
          scheduler.end(index, error)
        }
      }
    }
  }

  /// When nothing is under way but requests that timed out, and they keep all the room, nothing
  /// would ever begin.
  private mutating func giveUpIfStuck() {
    guard queue.abandoned > 0, queue.abandoned == queue.count else { return }
    guard queue.isFull || lacksMemory else { return }
    scheduler.failWaiting(.timedOut)
  }
}
