// SPDX-License-Identifier: Apache-2.0

import CLinux
import NetworkProtocol
import PacketIO
import SimulatedLink
import SystemPackage

@testable import Platform
@testable import SimulatedHost
@testable import VMBus

/// A guest that sends a network device what it is given, in one thread with it: no message, no wake-up.
///
/// It looks at all that comes back: what the device names must lie in the receive buffer, and must be
/// the device's.
final class HostileGuest {
  struct Broken: Error { let reason: String }

  /// Pages: ring to the host, ring to the guest, receive buffer, send buffer, data.
  static let firstPage: GPN = 0x100
  static let rings = 0..<6
  static let receive = 6..<26
  static let send = 26..<29
  static let data = 29..<33
  static let pageCount = 33

  private let mapping: MappedMemory
  let memory: GuestMemory
  private let backend = HostileBackend()

  init() throws {
    let file = try MemoryFile(name: "hostile guest", byteCount: Self.pageCount * 4096)
    mapping = try file.map()
    var region = LinkRegion()
    (region.firstPage, region.pageCount) = (Self.firstPage, UInt64(Self.pageCount))
    let message = SocketMessage(bytes: [], descriptors: [vmbus_duplicate(file.owned.rawValue)])
    memory = try GuestMemory([region], fileCount: 1, from: message)
  }

  func bytes(_ pages: Range<Int>) -> UnsafeMutableRawBufferPointer {
    unsafe UnsafeMutableRawBufferPointer(
      start: mapping.start + pages.lowerBound * 4096, count: pages.count * 4096)
  }

  static func numbers(_ pages: Range<Int>) -> [GPN] { pages.map { firstPage + GPN($0) } }

  /// Plays a script from the first packet to the last.
  ///
  /// - Returns: packets that the device has sent.
  /// - Throws: `Broken` for what a device may never do.
  func play(_ script: [UInt8]) throws -> Int {
    unsafe bytes(Self.rings).initializeMemory(as: UInt8.self, repeating: 0)
    var play = try HostilePlay(self, adapter: backend.adapter, backend: backend)
    return try play.run(script)
  }
}

/// One channel, from its opening to its end.
struct HostilePlay: ~Copyable {
  private let guest: HostileGuest
  private var server: NetVSPServer<HostilePort>
  private var producer: RingProducer<BorrowedRingMemory>
  private var consumer: RingConsumer<BorrowedRingMemory>
  private var buffer = PacketBuffer(capacity: 65536)
  /// What the guest has: the pieces of each packet by its id.
  private var lent: [UInt64: [UInt32]] = [:]
  private var order: [UInt64] = []
  private var received = 0
  private var isOver = false
  private var isGarbled = false
  private let pieceByteCount = 1806

  init(_ guest: HostileGuest, adapter: NetworkAdapter, backend: HostileBackend) throws {
    let table = GPADLTable()
    let channel = ChannelID(1)
    for (id, pages) in [(1, HostileGuest.receive), (2, HostileGuest.send)] as [(UInt32, Range<Int>)]
    {
      table.insert(
        GPADLID(id),
        GPADLEntry(
          channel,
          [
            GPADLRange(
              byteCount: UInt32(pages.count * 4096), gpns: HostileGuest.numbers(pages))
          ]))
    }
    let pages = HostileGuest.numbers(HostileGuest.rings)
    let request = OpenRequest(
      channel: channel, openID: 0, ring: GPADLID(9), ringPages: pages, downstreamPageOffset: 3,
      targetVP: 0, userData: UserData(), eventFlag: 1, connectionID: 1, redirectsInterrupt: false,
      confidentiality: .hostVisible)
    let state = HostChannelState(
      try guest.memory.map(pages, in: .hostVisible), split: 3 * 4096, wake: {}, rescind: {},
      released: {})
    let event = try EventDescriptor()
    let synIC = try GuestSynIC(guest.memory, interrupt: event.owned.duplicate())
    guard let interrupt = ChannelInterrupt([synIC], processor: 0, flag: request.eventFlag) else {
      throw HostileGuest.Broken(reason: "no processor")
    }
    let hostChannel = try HostChannel(
      request, memory: guest.memory, gpadls: table, interrupt: interrupt, state: state,
      faults: ChannelFaults([]), capture: nil)
    var configuration = AdapterConfiguration()
    configuration.maximumQueues = 4
    let network = NetworkGuest(
      adapter, backend, address: MACAddress("02:00:00:00:00:01") ?? MACAddress(), configuration
    ) { _ in }
    // The play goes on with whatever the last one has left.
    adapter.state.setFilter([])
    adapter.state.setScaling(nil)
    adapter.state.setCoalescing(ipv4: false, ipv6: false)
    adapter.state.setLinkUp(true)
    let start = unsafe guest.bytes(HostileGuest.rings).baseAddress.unsafelyUnwrapped
    let producer = try unsafe RingProducer(BorrowedRingMemory(start: start, byteCount: 3 * 4096))
    let consumer = try unsafe RingConsumer(
      BorrowedRingMemory(start: start + 3 * 4096, byteCount: 3 * 4096))
    self.guest = guest
    self.producer = producer
    self.consumer = consumer
    server = NetVSPServer(hostChannel, network, queue: 0, HostilePort(adapter.state))
  }

  mutating func run(_ script: [UInt8]) throws -> Int {
    var reader = Script(script)
    let start = reader.next()
    if start & 1 != 0 { try startUp(version: start >> 1 & 7, stage: start >> 4) }
    for _ in 0..<96 where !isOver && !reader.isEmpty { try step(&reader) }
    return received
  }

  /// A start-up without a fault, as far as the stage says.
  private mutating func startUp(version: UInt8, stage: UInt8) throws {
    let versions: [UInt32] = [0x60001, 0x60000, 0x50000, 0x40000, 0x30002, 2, 0x60001, 0x60001]
    try tell([1, versions[Int(version)], versions[Int(version)]])
    if version != 5 { try tell([125, 1514, 0, 0xAC, 0]) }
    try tell([100, 6, 30])
    try tell([101, 1, 0xCAFE])
    try tell([104, 2, 0])
    if stage & 1 == 0 { try control([2, 24, 1, 1, 0, 0x4000]) }
    if stage & 2 == 0 { try control([5, 32, 2, 0x0001_010E, 4, 20, 0, 0x20]) }
    // Coalesced receive.
    if stage & 4 == 0 {
      try control([
        5, 56, 3, 0xFC01_020C, 28, 20, 0, 0x001C_0380, 0x0404_0404, 0x0202_0004, 0, 0, 0x0202_0000,
        0,
      ])
    }
  }

  private mutating func tell(_ words: [UInt32]) throws {
    try write(.inBand, id: 0x77, payload: Wire.words(words) + [UInt8](repeating: 0, count: 24))
  }

  private mutating func control(_ words: [UInt32]) throws {
    try section(Wire.words(words), index: 0, type: 1)
  }

  // MARK: - Steps

  private mutating func step(_ reader: inout Script) throws {
    let operation = reader.next()
    switch operation & 15 {
    case 0, 1:
      try write(.inBand, id: reader.number(), payload: reader.take(48))
    case 2:
      try write(
        .gpaDirect, id: reader.number(), ranges: reader.take(Int(reader.next()) & 0xF8),
        payload: reader.take(48))
    case 3, 4, 5, 6:
      try section(
        reader.take(Int(reader.next()) << 4 | Int(operation >> 4)), index: reader.next() & 3,
        type: operation >> 7)
    case 7, 8, 9, 10: try pages(&reader)
    case 11:
      let id = reader.number()
      lent[id] = nil
      order.removeAll { $0 == id }
      try write(.completion, id: id, payload: reader.take(8))
    case 12, 13:
      guard let id = order.first else { return }
      order.removeFirst()
      lent[id] = nil
      try write(.completion, id: id, payload: Wire.words(108, 1))
    case 14:
      server.perform(command(operation >> 4, reader.next()))
      try turn()
    default:
      // Straight into the ring, past all rules.
      let bytes = unsafe guest.bytes(0..<1)
      let offset = Int(reader.next()) & 15
      // Old packets may come by once more, completions among them.
      isGarbled = true
      for byte in reader.take(4) { unsafe bytes[offset & 15] = byte }
      try turn()
    }
  }

  private func command(_ kind: UInt8, _ value: UInt8) -> NetworkCommand {
    switch kind {
    case 0: .setLink(value & 1 != 0)
    case 1: .networkChanged
    case 2: .setVirtualFunction(value & 1 != 0 ? UInt32(value) : nil)
    case 3: .setExhausted(value & 1 != 0)
    case 4: .sendTable
    default: .networkChanged
    }
  }

  /// Bytes in a section of the send buffer.
  private mutating func section(_ bytes: [UInt8], index: UInt8, type: UInt8) throws {
    let memory = unsafe guest.bytes(HostileGuest.send)
    let start = Int(index & 1) * 6144
    for (place, byte) in bytes.prefix(6144).enumerated() { unsafe memory[start + place] = byte }
    try write(
      .inBand, id: 0x99,
      payload: Wire.words([107, UInt32(type), UInt32(index), UInt32(bytes.count)])
        + [UInt8](repeating: 0, count: 24))
  }

  /// Bytes in the data pages, in two ranges.
  private mutating func pages(_ reader: inout Script) throws {
    let memory = unsafe guest.bytes(HostileGuest.data)
    let split = Int(reader.next())
    let bytes = reader.take(Int(reader.next()) << 4)
    for (place, byte) in bytes.enumerated() { unsafe memory[place] = byte }
    // What follows is large, so that there are frames of several segments.
    let count = bytes.count + Int(reader.next()) * 48
    let first = max(min(split * 8, count), 0)
    var ranges = Wire.words([0, 0])
    let numbers = HostileGuest.numbers(HostileGuest.data)
    var rangeCount: UInt32 = 0
    for (start, length) in [(0, first), (first, count - first)] where length > 0 {
      rangeCount += 1
      ranges += Wire.words([UInt32(length), UInt32(start % 4096)])
      for page in start / 4096..<(start + length + 4095) / 4096 where page < numbers.count {
        ranges.append(little: numbers[page])
      }
    }
    ranges[4] = UInt8(rangeCount)
    try write(
      .gpaDirect, id: 0x55, ranges: ranges,
      payload: Wire.words([107, 0, 0xFFFF_FFFF, 0]) + [UInt8](repeating: 0, count: 24))
  }

  private mutating func write(
    _ type: PacketType, id: UInt64, ranges: [UInt8] = [], payload: [UInt8]
  ) throws {
    guard !isOver else { return }
    do throws(RingError) {
      try producer.write(
        type, transactionID: id, completionRequested: true, ranges: unsafe ranges.span.bytes,
        payload: unsafe payload.span.bytes)
      _ = producer.commit()
    } catch .full {
      // The device takes nothing while nobody takes its answers; here they are taken.
    } catch {
      // The ring was garbled by this very guest.
      isOver = true
      return
    }
    try turn()
  }

  /// The device's turn; then what it has sent is looked at.
  private mutating func turn() throws {
    for _ in 0..<4 where !isOver {
      guard let work = server.poll(budget: 32) else {
        isOver = true
        break
      }
      try look()
      if work == 0 { break }
    }
    _ = server.arm()
    server.disarm()
  }

  private mutating func look() throws {
    while true {
      let packet: Packet
      do throws(RingError) {
        guard let next = try consumer.receive(into: &buffer) else { break }
        packet = next
      } catch {
        // Garbled by the guest itself: it wrote past all rules.
        isOver = true
        return
      }
      received += 1
      if packet.type == .transferPages { try lookAtPages(packet) }
    }
    _ = consumer.commit()
  }

  private mutating func lookAtPages(_ packet: Packet) throws {
    var pages: [UInt32] = []
    var ranges = try TransferPages(buffer.ranges(of: packet))
    guard ranges.setID == 0xCAFE, packet.completionRequested else {
      throw HostileGuest.Broken(reason: "set \(ranges.setID)")
    }
    while ranges.count > 0 {
      let range = try ranges.next()
      let end = Int(range.byteOffset) + Int(range.byteCount)
      guard end <= HostileGuest.receive.count * 4096,
        Int(range.byteOffset) % pieceByteCount == 0, Int(range.byteCount) <= pieceByteCount
      else { throw HostileGuest.Broken(reason: "\(range)") }
      let piece = range.byteOffset / UInt32(pieceByteCount)
      let isLent = lent.values.contains { $0.contains(piece) } && !isGarbled
      guard !isLent, !pages.contains(piece) else {
        throw HostileGuest.Broken(reason: "piece \(piece) is the guest's")
      }
      pages.append(piece)
    }
    lent[packet.transactionID] = pages
    order.append(packet.transactionID)
  }
}

/// The fuzzer's bytes, zero behind their end.
private struct Script {
  private var bytes: ArraySlice<UInt8>

  init(_ bytes: [UInt8]) { self.bytes = bytes[...] }

  var isEmpty: Bool { bytes.isEmpty }
  mutating func next() -> UInt8 { bytes.popFirst() ?? 0 }
  mutating func take(_ count: Int) -> [UInt8] {
    defer { bytes = bytes.dropFirst(count) }
    return Array(bytes.prefix(max(count, 0)))
  }
  mutating func number() -> UInt64 {
    let kind = next()
    return kind < 128 ? UInt64(kind) : take(8).reduce(0) { $0 << 8 | UInt64($1) }
  }
}

/// Gives each frame back as it was sent.
struct HostilePort: NetworkPort, ~Copyable {
  private let state: AdapterState
  private let memory = FrameScratch(byteCount: FrameInfo.maximumByteCount + 64)
  private var info: FrameInfo?

  init(_ state: AdapterState) { self.state = state }

  mutating func send(_ frame: RawSpan, _ info: FrameInfo) {
    precondition(frame.byteCount == info.byteCount)
    unsafe frame.withUnsafeBytes { bytes in
      unsafe memory.start.copyMemory(
        from: bytes.baseAddress.unsafelyUnwrapped, byteCount: bytes.count)
    }
    var info = info
    _ = unsafe state.queue(
      for: RawSpan(_unsafeStart: memory.start, byteCount: info.byteCount), &info)
    self.info = info
  }

  mutating func next() -> FrameInfo? { info }

  @_lifetime(&self)
  mutating func frame(_ info: FrameInfo) -> MutableRawSpan {
    // Safe: the memory is this value's, and has room for any frame.
    unsafe _overrideLifetime(
      MutableRawSpan(_unsafeStart: memory.start, byteCount: info.byteCount), mutating: &self)
  }

  mutating func release() { info = nil }
  mutating func arm() -> Bool { info != nil }
}

final class HostileBackend: NetworkBackend {
  let adapter = NetworkAdapter(queueCapacity: 1)

  func connect(address: MACAddress) throws(Errno) -> NetworkAdapter { adapter }
  func recycle(_ adapter: NetworkAdapter) {}
  func open(
    _ channel: consuming sending NetworkChannel, on worker: Worker
  ) throws(Errno) {}
}
