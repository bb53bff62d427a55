// SPDX-License-Identifier: Apache-2.0

import NetworkProtocol
import Platform
import SystemPackage

/// The receiving half of a port: a channel's queue, and the worker that its event wakes.
struct FrameInbox: ~Copyable {
  let queue: FrameQueue
  private let owner: FrameQueueOwner
  private let adapter: NetworkAdapter
  private let index: Int
  private let opening: Int
  private let worker: Worker

  init(_ adapter: NetworkAdapter, queue index: Int, on worker: Worker) throws(Errno) {
    let (owner, opening) = try adapter.openQueue(index)
    self.opening = opening
    queue = owner.queue
    self.owner = owner
    self.adapter = adapter
    self.index = index
    self.worker = worker
    worker.watch(owner.event.rawValue) { owner.event.drain() }
  }

  deinit {
    adapter.closeQueue(index, opening: opening)
    worker.unwatch(owner.event.rawValue)
  }

  /// The bytes of the frame that `queue.next` has told of.
  @_lifetime(&self)
  mutating func frame(_ byteCount: Int) -> MutableRawSpan {
    // Safe: the frame's place is this channel's until it is released.
    unsafe _overrideLifetime(
      MutableRawSpan(_unsafeBytes: queue.frame(byteCount)), mutating: &self)
  }
}

/// A private copy of a frame's first bytes: enough for all headers that decide where it goes.
struct FrameHead: ~Copyable {
  private var bytes = InlineArray<96, UInt8>(repeating: 0)
  private let count: Int

  init(_ frame: RawSpan) {
    count = min(frame.byteCount, 96)
    var span = bytes.mutableSpan
    // Safe: any bit pattern is a UInt8, and the bounds are checked.
    unsafe span.withUnsafeMutableBytes { target in
      unsafe frame.withUnsafeBytes { source in
        unsafe target.copyMemory(
          from: UnsafeRawBufferPointer(rebasing: source.prefix(min(source.count, 96))))
      }
    }
  }

  var span: RawSpan {
    @_lifetime(borrow self)
    get { unsafe bytes.span.bytes.extracting(first: count) }
  }
}
