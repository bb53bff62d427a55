// SPDX-License-Identifier: Apache-2.0

import StorageProtocol
import TestSupport

@testable import StorageVSC
@testable import VMBus
@testable import VSC

/// What the host writes over its own answers, and over everything else that both ends see, while the
/// driver reads it.
struct StorageRace: Sendable {
  /// Status, length, SRB status and SCSI status of a completion in one word (@8): success, or an error
  /// that differs from it in each field. A driver that looks twice sees one half of each.
  static let outcomes: [UInt64] = [0x0001_0034_0000_0000, 0x0884_0034_C000_0001]
  /// Bytes that were moved (@24).
  static let moved: [UInt32] = [0, 512, 1536, 0x7FFF_FFFF, 0x8000_0000, 0xFFFF_FFFF]

  private let outgoing: RacedMemory
  private let incoming: RacedMemory
  /// The data areas, behind the control pages.
  private let requests: RacedMemory
  private let answers: RacedMemory
  private let data: RacedMemory

  init(_ memory: HostileMemory) {
    func raced(_ memory: GuardedMemory, from offset: Int = 0) -> RacedMemory {
      unsafe RacedMemory(start: memory.start + offset, byteCount: memory.byteCount - offset)
    }
    outgoing = raced(memory.outgoing)
    incoming = raced(memory.incoming)
    requests = raced(memory.outgoing, from: 4096)
    answers = raced(memory.incoming, from: 4096)
    data = raced(memory.data)
  }

  /// Descriptor, packet, trailer.
  private static let stride = 88

  /// - Parameter breaksRings: also what mostly ends a channel.
  func stroke(_ random: inout Numbers, breaksRings: Bool) {
    let choice = random.next()
    // One of the latest answers.
    let packet = Int(incoming.load32(at: 0)) - Self.stride * Int(1 + (choice >> 8) % 3)
    switch choice & 0xFF {
    case 0..<130: answers.store(Self.outcomes[Int(choice >> 16 & 1)], at: packet + 24)
    case 130..<180:
      let value = Self.moved[Int(choice >> 16) % Self.moved.count]
      answers.store32(value, at: packet + 40)
    case 180..<190: answers.store32(UInt32(truncatingIfNeeded: choice >> 16), at: packet + 44)
    case 190..<230:
      data.store(random.next(), at: Int(truncatingIfNeeded: choice >> 16))
    case 230..<240: outgoing.store32(UInt32(truncatingIfNeeded: choice >> 16) & 0x3FFF, at: 8)
    case 240..<246: incoming.store32(UInt32(truncatingIfNeeded: choice >> 16) & 0x3FFF, at: 12)
    case 246..<251: requests.flicker(random.next(), at: Int(truncatingIfNeeded: choice >> 16))
    default: if breaksRings, choice >> 60 == 0 { breakRing(packet, &random) }
    }
  }

  /// What mostly ends the channel.
  private func breakRing(_ packet: Int, _ random: inout Numbers) {
    let choice = random.next()
    let value = UInt32(truncatingIfNeeded: random.next())
    let pause = Int(choice >> 32 & 0xFF)
    let index = [0, 1, 8, 0x3FF8, 0x4000, 0xFFFF_FFF8, value, value & 0x3FF8]
    switch choice & 7 {
    case 0: incoming.flicker32(index[Int(choice >> 8 & 7)], at: 0, pause: pause)
    case 1: incoming.flicker32(index[Int(choice >> 8 & 7)], at: 4, pause: pause)
    case 2: outgoing.flicker32(index[Int(choice >> 8 & 7)], at: 0, pause: pause)
    case 3: outgoing.flicker32(index[Int(choice >> 8 & 7)], at: 4, pause: pause)
    // Type and offset, length and flags; the transaction id; the trailer.
    case 4: answers.flicker32(UInt32(choice >> 8 & 0x000F_000F), at: packet, pause: pause)
    case 5: answers.flicker32(UInt32(choice >> 8 & 0x0001_001F), at: packet + 4, pause: pause)
    case 6: answers.flicker(choice >> 8 & 0xFFFF_0007, at: packet + 8, pause: pause)
    default: answers.flicker(random.next(), at: packet + 80, pause: pause)
    }
  }
}

/// A host that answers honestly, in memory that is not its own only.
struct RacedHost: ~Copyable {
  private var consumer: RingConsumer<BorrowedRingMemory>
  private var producer: RingProducer<BorrowedRingMemory>
  private var buffer = PacketBuffer(capacity: 8192)
  private(set) var sent = 0

  init(_ memory: HostileMemory) throws(RingError) {
    let consumer = try RingConsumer(memory.ring(memory.outgoing), trailerCheck: .ignore)
    let producer = try RingProducer(memory.ring(memory.incoming))
    self.consumer = consumer
    self.producer = producer
  }

  /// Answers all requests. Throws when the ring is corrupt for this end, too.
  mutating func answerAll(_ answer: RawSpan) throws(RingError) {
    while try producer.free() >= 88, let packet = try consumer.receive(into: &buffer) {
      try producer.write(.completion, transactionID: packet.transactionID, payload: answer)
      sent += 1
    }
    _ = consumer.commit()
    _ = producer.commit()
  }
}

/// The driver, while somebody rewrites what it reads.
struct RacedDriver: ~Copyable {
  /// What was seen, of all runs.
  struct Counts {
    var completions = 0
    var succeeded = 0
    var failed = 0
    var malformed = 0
    var unanswered = 0
    /// Channels that ended because the ring was corrupt.
    var ended = 0
  }

  private var queue: HostileQueue
  private var pool: DMAPool<HostVisible>
  private var host: RacedHost
  /// Bytes that were asked for, by tag.
  private var underWay: [UInt64: Int] = [:]
  private var nextTag: UInt64 = 0
  private var application = [UInt8](repeating: 0, count: HostileMemory.bufferByteCount)
  var counts = Counts()

  init(_ memory: HostileMemory, _ agreement: StorageAgreement) throws(RingError) {
    memory.clear()
    let host = try RacedHost(memory)
    let channel = try Channel<HostVisible, HostVisible>(
      RawChannel(
        confidentiality: .hostVisible, outgoing: memory.ring(memory.outgoing),
        incoming: memory.ring(memory.incoming), doorbell: .event(descriptor: -1),
        state: ChannelState()),
      ChannelParameters(maximumPacketByteCount: 256))
    queue = HostileQueue(subchannel: channel, .init(depth: 7), agreement)
    pool = DMAPool(memory.pages, bufferByteCount: HostileMemory.bufferByteCount)
    self.host = host
  }

  /// Goes on until the channel is over, or for some time.
  ///
  /// - Returns: packets of the host.
  mutating func run(_ random: inout Numbers, _ racer: Racer) -> Int {
    var idle = 0
    while queue.failure == nil, idle < 50, nextTag < 50_000 {
      send(&random)
      let answer = Self.answer
      let bytes = answer.span
      guard (try? host.answerAll(unsafe bytes.bytes)) != nil else { break }
      // Else the answers are mostly read before anybody gets at them.
      let chance = random.next()
      if chance & 15 == 0 { racer.wait(chance >> 8 & 63) }
      let before = counts.completions
      while let completion = queue.next() { take(completion) }
      queue.publish()
      idle = counts.completions == before ? idle + 1 : 0
    }
    if queue.failure != nil { counts.ended += 1 }
    while let late = queue.nextExpired(now: .max) { take(late) }
    if !underWay.isEmpty { fatalError("requests without an end") }
    return host.sent
  }

  private static var answer: InlineArray<64, UInt8> {
    var bytes = InlineArray<64, UInt8>(repeating: 0)
    (bytes[0], bytes[12], bytes[14], bytes[25]) = (1, 52, 1, 6)
    return bytes
  }

  private mutating func send(_ random: inout Numbers) {
    while !queue.isFull {
      let choice = random.next()
      var buffer = pool.take()
      let (block, tag) = (choice >> 8 & 0xFF, nextTag)
      let count = Int(1 + (choice >> 16) % 16)
      do throws(StorageError) {
        if choice & 1 == 0 {
          try queue.read(at: block, blockCount: count, into: &buffer, tag: tag)
        } else {
          unsafe buffer?.copyIn(application.span.bytes)
          try queue.write(at: block, blockCount: count, from: &buffer, tag: tag)
        }
      } catch {
        break
      }
      underWay[tag] = count * 512
      nextTag += 1
    }
    queue.publish()
  }

  /// Whatever the host wrote meanwhile: what the completion says is what one copy of it said.
  private mutating func take(_ completion: consuming StorageCompletion<HostVisible>) {
    guard let asked = underWay.removeValue(forKey: completion.tag) else {
      fatalError("a completion of no request")
    }
    counts.completions += 1
    switch completion.result {
    case .success(let moved):
      guard
        moved == min(1536, asked)
          || StorageRace.moved.contains(where: { moved == min(Int($0), asked) })
      else { fatalError("\(moved) bytes, which nobody said") }
      counts.succeeded += 1
    case .failure(.failed(let srb, let scsi, _)):
      guard srb.rawValue == 0x84, scsi.rawValue == 0x08 else {
        fatalError("\(srb) and \(scsi), of two answers")
      }
      counts.failed += 1
    case .failure(.malformed), .failure(.unexpectedOperation): counts.malformed += 1
    case .failure(.timedOut), .failure(.channel): counts.unanswered += 1
    case .failure(let error): fatalError("\(error)")
    }
    if var buffer = completion.buffer.take() {
      if buffer.isLent { fatalError("a buffer that is lent") }
      var span = application.mutableSpan
      var bytes = unsafe span.mutableBytes
      buffer.moveOut(from: 0, into: &bytes)
    }
  }
}
