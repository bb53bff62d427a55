// SPDX-License-Identifier: Apache-2.0

import StorageProtocol
import VSC

/// The core of a `BlockDevice`, on the worker's thread: it cuts transfers into requests, bounces
/// their bytes through DMA memory, and keeps as many under way as the device takes.
struct StorageService<Ring: Visibility, External: Visibility>: Pollable, ~Copyable {
  /// One request of a transfer, or two after each other on the same blocks.
  struct Chunk {
    enum Step { case read, write, flush, fetchForWrite }

    var transfer: Transfer
    var step: Step
    var block: UInt64 = 0
    var blockCount = 0
    /// The part that the user asked for: bytes into the blocks, and into the transfer.
    var offsetInBlocks = 0
    var offsetInTransfer = 0
    var byteCount = 0
    var attempts = 0
    /// Blocks of which the user writes a part.
    var isPartial = false
  }

  private var queue: StorageQueue<Ring, External>
  private var pool: DMAPool<External>
  private let life: ServiceLife
  private var waiting: [Transfer] = []
  private var chunks: [Chunk?]
  private var freeChunks: [Int]
  /// Chunks that are to be sent again.
  private var again: [Int] = []
  private var partialWrites = 0
  private var isAnnounced = false

  /// - Parameter depth: requests at one time.
  init(
    _ queue: consuming StorageQueue<Ring, External>, _ pool: consuming DMAPool<External>,
    depth: Int, life: ServiceLife
  ) {
    self.queue = queue
    self.pool = pool
    self.life = life
    chunks = Array(repeating: nil, count: depth)
    freeChunks = Array((0..<depth).reversed())
  }

  deinit {
    let error = queue.failure ?? .channel(.ended(.closed))
    life.end(error)
    for transfer in waiting { transfer.outcome.keep(error) }
    for case let chunk? in chunks { chunk.transfer.outcome.keep(error) }
  }

  mutating func add(_ transfer: Transfer) { waiting.append(transfer) }

  var counters: ChannelCounters { queue.counters }

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
    if !isAnnounced, let disk = queue.disk {
      isAnnounced = true
      life.ready(disk)
    }
    // `next` has run dry, so all that was under way is told; `deinit` tells the rest.
    if queue.failure != nil { return nil }
    if isAnnounced { work &+= begin() }
    queue.publish()
    return work
  }

  mutating func arm() -> Bool { queue.arm() }
  mutating func disarm() { queue.disarm() }
  var nextDeadline: UInt64 { queue.nextDeadline }

  mutating func expire(now: UInt64) {
    while let late = queue.nextExpired(now: now) { finish(late) }
    // The worker may be about to sleep: what waits for the late ones must not wait for ever.
    if isAnnounced, queue.failure == nil { _ = begin() }
    queue.publish()
  }

  // MARK: - Beginning

  /// Sends what can be sent. Returns how many requests that were.
  private mutating func begin() -> Int {
    var count = 0
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
        done &+= 1
        settle(transfer)
        continue
      }
      guard let index = freeChunks.last, let chunk = nextChunk(of: transfer) else { break }
      chunks[index] = chunk
      let outcome = send(index)
      guard case .sent = outcome else {
        chunks[index] = nil
        guard case .failed(let error) = outcome else { break }
        transfer.failure = error
        continue
      }
      freeChunks.removeLast()
      transfer.begun &+= chunk.byteCount
      transfer.chunksUnderWay &+= 1
      if chunk.isPartial { partialWrites &+= 1 }
      count &+= 1
      if transfer.begun == transfer.byteCount { done &+= 1 }
    }
    waiting.removeFirst(done)
    if !waiting.isEmpty || !again.isEmpty { giveUpIfStuck() }
    return count
  }

  /// The next piece of a transfer, or nil when it has to wait for another write.
  private func nextChunk(of transfer: Transfer) -> Chunk? {
    guard transfer.byteCount > 0 else { return Chunk(transfer: transfer, step: .flush) }
    let size = queue.geometry.blockByteCount
    // The face has checked that the range lies on the disk.
    let start = transfer.offset &+ UInt64(transfer.begun)
    let left = transfer.byteCount &- transfer.begun
    let offset = Int(start & UInt64(size &- 1))
    let most = min(pool.bufferByteCount, queue.geometry.maximumTransferByteCount) & ~(size &- 1)
    var chunk = Chunk(transfer: transfer, step: transfer.isWrite ? .write : .read)
    chunk.block = start / UInt64(size)
    chunk.offsetInBlocks = offset
    chunk.offsetInTransfer = transfer.begun
    if transfer.isWrite {
      if offset != 0 || left < size {
        chunk.isPartial = true
        chunk.step = .fetchForWrite
        chunk.byteCount = min(size &- offset, left)
      } else {
        chunk.byteCount = min(left & ~(size &- 1), most)
      }
    } else {
      chunk.byteCount = min(left, most &- offset)
    }
    chunk.blockCount = (offset &+ chunk.byteCount &+ size &- 1) / size
    return mustWait(chunk) ? nil : chunk
  }

  /// Whether a write to the same blocks is under way of which one writes a part of a block only:
  /// fetching, changing and writing back must not undo another's write.
  private func mustWait(_ chunk: Chunk) -> Bool {
    guard chunk.transfer.isWrite, chunk.isPartial || partialWrites > 0 else { return false }
    for case let other? in chunks
    where other.transfer.isWrite && (chunk.isPartial || other.isPartial) {
      if other.block < chunk.block &+ UInt64(chunk.blockCount),
        chunk.block < other.block &+ UInt64(other.blockCount)
      {
        return true
      }
    }
    return false
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
      if chunk.step == .flush {
        try queue.flush(tag: tag)
        return .sent
      }
      guard var buffer = pool.take() else { return .noRoom }
      if chunk.step == .write { copyIn(chunk, &buffer) }
      var given = Optional.some(buffer)
      if chunk.step == .write {
        try write(chunk, &given, tag)
      } else {
        try queue.read(at: chunk.block, blockCount: chunk.blockCount, into: &given, tag: tag)
      }
      return .sent
    } catch .wouldBlock {
      return .noRoom
    } catch {
      return .failed(error)
    }
  }

  private mutating func write(
    _ chunk: Chunk, _ buffer: inout DMABuffer<External>?, _ tag: UInt64
  ) throws(StorageError) {
    var forced = false
    if case .write(true) = chunk.transfer.kind { forced = true }
    try queue.write(
      at: chunk.block, blockCount: chunk.blockCount, from: &buffer, tag: tag, forced: forced)
  }

  // MARK: - Ending

  private mutating func finish(_ completion: consuming StorageCompletion<External>) {
    let index = Int(truncatingIfNeeded: completion.tag)
    guard chunks.indices.contains(index), let chunk = chunks[index] else { return }
    let size = queue.geometry.blockByteCount
    let asked = chunk.step == .flush ? 0 : chunk.blockCount &* size
    switch completion.result {
    case .failure(let error):
      if error.isTransient, chunk.attempts < 5 { return repeatChunk(index) }
      end(index, error)
    case .success(let moved) where moved != asked:
      end(index, .shortTransfer(asked: asked, moved: moved))
    case .success:
      var buffer = completion.buffer.take()
      switch chunk.step {
      case .read:
        if let buffer = buffer.take() { copyOut(chunk, buffer) }
        end(index, nil)
      case .write, .flush:
        end(index, nil)
      case .fetchForWrite:
        if var fetched = buffer.take() {
          copyIn(chunk, &fetched)
          buffer = .some(fetched)
        }
        chunks[index]?.step = .write
        do throws(StorageError) {
          try write(chunk, &buffer, UInt64(index))
        } catch .wouldBlock {
          // Nobody else can change these blocks meanwhile: fetching again is the same.
          repeatChunk(index)
        } catch {
          end(index, error)
        }
      }
    }
  }

  private mutating func repeatChunk(_ index: Int) {
    guard var chunk = chunks[index] else { return }
    chunk.attempts &+= 1
    if chunk.isPartial { chunk.step = .fetchForWrite }
    chunks[index] = chunk
    again.append(index)
  }

  private mutating func end(_ index: Int, _ error: StorageError?) {
    guard let chunk = chunks[index] else { return }
    chunks[index] = nil
    freeChunks.append(index)
    if chunk.isPartial { partialWrites &-= 1 }
    let transfer = chunk.transfer
    transfer.chunksUnderWay &-= 1
    transfer.failure = transfer.failure ?? error
    settle(transfer)
  }

  /// Tells the user when the last chunk has ended.
  private func settle(_ transfer: Transfer) {
    guard transfer.chunksUnderWay == 0 else { return }
    guard transfer.failure != nil || transfer.begun == transfer.byteCount else { return }
    transfer.outcome.keep(transfer.failure)
  }

  /// When nothing is under way but requests that timed out, and they keep all the room, nothing
  /// would ever begin.
  private mutating func giveUpIfStuck() {
    guard queue.abandoned > 0, queue.abandoned == queue.count else { return }
    guard queue.isFull || pool.available == 0 else { return }
    for index in again { end(index, .timedOut) }
    again.removeAll()
    for transfer in waiting where transfer.chunksUnderWay == 0 {
      transfer.failure = transfer.failure ?? .timedOut
      settle(transfer)
    }
    waiting.removeAll { $0.outcome.isKept }
  }

  // MARK: - Copies

  private func copyIn(_ chunk: Chunk, _ buffer: inout DMABuffer<External>) {
    buffer.withMutableBytes(chunk.offsetInBlocks &+ chunk.byteCount) { target in
      chunk.transfer.copyOut(
        at: chunk.offsetInTransfer, count: chunk.byteCount, toEndOf: &target)
    }
  }

  private func copyOut(_ chunk: Chunk, _ buffer: borrowing DMABuffer<External>) {
    let end = chunk.offsetInBlocks &+ chunk.byteCount
    guard end <= buffer.byteCount else { return }
    chunk.transfer.copyIn(
      at: chunk.offsetInTransfer, buffer.bytes.extracting(chunk.offsetInBlocks..<end))
  }
}
