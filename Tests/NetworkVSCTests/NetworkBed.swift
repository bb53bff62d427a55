// SPDX-License-Identifier: Apache-2.0

import Glibc
import NetworkProtocol
import Platform
import Synchronization

@testable import NetworkVSC
@testable import VMBus
@testable import VSC

typealias TestQueue = NetworkQueue<HostVisible, HostVisible>

/// Memory of a guest, in this process: page numbers are addresses. It lies between pages that nobody may
/// touch: one byte too far ends the process, whichever instruction does it.
@safe
final class BedMemory: @unchecked Sendable {
  let start: UnsafeMutableRawPointer
  let numbers: UnsafeMutablePointer<GPN>
  let byteCount: Int

  init(byteCount: Int) {
    self.byteCount = byteCount
    guard
      let all = unsafe mmap(
        nil, byteCount + 8192, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0),
      unsafe all != MAP_FAILED,
      unsafe mprotect(all + 4096, byteCount, PROT_READ | PROT_WRITE) == 0
    else { fatalError("no memory for a test") }
    unsafe start = all + 4096
    unsafe numbers = .allocate(capacity: byteCount / 4096)
    for page in 0..<byteCount / 4096 {
      unsafe numbers[page] = UInt64(UInt(bitPattern: start)) >> 12 + UInt64(page)
    }
  }

  deinit {
    unsafe munmap(start - 4096, byteCount + 8192)
    unsafe numbers.deallocate()
  }

  func write(_ bytes: [UInt8], at offset: Int) {
    for (index, byte) in bytes.enumerated() {
      unsafe start.storeBytes(of: byte, toByteOffset: offset + index, as: UInt8.self)
    }
  }

  func read(_ offset: Int, _ count: Int) -> [UInt8] {
    unsafe [UInt8](UnsafeRawBufferPointer(start: start + offset, count: count))
  }

  func shared(_ gpadl: UInt32) -> SharedBuffer<HostVisible> {
    SharedBuffer(
      unsafe SharedPages(
        start: start, byteCount: byteCount, gpadl: GPADLID(rawValue: gpadl), owner: self))
  }
}

/// What the queue told.
final class BedEvents: Sendable {
  private let list = Lock<[NetworkEvent]>([])
  func add(_ event: NetworkEvent) { list.withLock { $0.append(event) } }
  var all: [NetworkEvent] { list.withLock { $0 } }
}

/// A packet of the guest.
struct BedPacket {
  var type: PacketType
  var id: UInt64
  var completionRequested: Bool
  var payload: [UInt8]
  var ranges: [UInt8]

  var word: UInt32 { word(0) }

  func word(_ offset: Int) -> UInt32 { payload.word(offset) }

  /// The bytes of guest memory that a GPA-direct packet names, as they were when it came.
  var memory: [UInt8] = []

  mutating func readMemory() {
    guard type == .gpaDirect else { return }
    let count = Int(ranges.word(8))
    let page = UInt(ranges.word(16)) | UInt(ranges.word(20)) << 32
    guard let start = unsafe UnsafeRawPointer(bitPattern: page << 12) else { return }
    memory = unsafe [UInt8](UnsafeRawBufferPointer(start: start, count: count))
  }
}

extension Array where Element == UInt8 {
  func word(_ offset: Int) -> UInt32 {
    guard offset + 4 <= count else { return 0 }
    return (0..<4).reduce(0) { $0 | UInt32(self[offset + $1]) << (8 * UInt32($1)) }
  }

  static func words(_ words: UInt32...) -> [UInt8] { words.flatMap(\.wireBytes) }
}

/// A queue, and the host's end of its channel, in one thread.
struct NetworkBed: ~Copyable {
  static let suballocation = 1806

  var queue: TestQueue
  let life: NetworkLife
  let mailbox: NetworkMailbox
  let events: BedEvents
  let receiveBuffer: BedMemory
  let sendBuffer: BedMemory
  let sendTable: SendTable
  let frames: BedMemory
  let state: ChannelState

  let outgoing: HeapRingMemory
  let incoming: HeapRingMemory
  var consumer: RingConsumer<BorrowedRingMemory>
  var producer: RingProducer<BorrowedRingMemory>
  private var buffer = PacketBuffer(capacity: 16384)

  /// What the host is asked for and says, in the start-up.
  var script = NetworkScript()
  /// What the guest sent, all of it.
  var log: [BedPacket] = []
  /// The next free sub-allocation.
  private var nextOffset = 0

  init(
    _ configuration: NetworkConfiguration = .small, ringByteCount: Int = 64 * 1024,
    number: Int = 0, queueCount: Int = 1, agreement: NetworkAgreement? = nil,
    isIsolated: Bool = false, worker: Worker
  ) throws {
    let (outgoing, incoming) = (
      HeapRingMemory(dataByteCount: ringByteCount), HeapRingMemory(dataByteCount: ringByteCount)
    )
    let events = BedEvents()
    let receive = BedMemory(byteCount: configuration.receiveBufferByteCount)
    let send = BedMemory(byteCount: configuration.sendBufferByteCount)
    let frames = BedMemory(
      byteCount: configuration.frameBuffers * configuration.usableFrameBufferByteCount)
    let identity = DeviceIdentity(
      deviceClass: .network, instance: GUID(), channel: ChannelID(rawValue: 1),
      confidentiality: .hostVisible, transport: "test")
    let life = NetworkLife(NetworkInformation(identity, ring: .hostVisible, data: .hostVisible)) {
      events.add($0)
    }
    let state = ChannelState()
    let channel = try Channel<HostVisible, HostVisible>(
      unsafe RawChannel(
        confidentiality: .hostVisible, outgoing: outgoing.end(), incoming: incoming.end(),
        doorbell: .event(descriptor: -1), state: state),
      ChannelParameters(maximumPacketByteCount: 8192))
    let pool = DMAPool<HostVisible>(
      unsafe DMAPages(
        start: frames.start, byteCount: frames.byteCount, pageNumbers: frames.numbers,
        isScrubbed: true, owner: frames),
      bufferByteCount: configuration.usableFrameBufferByteCount)
    let mailbox = NetworkMailbox(worker)
    life.add(mailbox)
    let sendTable = SendTable()
    let parts = TestQueue.Parts(
      configuration: configuration, receiveBuffer: receive.shared(0xE1E10),
      sendBuffer: send.shared(0xE1E20),
      sendTable: sendTable, life: life, queueCount: queueCount, isIsolated: isIsolated)
    let consumer = try unsafe RingConsumer(outgoing.end())
    let producer = try unsafe RingProducer(incoming.end())
    self.queue = TestQueue(channel, pool, parts, mailbox, number: number, agreement: agreement)
    self.life = life
    self.mailbox = mailbox
    self.events = events
    self.receiveBuffer = receive
    self.sendBuffer = send
    self.sendTable = sendTable
    self.frames = frames
    self.state = state
    self.outgoing = outgoing
    self.incoming = incoming
    script.receiveByteCount = configuration.receiveBufferByteCount
    self.consumer = consumer
    self.producer = producer
  }

  // MARK: - The rings

  /// The next packet of the guest.
  mutating func take() throws -> BedPacket? {
    guard let packet = try consumer.receive(into: &buffer) else { return nil }
    _ = consumer.commit()
    var taken = BedPacket(
      type: packet.type, id: packet.transactionID,
      completionRequested: packet.completionRequested,
      payload: bytes(buffer.payload(of: packet)), ranges: bytes(buffer.ranges(of: packet)))
    taken.readMemory()
    log.append(taken)
    return taken
  }

  mutating func takeAll() throws -> [BedPacket] {
    var all: [BedPacket] = []
    while let packet = try take() { all.append(packet) }
    return all
  }

  mutating func put(
    _ payload: [UInt8], id: UInt64 = 0, type: PacketType = .completion, ranges: [UInt8] = [],
    completionRequested: Bool = false
  ) throws {
    try producer.write(
      type, transactionID: id, completionRequested: completionRequested,
      ranges: unsafe ranges.span.bytes, payload: unsafe payload.span.bytes)
    _ = producer.commit()
  }

  /// Ranges of the receive buffer, each with its length and offset.
  mutating func put(
    ranges: [(count: UInt32, offset: UInt32)], id: UInt64, set: UInt16 = 0xCAFE,
    count: UInt32? = nil,
    type: UInt32 = 107
  ) throws {
    var bytes: [UInt8] = [UInt8(set & 0xFF), UInt8(set >> 8), 0, 0]
    bytes += (count ?? UInt32(ranges.count)).wireBytes
    for range in ranges { bytes += range.count.wireBytes + range.offset.wireBytes }
    try put(
      .words(type, 0, 0xFFFF_FFFF, 0), id: id, type: .transferPages, ranges: bytes,
      completionRequested: true)
  }

  /// Writes messages to the receive buffer, and tells of them in one packet.
  mutating func put(messages: [[UInt8]], id: UInt64) throws {
    var ranges: [(count: UInt32, offset: UInt32)] = []
    for message in messages {
      if nextOffset + Self.suballocation > receiveBuffer.byteCount { nextOffset = 0 }
      receiveBuffer.write(message, at: nextOffset)
      ranges.append((UInt32(message.count), UInt32(nextOffset)))
      nextOffset += Self.suballocation
    }
    try put(ranges: ranges, id: id)
  }

  /// Answers a message of the guest.
  mutating func complete(_ packet: BedPacket, status: UInt32 = 1) throws {
    try put(.words(108, status), id: packet.id)
  }

  // MARK: - The start-up

  /// Moves both ends until neither has anything to do, or the queue is ready.
  mutating func start() throws {
    var burst = ReceiveBurst()
    for _ in 0..<100 where !queue.isReady && queue.failure == nil {
      _ = queue.receive(into: &burst)
      queue.publish()
      try answer()
      if life.agreed.isKept, !script.isOpened {
        script.isOpened = true
        mailbox.put(.opened(queueCount: script.queueCount))
      }
    }
  }

  /// Answers what the guest has asked for, as the script says.
  mutating func answer() throws {
    for packet in try takeAll() {
      let action = script.answer(packet)
      if let completion = action.completion { try put(completion, id: packet.id) }
      if let message = action.message {
        try put(messages: [message], id: 0x1000 + UInt64(log.count))
      }
    }
  }

  /// A ready queue, and nothing in the rings.
  mutating func ready() throws {
    try start()
    pump()
    _ = try takeAll()
    log = []
  }

  /// Lets the queue take what there is; frames are dropped.
  @discardableResult
  mutating func pump() -> Int {
    var burst = ReceiveBurst()
    var count = 0
    while true {
      let more = queue.receive(into: &burst)
      while let packet = burst.popFirst() { drop(packet) }
      if more == 0 { break }
      count += more
    }
    queue.publish()
    return count
  }
}

func drop<Value: ~Copyable>(_ value: consuming Value) {}

func bytes(_ span: RawSpan) -> [UInt8] { unsafe span.withUnsafeBytes { unsafe [UInt8]($0) } }

extension NetworkConfiguration {
  static var small: NetworkConfiguration {
    var configuration = NetworkConfiguration()
    configuration.receiveBufferByteCount = 256 * 1024
    configuration.sendBufferByteCount = 64 * 1024
    configuration.frameBuffers = 4
    return configuration
  }
}

/// A data message with a frame at its place behind the header.
func message(_ frame: [UInt8], info: [UInt8] = []) -> [UInt8] {
  let data = UInt32(36 + info.count)
  return .words(
    1, 44 + UInt32(info.count + frame.count), data, UInt32(frame.count), 0, 0, 0,
    info.isEmpty ? 0 : 36, UInt32(info.count), 0, 0) + info + frame
}

/// One element of per-packet info.
func element(_ type: UInt32, _ word: UInt32) -> [UInt8] { .words(16, type, 12, word) }

/// A frame of that many bytes, all of them different from their neighbours.
func frame(_ count: Int, seed: UInt8 = 0) -> [UInt8] {
  (0..<count).map { UInt8(truncatingIfNeeded: $0 &* 7 &+ $0 >> 8) &+ seed }
}
