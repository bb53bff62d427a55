// SPDX-License-Identifier: Apache-2.0

import NetworkProtocol
import Platform
import TestSupport

@testable import NetworkVSC
@testable import VMBus
@testable import VSC

/// What the host writes over frames that it has sent, and over everything else that both ends see,
/// while the driver reads it.
struct NetworkRace: Sendable {
  /// Bytes of a message, and of the room for it.
  static let (messageByteCount, stride) = (1200, 2048)
  /// Offset and length of a frame, as its RNDIS header has them (@8). A copy may take the one from here and
  /// the other from there, and is refused where they do not go together: who looks twice finds a frame
  /// that reaches out of its message.
  static let frames: [(offset: UInt32, count: UInt32)] = [
    (36, 1100), (600, 500), (1100, 60), (36, 1771), (0xFFFF_FFF0, 64), (36, 0xFFFF_FFFF),
  ]

  private let receive: RacedMemory
  private let send: RacedMemory
  private let frames: RacedMemory
  /// Control pages and data areas of the rings.
  private let outgoing: RacedMemory
  private let incoming: RacedMemory
  /// Nothing but what was received is rewritten.
  private let sparesRings: Bool

  init(_ bed: borrowing NetworkBed, sparesRings: Bool) {
    func raced(_ memory: BedMemory) -> RacedMemory {
      unsafe RacedMemory(start: memory.start, byteCount: memory.byteCount)
    }
    func raced(_ memory: HeapRingMemory) -> RacedMemory {
      unsafe RacedMemory(start: memory.start, byteCount: memory.byteCount)
    }
    receive = raced(bed.receiveBuffer)
    send = raced(bed.sendBuffer)
    frames = raced(bed.frames)
    outgoing = raced(bed.outgoing)
    incoming = raced(bed.incoming)
    self.sparesRings = sparesRings
  }

  func stroke(_ random: inout Numbers) {
    let choice = random.next()
    let message = Self.stride * Int(choice >> 8 & 0xFFF)
    switch choice & 0xFF {
    case 0..<150:
      let frame = Self.frames[Int(choice >> 24) % Self.frames.count]
      receive.store(UInt64(frame.count) << 32 | UInt64(frame.offset), at: message + 8)
    // Type and length; offset and length of per-packet info; a word of that or of the frame.
    case 150..<160: receive.flicker(choice >> 24 & 0xFFF_0000_000F, at: message)
    case 160..<175: receive.flicker32(UInt32(choice >> 24 & 0x3F), at: message + 28)
    case 175..<190: receive.flicker32(UInt32(choice >> 24 & 0x3F), at: message + 32)
    case 190..<220: receive.flicker(random.next(), at: message + Int(choice >> 24 & 0x7FF))
    case 220... where sparesRings: break
    case 220..<230: send.store(random.next(), at: Int(truncatingIfNeeded: choice >> 16))
    case 230..<235: frames.flicker(random.next(), at: Int(truncatingIfNeeded: choice >> 16))
    case 235..<245: outgoing.store32(UInt32(truncatingIfNeeded: choice >> 16) & 0x3FFF, at: 8)
    case 245..<250: incoming.store32(UInt32(truncatingIfNeeded: choice >> 16) & 0x3FFF, at: 12)
    default: if choice >> 61 == 0 { breakRing(&random) }
    }
  }

  /// What mostly ends the channel: indices, and whatever lies in the rings.
  private func breakRing(_ random: inout Numbers) {
    let choice = random.next()
    let value = UInt32(truncatingIfNeeded: random.next())
    let pause = Int(choice >> 32 & 0xFF)
    let index = [0, 1, 8, 0x1FF8, 0x2000, 0xFFFF_FFF8, value, value & 0x1FF8]
    switch choice & 7 {
    case 0: incoming.flicker32(index[Int(choice >> 8 & 7)], at: 0, pause: pause)
    case 1: incoming.flicker32(index[Int(choice >> 8 & 7)], at: 4, pause: pause)
    case 2: outgoing.flicker32(index[Int(choice >> 8 & 7)], at: 0, pause: pause)
    case 3: outgoing.flicker32(index[Int(choice >> 8 & 7)], at: 4, pause: pause)
    case 4: outgoing.flicker32(value, at: 4096 + Int(choice >> 8 & 0x1FFF), pause: pause)
    default: incoming.flicker32(value & 0xFFFF, at: 4096 + Int(choice >> 8 & 0x1FFF), pause: pause)
    }
  }
}

/// A queue and an honest host, in memory that somebody rewrites.
struct RacedNetwork: ~Copyable {
  /// What was seen, of all runs.
  struct Counts {
    /// Received frames by what the host said of them.
    var frames: [Int] = Array(repeating: 0, count: NetworkRace.frames.count)
    var sent = 0
    var malformed = 0
    /// Channels that ended because a ring was corrupt.
    var ended = 0
  }

  private var bed: NetworkBed
  private var burst = ReceiveBurst(capacity: 32)
  private var buffer = PacketBuffer(capacity: 16384)
  private var nextID: UInt64 = 1
  private var offset = 0
  private let frame = [UInt8](repeating: 0xCD, count: 200)
  private let isReady: Bool
  var counts: Counts

  /// - Parameter isReady: the start-up is over before the race begins.
  init(_ worker: Worker, isReady: Bool, _ counts: Counts) throws {
    var bed = try NetworkBed(HostileNetworkRun.configuration, ringByteCount: 8192, worker: worker)
    if isReady { try bed.ready() }
    self.bed = bed
    self.isReady = isReady
    self.counts = counts
  }

  /// Goes on until the channel is over, or for some time.
  ///
  /// - Returns: packets of both ends.
  mutating func run(_ random: inout Numbers) -> Int {
    let race = NetworkRace(bed, sparesRings: !isReady)
    let racer = Racer(seed: random.next()) { race.stroke(&$0) }
    defer { racer.stop() }
    if !isReady {
      // It ends by an error, or well.
      guard (try? bed.start()) != nil, bed.queue.isReady else { return 1 }
    }
    var packets = 0
    while bed.queue.failure == nil, packets < 20_000 {
      do {
        try putFrames(Int(1 + random.next() % 8))
        let chance = random.next()
        if chance & 15 == 0 { racer.wait(chance >> 8 & 63) }
        packets += receive()
        for _ in 0..<random.next() % 8 { packets += send() }
        bed.queue.publish()
        try complete()
      } catch {
        break
      }
    }
    counts.malformed += Int(bed.queue.statistics.malformed)
    if bed.queue.failure != nil { counts.ended += 1 }
    return packets
  }

  /// The host sends frames, each in a message of its own, with one packet.
  private mutating func putFrames(_ count: Int) throws {
    guard try bed.producer.free() > 512 else { return }
    let (first, length) = NetworkRace.frames[0]
    var ranges: [(count: UInt32, offset: UInt32)] = []
    for _ in 0..<count {
      bed.receiveBuffer.write(.words(1, UInt32(NetworkRace.messageByteCount)), at: offset)
      // The host itself writes a word at a time, too.
      unsafe bed.receiveBuffer.start.storeBytes(
        of: UInt64(length) << 32 | UInt64(first), toByteOffset: offset + 8, as: UInt64.self)
      bed.receiveBuffer.write(.words(0, 0, 0, 0, 0, 0, 0), at: offset + 16)
      ranges.append((UInt32(NetworkRace.messageByteCount), UInt32(offset)))
      offset = (offset + NetworkRace.stride) % bed.receiveBuffer.byteCount
    }
    try bed.put(ranges: ranges, id: nextID)
    nextID += 1
  }

  private mutating func receive() -> Int {
    var received = 0
    while bed.queue.receive(into: &burst) > 0 {
      while let packet = burst.popFirst() {
        look(packet)
        received += 1
      }
    }
    return received
  }

  /// Whatever the host wrote meanwhile: the frame is what one copy of its header said.
  private mutating func look(_ packet: borrowing ReceivedPacket) {
    let start = packet.offset % UInt32(NetworkRace.stride)
    let offsets = NetworkRace.frames.map(\.offset)
    let lengths = NetworkRace.frames.map(\.count)
    guard let first = offsets.firstIndex(of: start &- 8),
      let second = lengths.firstIndex(of: UInt32(packet.byteCount)),
      Int(start) + packet.byteCount <= NetworkRace.messageByteCount
    else { fatalError("\(packet.byteCount) bytes at \(start), which nobody said") }
    if first == second { counts.frames[first] += 1 }
    var (count, sum) = (0, UInt8(0))
    packet.forEachSegment { segment in
      count += segment.byteCount
      for index in stride(from: 0, to: segment.byteCount, by: 61) {
        sum ^= unsafe segment.unsafeLoad(fromByteOffset: index, as: UInt8.self)
      }
    }
    if count != packet.byteCount { fatalError("a frame of other bytes than it has") }
  }

  private mutating func send() -> Int {
    let frame = frame
    do throws(NetworkError) {
      try unsafe bed.queue.send(frame.span.bytes)
      counts.sent += 1
      return 1
    } catch {
      return 0
    }
  }

  /// The host answers what the guest sent.
  private mutating func complete() throws {
    while try bed.producer.free() > 512, let packet = try bed.consumer.receive(into: &buffer) {
      guard packet.completionRequested else { continue }
      try bed.put(.words(108, 1), id: packet.transactionID)
    }
    _ = bed.consumer.commit()
  }
}
