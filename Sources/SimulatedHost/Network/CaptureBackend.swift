// SPDX-License-Identifier: Apache-2.0

public import NetworkProtocol
public import PacketIO
public import Platform
public import SystemPackage

/// Writes what guests send to a capture file, with its checksums completed, and sends nothing.
public final class CaptureBackend: NetworkBackend {
  private let capture: FrameCapture
  private let pool = AdapterPool(queueCapacity: 1)

  public init(_ capture: FrameCapture) { self.capture = capture }

  public func connect(address: MACAddress) throws(Errno) -> NetworkAdapter { pool.take(address) }

  public func disconnect(_ adapter: NetworkAdapter) { try? capture.flush() }
  public func recycle(_ adapter: NetworkAdapter) { pool.put(adapter) }

  public func open(
    _ channel: consuming sending NetworkChannel, on worker: Worker
  ) throws(Errno) {
    let (adapter, queue) = (channel.adapter, channel.queue)
    let opening = try adapter.openQueue(queue).opening
    channel.serve(CapturePort(adapter, capture, queue: queue, opening: opening), on: worker)
  }
}

/// One channel's end of it.
public struct CapturePort: NetworkPort, ~Copyable {
  private let adapter: NetworkAdapter
  private let capture: FrameCapture
  private let queue: Int
  private let opening: Int
  private let tagged = TaggedFrame()
  /// Frames that the file has not.
  public private(set) var failures: UInt64 = 0

  init(_ adapter: NetworkAdapter, _ capture: FrameCapture, queue: Int, opening: Int) {
    self.adapter = adapter
    self.capture = capture
    self.queue = queue
    self.opening = opening
  }

  deinit {
    adapter.closeQueue(queue, opening: opening)
    try? capture.flush()
  }

  public mutating func send(_ frame: RawSpan, _ info: FrameInfo) {
    do throws(Errno) {
      if let vlan = info.vlan {
        var offload = info.offload
        let count = tagged.write(frame, vlan, &offload)
        // Safe: so many bytes were just written there.
        let bytes = unsafe RawSpan(_unsafeStart: tagged.memory.start, byteCount: count)
        try capture.record(bytes, offload, direction: .received)
      } else {
        try capture.record(frame, info.offload, direction: .received)
      }
    } catch {
      // A full disk must not stop the guest.
      failures &+= 1
    }
  }

  public mutating func next() -> FrameInfo? { nil }

  @_lifetime(&self)
  public mutating func frame(_ info: FrameInfo) -> MutableRawSpan { MutableRawSpan() }

  public mutating func release() {}

  /// When it grows quiet, what was collected is written.
  public mutating func arm() -> Bool {
    try? capture.flush()
    return false
  }
}
