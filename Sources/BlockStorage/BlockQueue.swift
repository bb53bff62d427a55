// SPDX-License-Identifier: Apache-2.0

public import VSC

/// A disk on one queue of its device, for programs that drive it in bursts from a worker's thread: what
/// the queues of all kinds of disks have in common.
public protocol BlockQueue: ~Copyable, SendableMetatype {
  /// Who sees the data in DMA memory.
  associatedtype Memory: Visibility

  /// Nil until the start-up is over.
  var disk: DiskInformation? { get }
  /// Why the queue can be used no more, or nil while it can.
  var failure: StorageError? { get }
  var counters: ChannelCounters { get }
  /// Packets or entries taken from the device so far, those included that were dropped.
  var received: UInt64 { get }
  /// Requests under way, those included that timed out and whose completion has not come.
  var count: Int { get }

  /// Reads blocks to the start of the buffer, which is nil after success.
  mutating func read(
    at block: UInt64, blockCount: Int, into buffer: inout DMABuffer<Memory>?, tag: UInt64
  ) throws(StorageError)
  /// Writes blocks from the start of the buffer, which is nil after success.
  mutating func write(
    at block: UInt64, blockCount: Int, from buffer: inout DMABuffer<Memory>?, tag: UInt64,
    forced: Bool
  ) throws(StorageError)
  /// The next request that has ended, or nil when there is none now.
  mutating func next() -> StorageCompletion<Memory>?
  /// Shows the device what was sent. Call it once after a burst.
  mutating func publish()
  /// Asks for an interrupt. Returns true when there is something to do already.
  mutating func arm() -> Bool
  mutating func disarm()
  /// When `nextExpired` is to be called; nanoseconds of the monotonic clock.
  var nextDeadline: UInt64 { get }
  /// The next request that is late, or nil when there is none. The device keeps its buffer.
  mutating func nextExpired(now: UInt64) -> StorageCompletion<Memory>?
}
