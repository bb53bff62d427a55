// SPDX-License-Identifier: Apache-2.0

public import NetworkProtocol
public import PacketIO
public import Platform
import Synchronization
public import SystemPackage

/// Joins a guest to this machine's network stack, through a TAP device with a queue for each channel.
///
/// One guest at a time: the device has one cable.
public final class TapBackend: NetworkBackend {
  private let device: TapDevice
  private let pool = AdapterPool()
  private let isConnected = Atomic<Bool>(false)

  /// Takes a device that has, or may get, a queue for each channel.
  public init(_ device: TapDevice) {
    self.device = device
    // The stack spreads its frames over all queues that there are, and a guest may open fewer channels
    // than it is offered: what went to a queue that nobody reads would be lost.
    device.removeQueues(to: 1)
  }

  public func connect(address: MACAddress) throws(Errno) -> NetworkAdapter {
    guard !isConnected.exchange(true, ordering: .relaxed) else { throw .resourceBusy }
    let adapter = pool.take(address)
    offloadsChanged(adapter, coalescesIPv4: false, coalescesIPv6: false)
    linkChanged(adapter, isUp: true)
    return adapter
  }

  public func disconnect(_ adapter: NetworkAdapter) {
    // The next guest, or this one again, may open fewer channels.
    device.removeQueues(to: 1)
    isConnected.store(false, ordering: .relaxed)
  }

  public func recycle(_ adapter: NetworkAdapter) { pool.put(adapter) }

  public func linkChanged(_ adapter: NetworkAdapter, isUp: Bool) {
    // A kernel that can't tell the stack still has a link that carries nothing.
    try? device.setCarrier(isUp)
  }

  public func offloadsChanged(
    _ adapter: NetworkAdapter, coalescesIPv4: Bool, coalescesIPv6: Bool
  ) {
    var offloads: TapDevice.Offloads = .checksum
    if coalescesIPv4 { offloads.insert(.tcpIPv4) }
    if coalescesIPv6 { offloads.insert(.tcpIPv6) }
    // Frames of several segments are cut here for a guest that takes none.
    try? device.setOffloads(offloads)
  }

  public func open(
    _ channel: consuming sending NetworkChannel, on worker: Worker
  ) throws(Errno) {
    let (adapter, index) = (channel.adapter, channel.queue)
    let queue = try makeQueue(index)
    let watched = try makeQueue(index)
    let inbox = try FrameInbox(adapter, queue: index, on: worker)
    channel.serve(
      TapPort(
        inbox, queue, WatchedTapQueue(watched), adapter.state, index: index, on: worker), on: worker
    )
  }
}

extension TapBackend {
  private func makeQueue(_ index: Int) throws(Errno) -> TapQueue {
    do throws(TapError) {
      try device.addQueues(to: index + 1)
      return try device.queue(index)
    } catch {
      throw .ioError
    }
  }
}

/// A descriptor of a queue for the worker that waits on it: it must outlive the waiting.
final class WatchedTapQueue: Sendable {
  let queue: TapQueue

  init(_ queue: consuming TapQueue) { self.queue = queue }
}

/// One channel's queue of a TAP device, and frames of this guest that other queues have read.
@safe
public struct TapPort: NetworkPort, ~Copyable {
  private var inbox: FrameInbox
  private var queue: TapQueue
  private let watched: WatchedTapQueue
  private let worker: Worker
  private let state: AdapterState
  private let index: Int
  private let buffer: FrameScratch
  private let tagged = TaggedFrame()
  /// The frame at the start of the buffer.
  private var pending: FrameInfo?
  private var isFromInbox = false
  private var isWatched = true

  init(
    _ inbox: consuming FrameInbox, _ queue: consuming TapQueue, _ watched: WatchedTapQueue,
    _ state: AdapterState, index: Int, on worker: Worker
  ) {
    self.inbox = inbox
    self.queue = queue
    self.watched = watched
    self.worker = worker
    self.state = state
    self.index = index
    // Larger than any frame, so that one that is cut off is seen.
    buffer = FrameScratch(byteCount: TapQueue.maximumFrameByteCount + 64)
    // Level-triggered: it wakes as long as there are frames, which polls read.
    worker.watch(watched.queue.rawValue) { _ = watched }
  }

  deinit { if isWatched { worker.unwatch(watched.queue.rawValue) } }

  public mutating func send(_ frame: RawSpan, _ info: FrameInfo) {
    guard let vlan = info.vlan else {
      _ = queue.write(frame, info.offload)
      return
    }
    var offload = info.offload
    let count = tagged.write(frame, vlan, &offload)
    // Safe: so many bytes were just written there.
    _ = queue.write(unsafe RawSpan(_unsafeStart: tagged.memory.start, byteCount: count), offload)
  }

  public mutating func next() -> FrameInfo? {
    if let info = inbox.queue.next() {
      isFromInbox = true
      return info
    }
    isFromInbox = false
    if pending != nil { return pending }
    for _ in 0..<64 {
      var memory = unsafe MutableRawSpan(_unsafeStart: buffer.start, byteCount: buffer.byteCount)
      switch queue.read(into: &memory) {
      case .frame(let count, let offload):
        if take(count, offload) { return pending }
      case .none, .ended: return nil
      case .dropped: continue
      }
    }
    return nil
  }

  /// Keeps the frame that was read if it is for this channel; hands it on if it is for another.
  private mutating func take(_ count: Int, _ offload: FrameOffload) -> Bool {
    guard count >= 14, count <= buffer.byteCount else { return false }
    var info = FrameInfo(byteCount: count, offload: offload)
    // Safe: so many bytes of the buffer, which is this value's.
    var read = unsafe MutableRawSpan(_unsafeStart: buffer.start, byteCount: count)
    if let tag = VLANTag.remove(from: &read, &info.offload) {
      info.vlan = VLANInfo(tag: tag)
      info.byteCount -= VLANTag.byteCount
    }
    let frame = unsafe RawSpan(_unsafeStart: buffer.start, byteCount: info.byteCount)
    guard state.wants(frame) else { return false }
    let target = state.queue(for: frame, &info)
    guard target == index else {
      _ = state.deliver(frame, info, to: target)
      return false
    }
    pending = info
    return true
  }

  @_lifetime(&self)
  public mutating func frame(_ info: FrameInfo) -> MutableRawSpan {
    if isFromInbox { return inbox.frame(info.byteCount) }
    let count = min(info.byteCount, buffer.byteCount)
    // Safe: within the buffer, which is this value's.
    return unsafe _overrideLifetime(
      MutableRawSpan(_unsafeStart: buffer.start, byteCount: count), mutating: &self)
  }

  public mutating func release() {
    if isFromInbox { return inbox.queue.release() }
    pending = nil
  }

  public mutating func arm() -> Bool {
    if !isWatched {
      isWatched = true
      let watched = watched
      worker.watch(watched.queue.rawValue) { _ = watched }
    }
    // Both: what is read here may be another channel's.
    return inbox.queue.arm() || next() != nil
  }
  public mutating func disarm() { inbox.queue.disarm() }

  /// The device's frames stay there, and would wake the worker again and again.
  public mutating func park() {
    guard isWatched else { return }
    isWatched = false
    worker.unwatch(watched.queue.rawValue)
  }
}
