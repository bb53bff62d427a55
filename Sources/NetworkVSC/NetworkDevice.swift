// SPDX-License-Identifier: Apache-2.0

public import NetworkProtocol
import Platform
import Synchronization
public import VSC

/// A network device for everybody: any task may send frames, and one receives them.
///
/// Frames are copied. Those of one flow go on one queue, as the host wants it, and stay in order. The
/// burst face is `NetworkQueue`.
public final class NetworkDevice: Sendable {
  /// A frame that was received.
  public struct Frame: Sendable, Equatable {
    public var bytes: [UInt8]
    public var info: PerPacketInfo
    /// The queue that it came by.
    public var queue: Int
  }

  public let interface: NetworkInterface
  private let frames: NetworkFrames
  private let hash: Toeplitz

  private init(_ interface: NetworkInterface, _ frames: NetworkFrames, _ hash: Toeplitz) {
    self.interface = interface
    self.frames = frames
    self.hash = hash
  }

  /// Starts a device.
  ///
  /// - Throws: `NetworkError`, `TransportError`.
  public static func open(
    _ device: Device, _ configuration: NetworkConfiguration = NetworkConfiguration(),
    events: @escaping @Sendable (NetworkEvent) -> Void = { _ in }
  ) async throws -> NetworkDevice {
    let frames = NetworkFrames()
    let interface = try await NetworkVSC.open(
      device, configuration, user: frames, events: events)
    interface.whenEnded { _ in frames.end() }
    return NetworkDevice(interface, frames, Toeplitz(configuration.rssKey))
  }

  public var information: NetworkInformation { interface.information }

  /// Frames that were dropped because nobody received them.
  public var missed: UInt64 { frames.missed }

  /// Sends a frame. Returns when it lies in memory that the host is told of.
  public func send(
    _ bytes: [UInt8], _ info: PerPacketInfo = PerPacketInfo()
  ) async throws(NetworkError) {
    let flow = unsafe hash.hash(frame: bytes.span.bytes)?.value ?? 0
    let table = interface.information.sendTable
    let queue = table.isEmpty ? 0 : table[Int(flow % UInt32(table.count))]
    let promise = Promise<NetworkError?>()
    frames.send(NetworkFrames.Outgoing(bytes: bytes, info: info, promise: promise), on: queue)
    if let error = await promise.value() { throw error }
  }

  /// The next frame, or nil when the device is over or the task is cancelled. One task may wait.
  public func receive() async -> Frame? { await frames.receive() }

  /// Ends the device; returns when the host is known to be done with its memory.
  public func close() async { await interface.close() }
}

/// Frames between tasks and the workers of the queues.
final class NetworkFrames: NetworkQueueUser {
  struct Outgoing: Sendable {
    var bytes: [UInt8]
    var info: PerPacketInfo
    var promise: Promise<NetworkError?>
  }

  private struct State {
    /// By the queue's number.
    var outboxes: [FrameOutbox] = []
    var received: [NetworkDevice.Frame] = []
    var waiting: Promise<NetworkDevice.Frame?>?
    var missed: UInt64 = 0
    var isOver = false
  }

  private let state = Lock(State())

  /// Frames that wait to be received, at most.
  private static let limit = 4096

  func attach<Ring: Visibility, External: Visibility>(
    _ queue: consuming sending NetworkQueue<Ring, External>, to worker: Worker
  ) {
    let outbox = FrameOutbox(worker)
    let number = queue.number
    state.withLock { $0.outboxes.append(outbox) }
    _ = worker.attach(NetworkFrameService(queue, outbox, self, number: number))
  }

  var missed: UInt64 { state.withLock { $0.missed } }

  func send(_ frame: Outgoing, on queue: Int) {
    let outbox = state.withLock { state in
      state.outboxes.indices.contains(queue) ? state.outboxes[queue] : state.outboxes.first
    }
    guard let outbox else {
      frame.promise.keep(.notReady)
      return
    }
    outbox.put(frame)
  }

  func add(_ frame: NetworkDevice.Frame) {
    let waiting = state.withLock { state -> Promise<NetworkDevice.Frame?>? in
      if let waiting = state.waiting {
        state.waiting = nil
        return waiting
      }
      if state.received.count < Self.limit {
        state.received.append(frame)
      } else {
        state.missed += 1
      }
      return nil
    }
    waiting?.keep(frame)
  }

  func receive() async -> NetworkDevice.Frame? {
    let promise = Promise<NetworkDevice.Frame?>()
    let old = state.withLock { state -> Promise<NetworkDevice.Frame?>? in
      guard state.received.isEmpty else {
        promise.keep(state.received.removeFirst())
        return nil
      }
      guard !state.isOver else {
        promise.keep(nil)
        return nil
      }
      let old = state.waiting
      state.waiting = promise
      return old
    }
    // Only one may wait.
    old?.keep(nil)
    return await withTaskCancellationHandler {
      await promise.value()
    } onCancel: {
      state.withLock { if $0.waiting === promise { $0.waiting = nil } }
      promise.keep(nil)
    }
  }

  func end() {
    let waiting = state.withLock { state in
      state.isOver = true
      let waiting = state.waiting
      state.waiting = nil
      return waiting
    }
    waiting?.keep(nil)
  }
}

/// Frames that one queue is to send.
final class FrameOutbox: Sendable {
  private struct State {
    var frames: [NetworkFrames.Outgoing] = []
    var isClosed = false
  }

  private let worker: Worker
  private let state = Lock(State())

  init(_ worker: Worker) { self.worker = worker }

  func put(_ frame: NetworkFrames.Outgoing) {
    let isClosed = state.withLock { state in
      if !state.isClosed { state.frames.append(frame) }
      return state.isClosed
    }
    if isClosed {
      frame.promise.keep(.channel(.ended(.closed)))
    } else {
      // Wakes the worker, which polls.
      worker.post {}
    }
  }

  func take(last: Bool = false) -> [NetworkFrames.Outgoing] {
    state.withLock { state in
      let frames = state.frames
      state.frames = []
      state.isClosed = state.isClosed || last
      return frames
    }
  }
}

/// One queue behind the async face.
struct NetworkFrameService<Ring: Visibility, External: Visibility>: Pollable, ~Copyable {
  private var queue: NetworkQueue<Ring, External>
  private let outbox: FrameOutbox
  private let frames: NetworkFrames
  private let number: Int
  private var burst = ReceiveBurst(capacity: 64)
  private var pending: [NetworkFrames.Outgoing] = []

  init(
    _ queue: consuming NetworkQueue<Ring, External>, _ outbox: FrameOutbox,
    _ frames: NetworkFrames, number: Int
  ) {
    self.queue = queue
    self.outbox = outbox
    self.frames = frames
    self.number = number
  }

  deinit {
    let error = queue.failure ?? .channel(.ended(.closed))
    for frame in pending + outbox.take(last: true) { frame.promise.keep(error) }
  }

  mutating func poll(budget: Int) -> Int? {
    let before = queue.received
    _ = queue.receive(into: &burst)
    while let packet = burst.popFirst() {
      frames.add(
        NetworkDevice.Frame(bytes: packet.copied, info: packet.info, queue: number))
    }
    pending += outbox.take()
    var sent = 0
    send: for frame in pending {
      do throws(NetworkError) {
        try queue.send(unsafe frame.bytes.span.bytes, frame.info)
        frame.promise.keep(nil)
      } catch .wouldBlock {
        break send
      } catch {
        frame.promise.keep(error)
      }
      sent += 1
    }
    pending.removeFirst(sent)
    queue.publish()
    if queue.failure != nil { return nil }
    return Int(truncatingIfNeeded: queue.received &- before) &+ sent
  }

  mutating func arm() -> Bool { queue.arm() }
  mutating func disarm() { queue.disarm() }
  var nextDeadline: UInt64 { queue.nextDeadline }
  mutating func expire(now: UInt64) { queue.expire(now: now) }
}

extension ReceivedPacket {
  /// The whole frame as an array.
  fileprivate var copied: [UInt8] {
    var bytes = [UInt8](repeating: 0, count: byteCount)
    var span = bytes.mutableSpan
    var target = unsafe span.mutableBytes
    copy(into: &target)
    return bytes
  }
}
