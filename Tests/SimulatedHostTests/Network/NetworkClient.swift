// SPDX-License-Identifier: Apache-2.0

import NetworkProtocol
import SimulatedHost
import VMBus

/// A network client that a test drives step by step. It does what the named guest does; the bytes are
/// written by hand.
struct NetworkClient: ~Copyable {
  /// What guests do differently at the start.
  struct Style {
    var versions: [UInt32] = [0x60001]
    /// Bytes of each message.
    var messageByteCount = 40
    /// Asks for completions of what tells nothing.
    var asksForAll = false
    var hasConfiguration = true
    var frameByteCount: UInt32 = 1514
    /// 8021q, sriov, teaming, coalesced receive.
    var capabilities: UInt32 = 0xAC
    var ndisMinor: UInt32 = 30
    var hasSendBuffer = true
    var receivePages = 32
    /// Whether no page of the receive buffer lies behind the one before it.
    var scattersPages = false

    static let linux = Style()
    /// Old versions with short messages, and completions for everything.
    static let uefi = Style(
      versions: [0x30002], messageByteCount: 28, asksForAll: true, capabilities: 0, ndisMinor: 1,
      hasSendBuffer: false)
    static let freeBSD = Style(
      versions: [0x50000, 0x40000], messageByteCount: 40, capabilities: 8)
    static let dpdk = Style(versions: [0x60001, 0x60000, 0x50000], capabilities: 0x0C)
    static let windows = Style(asksForAll: true, capabilities: 0xFF)
  }

  let guest: SmallGuest
  let style: Style
  var channel: SmallChannel
  let receivePages: Range<Int>
  let sendPages: Range<Int>
  private(set) var receiveGPADL = GPADLID(0)
  private(set) var sendGPADL = GPADLID(0)
  /// What the host said of the receive buffer.
  private(set) var pieceByteCount = 0
  private(set) var pieceCount = 0
  private(set) var version: UInt32 = 0
  private var nextID: UInt64 = 0x1000
  private var requestID: UInt32 = 0
  /// Packets of the host that came while something else was waited for.
  var held: [SmallPacket] = []

  init(_ guest: SmallGuest, _ style: Style = .linux, channel id: ChannelID? = nil) throws {
    self.guest = guest
    self.style = style
    guard let id = id ?? guest.offers.first(where: { $0.subchannelIndex == 0 })?.channelID else {
      throw SmallGuest.Failed(reason: "has no offer")
    }
    channel = try guest.open(id)
    receivePages = guest.takePages(style.receivePages)
    sendPages = guest.takePages(12)
  }

  // MARK: - Packets

  mutating func takeID() -> UInt64 {
    nextID += 1
    return nextID
  }

  /// The next packet of the host.
  mutating func next(_ reason: String = "sends a packet") throws -> SmallPacket {
    if !held.isEmpty { return held.removeFirst() }
    guard let packet = try channel.receiveWhole() else {
      throw SmallGuest.Failed(reason: "the host never \(reason)")
    }
    return packet
  }

  /// Whether the host is silent for a moment.
  mutating func isSilent(milliseconds: Int = 50) throws -> Bool {
    guard held.isEmpty else { return false }
    guard let packet = try channel.receiveWhole(milliseconds: milliseconds) else { return true }
    held.append(packet)
    return false
  }

  /// Sends a message and returns the payload of its completion.
  mutating func ask(_ message: [UInt8]) throws -> [UInt8] {
    let id = takeID()
    try channel.send(.inBand, id: id, message)
    return try completion(of: id)
  }

  mutating func completion(of id: UInt64) throws -> [UInt8] {
    var others: [SmallPacket] = []
    defer { held = others + held }
    while true {
      let packet = try next("completes \(id)")
      if packet.type == .completion, packet.id == id { return packet.payload }
      others.append(packet)
    }
  }

  /// Sends a message that tells something only: with a completion if the guest asks for one.
  mutating func tell(_ message: [UInt8]) throws {
    if style.asksForAll {
      guard try ask(message).isEmpty else {
        throw SmallGuest.Failed(reason: "gets a completion with a payload")
      }
    } else {
      try channel.send(.inBand, id: takeID(), message, completionRequested: false)
    }
  }

  // MARK: - The start-up

  /// INIT until a version is taken; then the configuration.
  mutating func negotiate() throws {
    for asked in style.versions {
      let answer = try ask(Wire.nvsp(1, asked, asked, size: style.messageByteCount))
      guard Wire.word(answer, 0) == 2 else {
        throw SmallGuest.Failed(reason: "gets no INIT_COMPLETE")
      }
      guard Wire.word(answer, 12) == 1 else { continue }
      version = asked
      break
    }
    guard version != 0 else { throw SmallGuest.Failed(reason: "finds a version") }
    if version > 2, style.hasConfiguration {
      try tell(
        Wire.nvsp(
          125, style.frameByteCount, 0, style.capabilities, 0, size: style.messageByteCount))
    }
    try tell(Wire.nvsp(100, 6, style.ndisMinor, size: style.messageByteCount))
  }

  /// Both buffers; the send buffer only where the guest has one.
  mutating func giveBuffers() throws {
    let numbers = guest.numbers(receivePages)
    receiveGPADL = try guest.describe(
      style.scattersPages ? numbers.reversed() : numbers, of: channel.id)
    let answer = try ask(
      Wire.nvsp(101, receiveGPADL.rawValue, 0xCAFE, size: style.messageByteCount))
    guard answer.count >= 28, Wire.word(answer, 0) == 102, Wire.word(answer, 4) == 1,
      Wire.word(answer, 8) == 1
    else { throw SmallGuest.Failed(reason: "has no receive buffer: \(answer)") }
    pieceByteCount = Int(Wire.word(answer, 16))
    pieceCount = Int(Wire.word(answer, 20))
    guard style.hasSendBuffer else { return }
    sendGPADL = try guest.describe(sendPages, of: channel.id)
    let other = try ask(Wire.nvsp(104, sendGPADL.rawValue, 0, size: style.messageByteCount))
    guard Wire.word(other, 0) == 105, Wire.word(other, 4) == 1 else {
      throw SmallGuest.Failed(reason: "has no send buffer: \(other)")
    }
  }

  /// All of it, up to a packet filter that takes directed, multicast and broadcast frames.
  mutating func start(filter: UInt32 = 0xB) throws {
    try negotiate()
    try giveBuffers()
    let answer = try control(Wire.rndis(2, Wire.words(1, 1, 0, 0x4000)))
    guard Wire.word(answer, 0) == 0x8000_0002, Wire.word(answer, 12) == 0 else {
      throw SmallGuest.Failed(reason: "initializes RNDIS: \(answer)")
    }
    guard try setFilter(filter) == 0 else { throw SmallGuest.Failed(reason: "sets a filter") }
  }

  mutating func setFilter(_ filter: UInt32) throws -> UInt32 {
    try set(0x0001_010E, Wire.words(filter))
  }

  // MARK: - RNDIS

  /// Sends a control message by GPA-direct, and returns the answer, whose buffer it gives back.
  mutating func control(_ message: [UInt8]) throws -> [UInt8] {
    let status = try sendRNDIS(message, channelType: 1)
    guard status == 1 else {
      throw SmallGuest.Failed(reason: "gets status \(status) for a control message")
    }
    return try answer()
  }

  /// The next control message of the host.
  mutating func answer() throws -> [UInt8] {
    var others: [SmallPacket] = []
    defer { held = others + held }
    while true {
      let packet = try next("answers")
      guard packet.type == .transferPages, Wire.word(packet.payload, 4) == 1 else {
        others.append(packet)
        continue
      }
      let ranges = try self.ranges(packet)
      try complete(packet)
      guard let message = ranges.first else { throw SmallGuest.Failed(reason: "no range") }
      return message
    }
  }

  mutating func query(_ oid: UInt32, _ buffer: [UInt8] = []) throws -> [UInt8]? {
    requestID += 1
    let answer = try control(Wire.query(requestID, oid, buffer))
    guard Wire.word(answer, 0) == 0x8000_0004, Wire.word(answer, 8) == requestID else {
      throw SmallGuest.Failed(reason: "gets no answer to its query: \(answer)")
    }
    guard Wire.word(answer, 12) == 0 else { return nil }
    let start = 8 + Int(Wire.word(answer, 20))
    let count = Int(Wire.word(answer, 16))
    guard start + count <= answer.count else {
      throw SmallGuest.Failed(reason: "gets a buffer outside of its message")
    }
    return Array(answer[start..<start + count])
  }

  /// The status.
  mutating func set(_ oid: UInt32, _ buffer: [UInt8]) throws -> UInt32 {
    requestID += 1
    let answer = try control(Wire.set(requestID, oid, buffer))
    guard Wire.word(answer, 0) == 0x8000_0005, Wire.word(answer, 8) == requestID else {
      throw SmallGuest.Failed(reason: "gets no answer to its set")
    }
    return Wire.word(answer, 12)
  }

  // MARK: - Frames

  /// Puts bytes into the channel's data pages, and sends them as one range of a GPA-direct packet.
  ///
  /// - Returns: the status of the completion.
  mutating func sendRNDIS(_ message: [UInt8], channelType: UInt32 = 0) throws -> UInt32 {
    put(message, at: 0)
    return try send(ranges: [(0, message.count)], channelType: channelType)
  }

  func put(_ bytes: [UInt8], at offset: Int) {
    let memory = unsafe guest.bytes(channel.data)
    for (index, byte) in bytes.enumerated() { unsafe memory[offset + index] = byte }
  }

  /// Sends pieces of the data pages, each as a range, with a section before them if so wished.
  mutating func send(
    ranges: [(offset: Int, count: Int)], channelType: UInt32 = 0, section: UInt32 = 0xFFFF_FFFF,
    sectionByteCount: UInt32 = 0
  ) throws -> UInt32 {
    var bytes = Wire.words(0, UInt32(ranges.count))
    let pages = guest.numbers(channel.data)
    for range in ranges {
      bytes += Wire.words(UInt32(range.count), UInt32(range.offset % 4096))
      let first = range.offset / 4096
      let count = (range.offset % 4096 + range.count + 4095) / 4096
      for page in pages[first..<first + count] { bytes.append(little: page) }
    }
    let id = takeID()
    try channel.send(
      ranges.isEmpty ? .inBand : .gpaDirect, id: id, ranges: ranges.isEmpty ? [] : bytes,
      Wire.nvsp(107, channelType, section, sectionByteCount, size: style.messageByteCount))
    let answer = try completion(of: id)
    guard Wire.word(answer, 0) == 108 else { throw SmallGuest.Failed(reason: "no completion") }
    return Wire.word(answer, 4)
  }

  /// Sends what lies in a section of the send buffer.
  mutating func send(_ message: [UInt8], section: Int) throws -> UInt32 {
    let memory = unsafe guest.bytes(sendPages)
    for (index, byte) in message.enumerated() { unsafe memory[section * 6144 + index] = byte }
    return try send(
      ranges: [], section: UInt32(section), sectionByteCount: UInt32(message.count))
  }

  /// The bytes of each range of a transfer-pages packet.
  func ranges(_ packet: SmallPacket) throws -> [[UInt8]] {
    guard packet.type == .transferPages, packet.completionRequested,
      packet.ranges.count >= 16, packet.ranges[0] == 0xFE, packet.ranges[1] == 0xCA,
      Wire.word(packet.payload, 0) == 107
    else { throw SmallGuest.Failed(reason: "gets another packet: \(packet)") }
    let memory = unsafe guest.bytes(receivePages)
    return try (0..<Int(Wire.word(packet.ranges, 4))).map { index in
      let count = Int(Wire.word(packet.ranges, 8 + 8 * index))
      let offset = Int(Wire.word(packet.ranges, 12 + 8 * index))
      guard offset + count <= memory.count, offset % pieceByteCount == 0 else {
        throw SmallGuest.Failed(reason: "gets \(count) bytes at \(offset)")
      }
      guard style.scattersPages else { return unsafe Array(memory[offset..<offset + count]) }
      // The last page is the first one of the buffer.
      return (offset..<offset + count).map {
        unsafe memory[(receivePages.count - 1 - $0 / 4096) * 4096 + $0 % 4096]
      }
    }
  }

  /// Gives the buffers of a packet back.
  mutating func complete(_ packet: SmallPacket) throws {
    try channel.send(
      .completion, id: packet.id, Wire.words(108, 1), completionRequested: false)
  }

  /// The next packet with data, given back at once: each message's frame and info.
  mutating func receiveFrames() throws -> [(frame: [UInt8], info: [UInt32: UInt32])] {
    let packet = try next("sends a frame")
    let messages = try ranges(packet)
    try complete(packet)
    return try messages.map { try Self.frame($0) }
  }

  /// The frame of a data message, and its info by type.
  static func frame(_ message: [UInt8]) throws -> (frame: [UInt8], info: [UInt32: UInt32]) {
    guard Wire.word(message, 0) == 1, Int(Wire.word(message, 4)) <= message.count else {
      throw SmallGuest.Failed(reason: "gets another message")
    }
    let start = 8 + Int(Wire.word(message, 8))
    let count = Int(Wire.word(message, 12))
    guard start + count <= message.count else { throw SmallGuest.Failed(reason: "frame") }
    var info: [UInt32: UInt32] = [:]
    var offset = 8 + Int(Wire.word(message, 28))
    let end = offset + Int(Wire.word(message, 32))
    while offset < end {
      info[Wire.word(message, offset + 4)] = Wire.word(message, offset + 12)
      offset += Int(Wire.word(message, offset))
    }
    return (Array(message[start..<start + count]), info)
  }
}
