// SPDX-License-Identifier: Apache-2.0

public import NetworkProtocol
public import Platform
public import SystemPackage

/// Gives each guest its own frames back, as they are, on the channel that they belong to.
public final class LoopbackBackend: NetworkBackend {
  private let pool = AdapterPool()

  public init() {}

  public func connect(address: MACAddress) -> NetworkAdapter { pool.take(address) }
  public func recycle(_ adapter: NetworkAdapter) { pool.put(adapter) }

  public func open(
    _ channel: consuming sending NetworkChannel, on worker: Worker
  ) throws(Errno) {
    let adapter = channel.adapter
    let inbox = try FrameInbox(adapter, queue: channel.queue, on: worker)
    channel.serve(LoopbackPort(inbox, adapter, self), on: worker)
  }
}

/// One channel's end of it.
public struct LoopbackPort: NetworkPort, ~Copyable {
  private var inbox: FrameInbox
  private let adapter: AdapterState
  /// Keeps the memory of adapters that others use.
  private let backend: LoopbackBackend

  init(
    _ inbox: consuming FrameInbox, _ adapter: NetworkAdapter, _ backend: LoopbackBackend
  ) {
    self.inbox = inbox
    self.adapter = adapter.state
    self.backend = backend
  }

  public mutating func send(_ frame: RawSpan, _ info: FrameInfo) {
    guard !adapter.filter.isEmpty, adapter.isLinkUp else { return }
    let head = FrameHead(frame)
    var info = info
    let queue = adapter.queue(for: head.span, &info)
    _ = adapter.deliver(frame, info, to: queue)
  }

  public mutating func next() -> FrameInfo? { inbox.queue.next() }

  @_lifetime(&self)
  public mutating func frame(_ info: FrameInfo) -> MutableRawSpan { inbox.frame(info.byteCount) }

  public mutating func release() { inbox.queue.release() }
  public mutating func arm() -> Bool { inbox.queue.arm() }
  public mutating func disarm() { inbox.queue.disarm() }
}
