// SPDX-License-Identifier: Apache-2.0

import DriverProgram
import NetworkProtocol
import NetworkVSC
import VSC

/// What one queue did in one measurement.
struct BenchPart: Sendable {
  var nanoseconds: UInt64 = 0
  var sent: UInt64 = 0
  var received: UInt64 = 0
  var receivedBytes: UInt64 = 0
  /// Frames that came back, by how long that took.
  var latencies: Latencies.Record
  var lost: UInt64 = 0
  var doorbells: UInt64 = 0
}

/// Sends frames as fast as the device takes them, and counts those that come.
@safe
struct BenchLoop<Ring: Visibility, External: Visibility>: Pollable, ~Copyable {
  /// Frames that are sent between two looks at what has come.
  private static var burstCount: Int { 32 }
  /// Behind the Ethernet header: what tells that a frame is this program's.
  private static var mark: UInt64 { 0x5653_4342_454E_4348 }
  /// How long frames are waited for: what the other end drops does not come.
  private static var patience: UInt64 { 100_000_000 }

  private var queue: NetworkQueue<Ring, External>
  private var burst = ReceiveBurst(capacity: 64)
  /// The frame that is sent: Ethernet header, mark, time, zeros.
  private let template: UnsafeMutableRawBufferPointer
  private var byteCount = 0
  private var sends = false
  /// Frames that may be on their way; 0 for no limit.
  private var depth: UInt64 = 0
  /// When it sends again although `depth` frames are on their way.
  private var waitEnd = UInt64.max
  private var isRunning = false
  private var start: UInt64 = 0
  private var sent: UInt64 = 0
  private var received: UInt64 = 0
  private var receivedBytes: UInt64 = 0
  /// Frames of this loop's that came back, and when the last one did.
  private var echoes: UInt64 = 0
  private var lastEcho: UInt64 = 0
  private var lost: UInt64 = 0
  private var doorbells: UInt64 = 0
  private var latencies = Latencies()

  init(_ queue: consuming NetworkQueue<Ring, External>) {
    self.queue = queue
    unsafe template = .allocate(byteCount: 16384, alignment: 64)
    unsafe template.initializeMemory(as: UInt8.self, repeating: 0)
  }

  deinit { unsafe template.deallocate() }

  // For the reason that `Pollable.poll` tells.
  @_specialize(where Ring == HostVisible, External == HostVisible)
  @_specialize(where Ring == Encrypted, External == HostVisible)
  @_specialize(where Ring == Encrypted, External == Encrypted)
  mutating func poll(budget: Int) -> Int? {
    let before = queue.received
    if queue.receive(into: &burst) > 0 { take() }
    let count = isRunning && sends ? send() : 0
    queue.publish()
    if queue.failure != nil { return nil }
    return count &+ Int(truncatingIfNeeded: queue.received &- before)
  }

  mutating func arm() -> Bool { queue.arm() }
  mutating func disarm() { queue.disarm() }
  // The poll that follows sends.
  var nextDeadline: UInt64 { min(queue.nextDeadline, waitEnd) }
  mutating func expire(now: UInt64) { queue.expire(now: now) }

  // MARK: - Measuring

  /// Begins to count, and to send.
  mutating func begin(_ plan: BenchPlan.Run, from own: MACAddress) {
    byteCount = plan.byteCount
    sends = plan.direction != .receive
    depth = plan.direction == .both ? plan.depth : 0
    waitEnd = .max
    (sent, received, receivedBytes, echoes, lost) = (0, 0, 0, 0, 0)
    latencies = Latencies()
    doorbells = queue.statistics.channel.doorbells
    for index in 0..<6 {
      unsafe template[index] = plan.destination.bytes[index]
      unsafe template[6 + index] = own.bytes[index]
    }
    // An EtherType for experiments.
    unsafe template[12] = 0x88
    unsafe template[13] = 0xB5
    unsafe template.storeBytes(of: Self.mark, toByteOffset: 14, as: UInt64.self)
    start = MonotonicClock.now()
    lastEcho = start
    isRunning = true
  }

  mutating func end() -> BenchPart {
    isRunning = false
    waitEnd = .max
    return BenchPart(
      nanoseconds: MonotonicClock.now() &- start, sent: sent, received: received,
      receivedBytes: receivedBytes, latencies: latencies.record, lost: lost,
      doorbells: queue.statistics.channel.doorbells &- doorbells)
  }

  /// Frames so far, for the display.
  var progress: UInt64 { sent &+ received }

  private mutating func send() -> Int {
    var room = UInt64(Self.burstCount)
    let now = MonotonicClock.now()
    waitEnd = .max
    if depth > 0 {
      // What came back after all is not lost.
      lost = min(lost, sent &- min(echoes, sent))
      let out = sent &- min(echoes, sent) &- lost
      if out < depth {
        room = min(room, depth &- out)
      } else if now &- lastEcho < Self.patience {
        waitEnd = lastEcho &+ Self.patience
        return 0
      } else if echoes > 0 {
        lost &+= out
        lastEcho = now
      }
      // Else nothing came back at all: the other end only takes frames.
    }
    unsafe template.storeBytes(of: now, toByteOffset: 22, as: UInt64.self)
    // Safe: the memory is this loop's own, and larger than any frame.
    let frame = unsafe RawSpan(
      _unsafeBytes: UnsafeRawBufferPointer(rebasing: template[0..<byteCount]))
    var count: UInt64 = 0
    while count < room {
      do throws(NetworkError) {
        try queue.send(frame)
      } catch {
        break
      }
      count &+= 1
    }
    sent &+= count
    return Int(truncatingIfNeeded: count)
  }

  private mutating func take() {
    let now = MonotonicClock.now()
    while let packet = burst.popFirst() { account(packet, now) }
  }

  // A function of its own: where the frame's bytes are looked at in the loop, the compiler allocates a box
  // for each frame.
  @inline(__always)
  private mutating func account(_ packet: consuming ReceivedPacket, _ now: UInt64) {
    guard isRunning else { return }
    received &+= 1
    receivedBytes &+= UInt64(truncatingIfNeeded: packet.byteCount)
    let bytes = packet.bytes
    guard sends, bytes.byteCount >= 30 else { return }
    // Safe: the bytes are there, as was just found.
    let mark = unsafe bytes.unsafeLoadUnaligned(fromUncheckedByteOffset: 14, as: UInt64.self)
    guard mark == Self.mark else { return }
    let time = unsafe bytes.unsafeLoadUnaligned(fromUncheckedByteOffset: 22, as: UInt64.self)
    // One of an earlier measurement, or what a host made of it.
    guard time >= start, time <= now else { return }
    echoes &+= 1
    lastEcho = now
    latencies.record(now &- time)
  }
}
