// SPDX-License-Identifier: Apache-2.0

import StorageProtocol
import VSC

/// One channel of a controller, on its worker's thread: it cuts transfers into requests, bounces
/// their bytes through DMA memory, and keeps as many under way as the device takes.
struct StorageService<Ring: Visibility, External: Visibility>: Pollable, ~Copyable {
  var queue: StorageQueue<Ring, External>
  var pool: DMAPool<External>
  let life: ServiceLife
  let retry: RetryPolicy
  let resetTimeout: UInt64
  var waiting: [Transfer] = []
  var chunks: [Chunk?]
  var freeChunks: [Int]
  /// Chunks that are to be sent again.
  var again: [Int] = []
  /// The same, but not before a time.
  var delayed: [(index: Int, time: UInt64)] = []
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
    retry = configuration.retry
    resetTimeout = configuration.resetTimeout
    recovery = Recovery(grace: configuration.resetTimeout)
    let depth = configuration.usableDepth
    chunks = Array(repeating: nil, count: depth)
    freeChunks = Array((0..<depth).reversed())
  }

  deinit {
    life.end(queue.failure ?? .channel(.ended(.closed)))
    // The first reason counts: that of the channel which took the others with it.
    let error = life.endReason ?? .channel(.ended(.closed))
    for transfer in waiting { transfer.settle(error) }
    for case let chunk? in chunks { chunk.transfer.settle(error) }
  }

  mutating func add(_ transfer: Transfer) { waiting.append(transfer) }

  var counters: StorageCounters {
    var counters = counts
    counters.channel = queue.counters
    counters.late = queue.lateCompletions
    counters.underWay = queue.count
    counters.abandoned = queue.abandoned
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
    delayed.reduce(min(queue.nextDeadline, recovery.deadline)) { min($0, $1.time) }
  }

  mutating func expire(now: UInt64) {
    while let late = queue.nextExpired(now: now) {
      if late.tag == Self.resetTag {
        act(recovery.answered(false, now: now), now)
        continue
      }
      let chunk = chunk(late.tag)
      finish(late)
      counts.timeouts &+= 1
      if let chunk { act(recovery.timedOut(chunk.transfer.lun), now) }
    }
    act(recovery.expire(now: now, missing: queue.abandoned), now)
    for entry in delayed where entry.time <= now { again.append(entry.index) }
    delayed.removeAll { $0.time <= now }
    // The worker may be about to sleep: what waits for the late ones must not wait for ever.
    if isAnnounced, queue.failure == nil { _ = begin() }
    queue.publish()
  }

  private func chunk(_ tag: UInt64) -> Chunk? {
    let index = Int(truncatingIfNeeded: tag)
    return chunks.indices.contains(index) ? chunks[index] : nil
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
    while let index = again.last {
      again.removeLast()
      switch send(index) {
      case .sent: count &+= 1
      case .failed(let error): end(index, error)
      case .noRoom:
        again.append(index)
        return count
      }
    }
    var done = 0
    while done < waiting.count {
      let transfer = waiting[done]
      if transfer.failure != nil || transfer.outcome.isKept {
        // Failed or cancelled: nothing more of it; what is under way ends by itself.
        transfer.begun = transfer.byteCount
        transfer.needsFlush = false
        done &+= 1
        settle(transfer)
        continue
      }
      guard let index = freeChunks.last else { break }
      let isFlush = transfer.needsFlush && transfer.begun == transfer.byteCount
      let chunk =
        isFlush
        ? Chunk.flush(transfer) : Chunk(of: transfer, bufferByteCount: pool.bufferByteCount)
      chunks[index] = chunk
      let outcome = send(index)
      guard case .sent = outcome else {
        chunks[index] = nil
        guard case .failed(let error) = outcome else { break }
        transfer.failure = error
        continue
      }
      freeChunks.removeLast()
      if isFlush { transfer.needsFlush = false }
      transfer.begun &+= chunk.byteCount
      transfer.chunksUnderWay &+= 1
      count &+= 1
      if transfer.begun == transfer.byteCount { done &+= 1 }
    }
    waiting.removeFirst(done)
    if !waiting.isEmpty || !again.isEmpty { giveUpIfStuck() }
    return count
  }

  private enum Outcome {
    case sent, noRoom
    case failed(StorageError)
  }

  /// Sends a chunk's first request.
  private mutating func send(_ index: Int) -> Outcome {
    guard let chunk = chunks[index] else { return .sent }
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
    let index = Int(truncatingIfNeeded: completion.tag)
    guard chunks.indices.contains(index), let chunk = chunks[index] else { return }
    switch completion.result {
    case .failure(let error): failed(index, chunk, error)
    case .success(let moved) where chunk.isCounted && moved != chunk.dataByteCount:
      end(index, .shortTransfer(asked: chunk.dataByteCount, moved: moved))
    case .success(let moved):
      var buffer = completion.buffer.take()
      switch chunk.step {
      case .read, .command:
        chunk.transfer.moved = moved
        if var filled = buffer.take() { copyOut(chunk, moved, &filled) }
        // The system may have taken the memory away meanwhile.
        end(index, queue.hasLostMemory ? .channel(.ended(.rescinded)) : nil)
      case .write, .flush, .unmap, .fill:
        end(index, nil)
      case .fetchForWrite:
        chunks[index]?.step = .write
        var next = chunk
        next.step = .write
        if var fetched = buffer.take() {
          prepare(next, &fetched)
          buffer = .some(fetched)
        }
        do throws(StorageError) {
          try send(next, &buffer, UInt64(index))
        } catch .wouldBlock {
          // Nobody else can change these blocks meanwhile: fetching again is the same.
          repeatChunk(index)
          again.append(index)
        } catch {
          end(index, error)
        }
      }
    }
  }

  private mutating func failed(_ index: Int, _ chunk: Chunk, _ error: StorageError) {
    if let wait = retry.wait(
      error, attempts: chunk.attempts, isIdempotent: chunk.isIdempotent), queue.failure == nil
    {
      counts.retries &+= 1
      repeatChunk(index)
      if wait == 0 {
        again.append(index)
      } else {
        delayed.append((index, MonotonicClock.now() &+ wait))
      }
      return
    }
    if chunk.step == .fill, error.isUnknownCommand, chunk.transfer.isZeroing {
      // The disk can't fill after all: the same blocks are written, from this chunk's start on.
      chunk.transfer.unit?.forgetFill()
      chunk.transfer.fallsBack = true
      chunk.transfer.begun = min(chunk.transfer.begun, chunk.offsetInTransfer)
      if !waiting.contains(where: { $0 === chunk.transfer }) { waiting.append(chunk.transfer) }
      return end(index, nil)
    }
    if error.isUnitGone, chunk.transfer.unit != nil {
      return end(index, .removed(lun: chunk.transfer.lun))
    }
    end(index, error)
  }

  private mutating func repeatChunk(_ index: Int) {
    guard var chunk = chunks[index] else { return }
    chunk.attempts &+= 1
    if chunk.isPartial { chunk.step = .fetchForWrite }
    chunks[index] = chunk
  }

  private mutating func end(_ index: Int, _ error: StorageError?) {
    guard let chunk = chunks[index] else { return }
    chunks[index] = nil
    freeChunks.append(index)
    let transfer = chunk.transfer
    transfer.chunksUnderWay &-= 1
    transfer.failure = transfer.failure ?? error
    settle(transfer)
  }

  /// Tells the user when the last chunk has ended.
  private mutating func settle(_ transfer: Transfer) {
    guard transfer.chunksUnderWay == 0 else { return }
    guard transfer.failure != nil || transfer.begun == transfer.byteCount else { return }
    if transfer.failure == nil, transfer.needsFlush, !transfer.outcome.isKept {
      waiting.append(transfer)
      return
    }
    transfer.settle(transfer.failure)
  }

  /// When nothing is under way but requests that timed out, and they keep all the room, nothing
  /// would ever begin.
  private mutating func giveUpIfStuck() {
    guard queue.abandoned > 0, queue.abandoned == queue.count else { return }
    guard queue.isFull || lacksMemory else { return }
    for index in again { end(index, .timedOut) }
    again.removeAll()
    let stuck = waiting
    waiting.removeAll()
    for transfer in stuck where transfer.chunksUnderWay == 0 {
      transfer.failure = transfer.failure ?? .timedOut
      transfer.settle(transfer.failure)
    }
    waiting.append(contentsOf: stuck.filter { $0.chunksUnderWay > 0 })
  }
}
