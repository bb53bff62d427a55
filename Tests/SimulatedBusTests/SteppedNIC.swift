// SPDX-License-Identifier: Apache-2.0

import NetworkProtocol
import PacketIO
import Platform
import Synchronization
import TestSupport
import Testing

@testable import NetworkVSC
@testable import SimulatedHost
@testable import VSC

/// A network device whose open channel goes to the test, and to no worker: it moves when the test says.
final class SteppedNetVSP: VSP {
  static let mtu = 6600
  let offer: OfferChannel
  private let channel = Lock<HostChannel?>(nil)

  init(instance: GUID, flags: OfferFlags) {
    offer =
      makeNetVSP(LoopbackBackend(), instance: instance, queues: 1, mtu: Self.mtu, flags: flags)
      .offer
  }

  func open(_ channel: consuming sending HostChannel, on worker: Worker) {
    var channel = Optional(channel)
    self.channel.withLock { $0 = channel.take() }
  }

  /// The channel that was opened last, served by hand.
  func server() -> SteppedNetServer? {
    guard let channel = self.channel.withLock({ $0.take() }) else { return nil }
    return SteppedNetServer(channel)
  }
}

/// Frames at the host's end: those that the guest has sent, and those that it is to have.
final class SteppedWire {
  var sent: [[UInt8]] = []
  var waiting: [[UInt8]] = []
}

struct SteppedPort: NetworkPort, ~Copyable {
  let wire: SteppedWire
  private let scratch = FrameScratch(byteCount: 16384)

  init(_ wire: SteppedWire) { self.wire = wire }

  mutating func send(_ frame: RawSpan, _ info: FrameInfo) {
    wire.sent.append(unsafe frame.withUnsafeBytes { unsafe Array($0) })
  }

  mutating func next() -> FrameInfo? {
    guard let frame = wire.waiting.first else { return nil }
    unsafe scratch.start.copyMemory(from: frame, byteCount: frame.count)
    return FrameInfo(byteCount: frame.count)
  }

  @_lifetime(&self)
  mutating func frame(_ info: FrameInfo) -> MutableRawSpan {
    unsafe _overrideLifetime(
      MutableRawSpan(_unsafeStart: scratch.start, byteCount: info.byteCount), mutating: &self)
  }

  mutating func release() { wire.waiting.removeFirst() }
  mutating func arm() -> Bool { !wire.waiting.isEmpty }
}

/// The device's end of a channel.
final class SteppedNetServer {
  /// The guest's, as this side has it.
  let memory: GuestMemory
  let wire = SteppedWire()
  private var server: NetVSPServer<SteppedPort>

  init(_ channel: consuming HostChannel) {
    memory = channel.memory
    let backend = LoopbackBackend()
    var configuration = AdapterConfiguration()
    configuration.mtu = SteppedNetVSP.mtu
    let address = MACAddress("02:15:5d:01:02:03") ?? MACAddress()
    let guest = NetworkGuest(
      backend.connect(address: address), backend, address: address, configuration
    ) { _ in }
    server = NetVSPServer(channel, guest, queue: 0, SteppedPort(wire))
  }

  /// Serves a packet, or sends a frame, and commits. Returns what it has done, or nil when the guest has
  /// closed the channel.
  @discardableResult
  func step() -> Int? { server.poll(budget: 1) }
}

/// A network device of the guest, of any pair of memories.
protocol SteppedNIC: AnyObject, Sendable {
  var isReady: Bool { get }
  var packets: Int { get }
  /// Bytes of its frames that lie in memory that the host sees.
  var exposed: Int { get }
  /// Takes what the host has sent, and commits.
  func turn()
  func run(
    _ random: inout Numbers, _ server: SteppedNetServer, _ secret: UInt8, _ look: () -> Void) throws
}

/// Gets the queue of the driver for the test.
final class SteppedUser: NetworkQueueUser {
  private let made = Lock<(any SteppedNIC)?>(nil)

  func attach<Ring: Visibility, External: Visibility>(
    _ queue: consuming sending NetworkQueue<Ring, External>, to worker: Worker
  ) {
    let nic = SteppedNetwork(queue)
    made.withLock { $0 = nic }
  }

  var nic: (any SteppedNIC)? { made.withLock { $0 } }
}

/// The network driver's queue, moved step by step. Somebody looks at all that the host can see after each
/// commit of either end, and after each frame that was written or let go of.
///
/// It belongs to one thread at a time: the one that opens it, then the test's.
final class SteppedNetwork<Ring: Visibility, External: Visibility>: SteppedNIC, @unchecked Sendable
{
  private var queue: NetworkQueue<Ring, External>
  private var burst = ReceiveBurst(capacity: 8)
  private(set) var packets = 0
  private var secretBytes = 0

  init(_ queue: consuming NetworkQueue<Ring, External>) { self.queue = queue }

  var isReady: Bool { queue.isReady }
  var exposed: Int { External.memory == .hostVisible ? secretBytes : 0 }

  func turn() {
    let count = queue.receive(into: &burst)
    #expect(count == 0)
    queue.publish()
  }

  private static var headerByteCount: Int { 14 }

  /// A broadcast whose payload is the secret, and nothing else. Its length is even, as all numbers of its
  /// headers are: none of them is the secret.
  private func frame(_ random: inout Numbers, _ secret: UInt8) -> [UInt8] {
    // One in eight does not fit a section of the send buffer.
    let isLarge = Int.random(in: 0..<8, using: &random) == 0
    let words = Int.random(in: isLarge ? 780...820 : 6...187, using: &random)
    return [0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 2, 0, 0, 0, 0, 8, 0x88, 0xB4]
      + [UInt8](repeating: secret, count: words * 8)
  }

  private func payload(_ frames: [[UInt8]]) -> Int {
    frames.reduce(0) { $0 + $1.count - Self.headerByteCount }
  }

  func run(
    _ random: inout Numbers, _ server: SteppedNetServer, _ secret: UInt8, _ look: () -> Void
  ) throws {
    let count = Int.random(in: 1...4, using: &random)
    let (there, back) = (
      (0..<count).map { _ in frame(&random, secret) },
      (0..<count).map { _ in frame(&random, secret) }
    )
    for frame in there {
      try queue.send(unsafe frame.span.bytes)
      secretBytes += payload([frame])
      look()
    }
    queue.publish()
    look()
    // The host has not told the guest yet that it is done with them.
    for _ in 0..<100 where server.wire.sent.count < count {
      server.step()
      look()
    }
    #expect(server.wire.sent == there)
    server.wire.sent = []
    server.wire.waiting = back
    while let frame = server.wire.waiting.first {
      let left = server.wire.waiting.count
      server.step()
      if server.wire.waiting.count < left { secretBytes += payload([frame]) }
      look()
    }
    let received = queue.receive(into: &burst)
    #expect(received == count)
    secretBytes -= payload(there)
    look()
    queue.publish()
    look()
    for frame in back {
      try letGo(frame)
      secretBytes -= payload([frame])
      look()
    }
    queue.publish()
    look()
    while server.step() ?? 0 > 0 { look() }
    packets += 2 * count
  }

  /// Takes a frame that was received, and gives its memory back.
  private func letGo(_ frame: [UInt8]) throws {
    let packet = try unwrap(burst.popFirst())
    expectSame(packet, frame)
  }

  private func expectSame(_ packet: borrowing ReceivedPacket, _ frame: [UInt8]) {
    var bytes = [UInt8](repeating: 0, count: packet.byteCount)
    var span = bytes.mutableSpan
    var target = unsafe span.mutableBytes
    packet.copy(into: &target)
    #expect(bytes == frame)
  }
}
