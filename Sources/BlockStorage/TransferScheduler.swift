// SPDX-License-Identifier: Apache-2.0

internal import Platform

/// Which request goes next, and what becomes of one that has ended: a worker's transfers and the chunks
/// that they are cut into, as a value without I/O.
///
/// A service asks `next` for requests until there are none or no room for one, and tells of each how that
/// went: `sent`, `noRoom` or `refused`; then `finishRound`. A request that has ended is told with `end` or
/// `failed`.
package struct TransferScheduler {
  private var waiting: [Transfer] = []
  private var chunks: [Chunk?]
  private var freeChunks: [Int]
  /// Chunks that are to be sent again.
  private var again: [Int] = []
  /// The same, but not before a time.
  private var delayed: [(index: Int, time: UInt64)] = []
  private let retry: RetryPolicy
  /// Transfers at the front that are begun completely.
  private var done = 0
  /// The chunk that `next` has made, and which nobody has told of.
  private var fresh: (index: Int, isFlush: Bool)?
  /// Requests that were sent again.
  package private(set) var retries: UInt64 = 0

  /// - Parameter depth: requests at one time.
  package init(depth: Int, retry: RetryPolicy) {
    self.retry = retry
    chunks = Array(repeating: nil, count: depth)
    freeChunks = Array((0..<depth).reversed())
  }

  package mutating func add(_ transfer: Transfer) { waiting.append(transfer) }

  /// The request with that tag, if there is one.
  package func chunk(_ tag: UInt64) -> (index: Int, chunk: Chunk)? {
    let index = Int(truncatingIfNeeded: tag)
    guard chunks.indices.contains(index), let chunk = chunks[index] else { return nil }
    return (index, chunk)
  }

  package var isIdle: Bool { waiting.isEmpty && again.isEmpty }

  // MARK: - Beginning

  /// The next request that can be sent, whose tag is the index; nil when there is none.
  package mutating func next(bufferByteCount: Int) -> (index: Int, chunk: Chunk)? {
    fresh = nil
    while let index = again.last {
      again.removeLast()
      if let chunk = chunks[index] { return (index, chunk) }
    }
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
      guard let index = freeChunks.last else { return nil }
      let isFlush = transfer.needsFlush && transfer.begun == transfer.byteCount
      let chunk =
        isFlush ? Chunk.flush(transfer) : Chunk(of: transfer, bufferByteCount: bufferByteCount)
      freeChunks.removeLast()
      chunks[index] = chunk
      fresh = (index, isFlush)
      return (index, chunk)
    }
    return nil
  }

  package mutating func sent(_ index: Int) {
    guard let fresh, fresh.index == index, let chunk = chunks[index] else { return }
    let transfer = chunk.transfer
    if fresh.isFlush { transfer.needsFlush = false }
    transfer.begun &+= chunk.byteCount
    transfer.chunksUnderWay &+= 1
    if transfer.begun == transfer.byteCount { done &+= 1 }
    self.fresh = nil
  }

  /// It could not be sent for now: it is the next one later.
  package mutating func noRoom(_ index: Int) {
    if !forget(index) { again.append(index) }
  }

  /// It can't be sent at all.
  package mutating func refused(_ index: Int, _ error: StorageError) {
    let transfer = chunks[index]?.transfer
    if forget(index) { transfer?.failure = error } else { end(index, error) }
  }

  private mutating func forget(_ index: Int) -> Bool {
    guard fresh?.index == index else { return false }
    fresh = nil
    chunks[index] = nil
    freeChunks.append(index)
    return true
  }

  package mutating func finishRound() {
    if done > 0 { waiting.removeFirst(done) }
    done = 0
  }

  // MARK: - Ending

  /// What was fetched is to be changed and written back: the chunk of that. It is sent at once; if there
  /// is no room, `repeatChunk` has it fetched again.
  package mutating func beginWriteBack(_ index: Int) -> Chunk? {
    chunks[index]?.step = .write
    return chunks[index]
  }

  /// A request has failed: it is sent again, in another form, or it ends.
  ///
  /// - Parameter mayRepeat: false when the device is over.
  package mutating func failed(_ index: Int, _ error: StorageError, mayRepeat: Bool, now: UInt64) {
    guard let chunk = chunks[index] else { return }
    if mayRepeat,
      let wait = retry.wait(error, attempts: chunk.attempts, isIdempotent: chunk.isIdempotent)
    {
      retries &+= 1
      if wait == 0 {
        repeatChunk(index)
      } else {
        prepareAgain(index)
        delayed.append((index, now &+ wait))
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

  /// Sends a chunk once more, from its first step on.
  package mutating func repeatChunk(_ index: Int) {
    prepareAgain(index)
    again.append(index)
  }

  private mutating func prepareAgain(_ index: Int) {
    guard var chunk = chunks[index] else { return }
    chunk.attempts &+= 1
    if chunk.isPartial { chunk.step = .fetchForWrite }
    chunks[index] = chunk
  }

  package mutating func end(_ index: Int, _ error: StorageError?) {
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

  // MARK: - Time, and the end

  /// When `expire` is to be called; nanoseconds of the monotonic clock.
  package var nextDeadline: UInt64 { delayed.reduce(UInt64.max) { min($0, $1.time) } }

  package mutating func expire(now: UInt64) {
    for entry in delayed where entry.time <= now { again.append(entry.index) }
    delayed.removeAll { $0.time <= now }
  }

  /// Nothing would ever begin: all that waits fails, and what is under way stays.
  package mutating func failWaiting(_ error: StorageError) {
    for index in again { end(index, error) }
    again.removeAll()
    let stuck = waiting
    waiting.removeAll()
    for transfer in stuck where transfer.chunksUnderWay == 0 {
      transfer.failure = transfer.failure ?? error
      transfer.settle(transfer.failure)
    }
    waiting.append(contentsOf: stuck.filter { $0.chunksUnderWay > 0 })
  }

  /// All is over: every transfer is told.
  package func settleAll(_ error: StorageError) {
    for transfer in waiting { transfer.settle(error) }
    for case let chunk? in chunks { chunk.transfer.settle(error) }
  }
}
