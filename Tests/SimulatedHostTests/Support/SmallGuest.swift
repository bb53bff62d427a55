// SPDX-License-Identifier: Apache-2.0

import CLinux
import Platform
import SimulatedHost
import SimulatedLink
import Synchronization
import VMBus

/// A guest of one processor that a test drives step by step: real messages, real rings, no driver.
///
/// It waits by looking again, and gives up after ten seconds.
final class SmallGuest {
  struct Failed: Error { let reason: String }

  private let link: RawGuest
  private let file: MemoryFile
  private let memory: MappedMemory
  private let interrupt: EventDescriptor
  private(set) var control = ControlClient()
  private var nextPage = 2
  private var results: [ChannelID: ControlStatus] = [:]
  private var tornDown: Set<GPADLID> = []
  /// Offers that stand, in the order in which they came.
  private(set) var offers: [OfferChannel] = []
  private(set) var rescinded: [ChannelID] = []
  private(set) var refused: [ControlError] = []

  static let firstPage: GPN = 0x100
  static let pageCount = 1024

  init(_ host: SimulatedHost) throws {
    link = try RawGuest(host)
    file = try MemoryFile(name: "small guest", byteCount: Self.pageCount * 4096)
    memory = try file.map()
    interrupt = try EventDescriptor()
    var join = LinkJoin()
    (join.processorCount, join.regionCount, join.fileCount) = (1, 1, 1)
    var region = LinkRegion()
    (region.firstPage, region.pageCount) = (Self.firstPage, UInt64(Self.pageCount))
    try expect(
      link.call(
        .join, join.wireBytes + region.wireBytes,
        descriptors: [file.owned.rawValue, interrupt.rawValue]) == .success, "joins")
    var registers = LinkSynIC()
    (registers.messagePage, registers.eventFlagsPage) = (Self.firstPage, Self.firstPage + 1)
    try expect(link.call(.setSynIC, registers.wireBytes) == .success, "sets its SynIC")
    try perform(control.connect())
    try wait("is connected") { $0.control.state == .connected }
  }

  private func expect(_ condition: Bool, _ reason: String) throws {
    guard condition else { throw Failed(reason: reason) }
  }

  // MARK: - The control plane

  func wait(_ reason: String, _ condition: (SmallGuest) throws -> Bool) throws {
    for _ in 0..<10_000 {
      try takeMessages()
      if try condition(self) { return }
      vmbus_sleep_milliseconds(1)
    }
    throw Failed(reason: "never: \(reason)")
  }

  private func takeMessages() throws {
    // Safe: the guest's own page, mapped as long as this object lives.
    let slot = unsafe memory.start + SynIC.messageSlotOffset(sint: SynIC.vmbusSINT)
    let type = unsafe slot.assumingMemoryBound(to: Atomic<UInt32>.self)
    while unsafe type.pointee.load(ordering: .sequentiallyConsistent) != SynIC.noMessage {
      let count = unsafe Int((slot + 4).load(as: UInt8.self))
      let bytes = (0..<count).map {
        unsafe (slot + 16).load(fromByteOffset: $0, as: UInt8.self)
      }
      unsafe type.pointee.store(SynIC.noMessage, ordering: .sequentiallyConsistent)
      if unsafe (slot + 5).load(as: UInt8.self) & 1 != 0 {
        _ = try link.call(.endOfMessage, LinkNumber(0).wireBytes)
      }
      try perform(control.receive(unsafe bytes.span.bytes, origin: .untrusted))
    }
  }

  private func perform(_ actions: [ClientAction]) throws {
    for action in actions {
      switch action {
      case .post(let message, let connection):
        var post = LinkPost()
        post.connectionID = connection
        post.messageType = SynIC.vmbusMessage
        post.payloadByteCount = UInt32(message.array.count)
        try expect(
          link.call(.postMessage, post.wireBytes + message.array) == .success, "posts")
      case .offered(let offer): offers.append(offer)
      case .rescinded(let id):
        rescinded.append(id)
        offers.removeAll { $0.channelID == id }
      case .opened(let id, let status): results[id] = status
      case .gpadlTornDown(let id): tornDown.insert(id)
      case .refused(let error): refused.append(error)
      default: break
      }
    }
  }

  // MARK: - Channels

  /// Pages of its memory that nobody else has.
  func takePages(_ count: Int) -> Range<Int> {
    defer { nextPage += count }
    precondition(nextPage + count <= Self.pageCount)
    return nextPage..<(nextPage + count)
  }

  func numbers(_ pages: Range<Int>) -> [GPN] { pages.map { Self.firstPage + GPN($0) } }

  /// Safe for as long as the guest lives.
  @unsafe
  func bytes(_ pages: Range<Int>) -> UnsafeMutableRawBufferPointer {
    unsafe UnsafeMutableRawBufferPointer(
      start: memory.start + pages.lowerBound * 4096, count: pages.count * 4096)
  }

  /// Opens a channel with four pages of ring each way.
  func open(_ id: ChannelID) throws -> SmallChannel {
    let pages = takePages(10)
    unsafe bytes(pages).initializeMemory(as: UInt8.self, repeating: 0)
    let (gpadl, actions) = try control.createGPADL(
      id, ranges: [GPADLRange(byteCount: 40960, byteOffset: 0, gpns: numbers(pages))])
    try perform(actions)
    try wait("has a GPADL") { $0.control.gpadls[gpadl]?.phase == .created }
    results[id] = nil
    try perform(control.open(id, OpenParameters(ring: gpadl, downstreamPageOffset: 5)))
    try wait("is opened") { $0.results[id] != nil }
    try expect(results[id] == .success, "opens channel \(id): \(String(describing: results[id]))")
    guard let offer = control.channels[id]?.offer else { throw Failed(reason: "has no offer") }
    try link.socket.send(
      LinkHeader(.bindEvent).wireBytes + LinkNumber(offer.connectionID).wireBytes)
    guard let answer = try link.socket.receive(), let event = answer.takeDescriptor(0) else {
      throw Failed(reason: "has no doorbell")
    }
    return try SmallChannel(self, id, gpadl, pages, EventDescriptor(event))
  }

  /// Describes some of its memory for a channel, as buffers are.
  func describe(_ pages: Range<Int>, of id: ChannelID) throws -> GPADLID {
    try describe(numbers(pages), of: id)
  }

  func describe(_ pages: [GPN], of id: ChannelID) throws -> GPADLID {
    let (gpadl, actions) = try control.createGPADL(
      id, ranges: [GPADLRange(byteCount: UInt32(pages.count * 4096), byteOffset: 0, gpns: pages)])
    try perform(actions)
    try wait("has a GPADL") { $0.control.gpadls[gpadl]?.phase == .created }
    return gpadl
  }

  /// Asks for described memory back, and does not wait for it.
  func tearDown(_ gpadl: GPADLID) throws { try perform(control.tearDownGPADL(gpadl)) }

  /// Whether the host has given it back.
  func hasBack(_ gpadl: GPADLID) throws -> Bool {
    try takeMessages()
    return tornDown.contains(gpadl)
  }

  /// Asks the host to close a channel, and waits for nothing.
  func beginClose(_ id: ChannelID) throws { try perform(control.close(id)) }

  /// Closes a channel, and waits until its ring is the guest's alone.
  func close(_ channel: borrowing SmallChannel) throws {
    let gpadl = channel.gpadl
    try perform(control.close(channel.id))
    try perform(control.tearDownGPADL(gpadl))
    try wait("has its ring back") { $0.tornDown.contains(gpadl) }
  }

  /// Says that a rescinded channel is forgotten.
  func release(_ id: ChannelID) throws { try perform(control.release(id)) }
}

/// A packet of the host.
struct SmallPacket: Equatable {
  var type: PacketType
  var id: UInt64
  var completionRequested: Bool
  var ranges: [UInt8]
  var payload: [UInt8]
}

/// An open channel of a small guest.
struct SmallChannel: ~Copyable {
  let id: ChannelID
  let gpadl: GPADLID
  private let guest: SmallGuest
  private var producer: RingProducer<BorrowedRingMemory>
  private var consumer: RingConsumer<BorrowedRingMemory>
  private var buffer = PacketBuffer(capacity: 8192)
  private let doorbell: EventDescriptor
  private var nextTransaction: UInt64 = 1
  /// Pages for the data of one request.
  let data: Range<Int>

  fileprivate init(
    _ guest: SmallGuest, _ id: ChannelID, _ gpadl: GPADLID, _ pages: Range<Int>,
    _ doorbell: consuming EventDescriptor
  ) throws {
    let start = unsafe guest.bytes(pages).baseAddress!
    let producer = try unsafe RingProducer(BorrowedRingMemory(start: start, byteCount: 20480))
    let consumer = try unsafe RingConsumer(
      BorrowedRingMemory(start: start + 20480, byteCount: 20480))
    self.guest = guest
    self.id = id
    self.gpadl = gpadl
    self.producer = producer
    self.consumer = consumer
    self.doorbell = doorbell
    data = guest.takePages(4)
  }

  /// Sends a packet; with data it names that many bytes of the channel's data pages.
  mutating func send(
    _ payload: [UInt8], dataByteCount: Int? = nil, completionRequested: Bool = true
  ) throws -> UInt64 {
    let id = nextTransaction
    nextTransaction += 1
    var ranges: [UInt8] = []
    if let dataByteCount {
      let pages = guest.numbers(data).prefix((dataByteCount + 4095) / 4096)
      for word in [0, 1, UInt32(dataByteCount), 0] as [UInt32] { ranges.append(little: word) }
      for page in pages { ranges.append(little: page) }
    }
    try producer.write(
      dataByteCount == nil ? .inBand : .gpaDirect, transactionID: id,
      completionRequested: completionRequested, ranges: unsafe ranges.span.bytes,
      payload: unsafe payload.span.bytes)
    if producer.commit() { doorbell.signal() }
    return id
  }

  /// Sends a packet as it is.
  mutating func send(
    _ type: PacketType, id: UInt64, ranges: [UInt8] = [], _ payload: [UInt8],
    completionRequested: Bool = true
  ) throws {
    try producer.write(
      type, transactionID: id, completionRequested: completionRequested,
      ranges: unsafe ranges.span.bytes, payload: unsafe payload.span.bytes)
    if producer.commit() { doorbell.signal() }
  }

  /// The next packet with what lies before its payload.
  mutating func receiveWhole(milliseconds: Int = 10_000) throws -> SmallPacket? {
    for _ in 0...milliseconds {
      if let packet = try consumer.receive(into: &buffer) {
        let payload = unsafe buffer.payload(of: packet).withUnsafeBytes { unsafe [UInt8]($0) }
        let ranges = unsafe buffer.ranges(of: packet).withUnsafeBytes { unsafe [UInt8]($0) }
        if consumer.commit() { doorbell.signal() }
        return SmallPacket(
          type: packet.type, id: packet.transactionID,
          completionRequested: packet.completionRequested, ranges: ranges, payload: payload)
      }
      vmbus_sleep_milliseconds(1)
    }
    return nil
  }

  /// The next packet of the host, or nil if none comes.
  mutating func receive(
    milliseconds: Int = 10_000
  ) throws -> (type: PacketType, id: UInt64, payload: [UInt8])? {
    for _ in 0...milliseconds {
      if let packet = try consumer.receive(into: &buffer) {
        let payload = unsafe buffer.payload(of: packet).withUnsafeBytes { unsafe [UInt8]($0) }
        if consumer.commit() { doorbell.signal() }
        return (packet.type, packet.transactionID, payload)
      }
      vmbus_sleep_milliseconds(1)
    }
    return nil
  }

  /// Sends a packet and returns its completion's payload.
  mutating func ask(_ payload: [UInt8], dataByteCount: Int? = nil) throws -> [UInt8] {
    let id = try send(payload, dataByteCount: dataByteCount)
    guard let answer = try receive(), answer.type == .completion, answer.id == id else {
      throw SmallGuest.Failed(reason: "no completion")
    }
    return answer.payload
  }
}
