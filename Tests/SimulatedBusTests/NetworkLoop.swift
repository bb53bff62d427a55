// SPDX-License-Identifier: Apache-2.0

import NetworkProtocol
import NetworkVSC
import Platform
import Synchronization
import VSC

/// What a test's packet loop has seen.
final class LoopCounts: Sendable {
  struct Queue: Sendable, Equatable {
    var received: UInt64 = 0
    var sent: UInt64 = 0
    /// UDP source ports of received frames.
    var ports: Set<UInt16> = []
    /// Frames whose bytes are not what was sent.
    var wrong: UInt64 = 0
  }

  private let queues = Lock<[Int: Queue]>([:])

  func update(_ number: Int, _ change: (inout Queue) -> Void) {
    queues.withLock { change(&$0[number, default: Queue()]) }
  }

  var all: [Int: Queue] { queues.withLock { $0 } }
  var received: UInt64 { all.values.reduce(0) { $0 + $1.received } }
}

/// Sends frames of a pattern, as many as it is told to, and looks at those that come back.
struct LoopUser: NetworkQueueUser {
  var counts: LoopCounts
  /// Of each queue.
  var sends: UInt64
  var frameByteCount: Int

  func attach<Ring: Visibility, External: Visibility>(
    _ queue: consuming sending NetworkQueue<Ring, External>, to worker: Worker
  ) {
    _ = worker.attach(PacketLoop(queue, self))
  }
}

struct PacketLoop<Ring: Visibility, External: Visibility>: Pollable, ~Copyable {
  var queue: NetworkQueue<Ring, External>
  let user: LoopUser
  var burst = ReceiveBurst(capacity: 32)
  var sent: UInt64 = 0
  var template: [UInt8]

  init(_ queue: consuming NetworkQueue<Ring, External>, _ user: LoopUser) {
    let number = queue.number
    self.queue = queue
    self.user = user
    template = (0..<user.frameByteCount).map { UInt8(truncatingIfNeeded: $0 &* 11 &+ number) }
    template.replaceSubrange(
      0..<14, with: [0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 2, 0, 0, 0, 0, 9, 0x88, 0xB5])
  }

  mutating func poll(budget: Int) -> Int? {
    let before = queue.received
    _ = queue.receive(into: &burst)
    let number = queue.number
    var (received, wrong): (UInt64, UInt64) = (0, 0)
    var ports: Set<UInt16> = []
    while let packet = burst.popFirst() {
      received += 1
      if user.sends > 0 {
        if !isOurs(packet) { wrong += 1 }
      } else {
        ports.insert(port(packet))
      }
    }
    var count: UInt64 = 0
    if queue.isReady {
      while sent < user.sends {
        do throws(NetworkError) {
          let frame = template
          unsafe try queue.send(frame.span.bytes)
          sent += 1
          count += 1
        } catch {
          break
        }
      }
    }
    queue.publish()
    if received + count > 0 {
      user.counts.update(number) {
        $0.received += received
        $0.sent += count
        $0.wrong += wrong
        $0.ports.formUnion(ports)
      }
    }
    if queue.failure != nil { return nil }
    return Int(queue.received - before) + Int(count)
  }

  private func isOurs(_ packet: borrowing ReceivedPacket) -> Bool {
    let bytes = packet.bytes
    guard packet.byteCount == user.frameByteCount, bytes.byteCount == packet.byteCount else {
      return false
    }
    // From any of this test's queues: the 14 bytes of the header, then the pattern.
    let first = unsafe bytes.unsafeLoad(fromByteOffset: 14, as: UInt8.self)
    for index in 14..<bytes.byteCount {
      let byte = unsafe bytes.unsafeLoad(fromByteOffset: index, as: UInt8.self)
      if byte != first &+ UInt8(truncatingIfNeeded: (index - 14) &* 11) { return false }
    }
    return true
  }

  private func port(_ packet: borrowing ReceivedPacket) -> UInt16 {
    guard packet.byteCount >= 36 else { return 0 }
    return UInt16(
      bigEndian: unsafe packet.bytes.unsafeLoadUnaligned(fromByteOffset: 34, as: UInt16.self))
  }

  mutating func arm() -> Bool { queue.arm() }
  mutating func disarm() { queue.disarm() }
  var nextDeadline: UInt64 { queue.nextDeadline }
  mutating func expire(now: UInt64) { queue.expire(now: now) }
}

/// A driver's configuration that fits a test's machine.
func smallNetwork(queues: Int? = nil, mtu: Int = 1500) -> NetworkConfiguration {
  var configuration = NetworkConfiguration()
  configuration.receiveBufferByteCount = 4 << 20
  configuration.sendBufferByteCount = 1 << 20
  configuration.frameBuffers = 8
  configuration.queueCount = queues
  configuration.mtu = mtu
  return configuration
}
