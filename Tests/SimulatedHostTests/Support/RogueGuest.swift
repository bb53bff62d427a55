// SPDX-License-Identifier: Apache-2.0

import CLinux
import Platform
import SimulatedHost
import SimulatedLink
import Synchronization
import VMBus

/// A guest without a control client: it posts what a test gives it, and shows what the host says.
final class RogueGuest {
  struct Failed: Error { let reason: String }

  private let link: RawGuest
  private let file: MemoryFile
  private let memory: MappedMemory
  private let interrupt: EventDescriptor
  static let firstPage: GPN = 0x100
  let pageCount: Int

  /// Joins and connects. Its first two pages are the host's to write messages and flags to.
  init(_ host: SimulatedHost, pages: Int = 64, connects: Bool = true) throws {
    pageCount = pages
    link = try RawGuest(host)
    file = try MemoryFile(name: "rogue guest", byteCount: pages * 4096)
    memory = try file.map()
    interrupt = try EventDescriptor()
    let join = PartitionTests.join(pages: UInt64(pages)) { _, region in
      region.firstPage = Self.firstPage
    }
    try expect(
      link.call(.join, join, descriptors: [file.owned.rawValue, interrupt.rawValue])
        == .success, "joins")
    var registers = LinkSynIC()
    (registers.messagePage, registers.eventFlagsPage) = (Self.firstPage, Self.firstPage + 1)
    try expect(link.call(.setSynIC, registers.wireBytes) == .success, "sets its SynIC")
    if connects { try connect() }
  }

  func connect() throws {
    try post(
      .initiateContact(
        InitiateContact {
          $0.versionRequested = .v5_3
          $0.interruptPageOrTargetInfo = UInt64(SynIC.vmbusSINT)
        }, clientID: nil))
    _ = try answer("to the contact") { if case .versionResponse = $0 { true } else { nil } }
    try post(.requestOffers)
    _ = try answer("to the request for offers") {
      if case .allOffersDelivered = $0 { true } else { nil }
    }
  }

  private func expect(_ condition: Bool, _ reason: String) throws {
    guard condition else { throw Failed(reason: reason) }
  }

  // MARK: - Messages

  /// Posts bytes as they are.
  ///
  /// - Returns: false when the host has cut this guest off.
  @discardableResult
  func post(_ bytes: [UInt8], connectionID: UInt32 = 4) throws -> Bool {
    var post = LinkPost()
    post.connectionID = connectionID
    post.messageType = SynIC.vmbusMessage
    post.payloadByteCount = UInt32(bytes.count)
    do {
      return try link.call(.postMessage, post.wireBytes + bytes) != nil
    } catch {
      return false
    }
  }

  func post(_ message: ControlMessage) throws {
    try expect(post(OutgoingMessage(message).array), "posts")
  }

  /// The next message of the host, if there is one.
  func nextMessage() throws -> ControlMessage? {
    // Safe: the guest's own page, mapped as long as this object lives.
    let slot = unsafe memory.start + SynIC.messageSlotOffset(sint: SynIC.vmbusSINT)
    let type = unsafe slot.assumingMemoryBound(to: Atomic<UInt32>.self)
    guard unsafe type.pointee.load(ordering: .sequentiallyConsistent) != SynIC.noMessage else {
      return nil
    }
    let count = unsafe Int((slot + 4).load(as: UInt8.self))
    let bytes = (0..<count).map { unsafe (slot + 16).load(fromByteOffset: $0, as: UInt8.self) }
    unsafe type.pointee.store(SynIC.noMessage, ordering: .sequentiallyConsistent)
    if unsafe (slot + 5).load(as: UInt8.self) & 1 != 0 {
      _ = try link.call(.endOfMessage, LinkNumber(0).wireBytes)
    }
    return try ControlMessage(parsing: bytes, version: .v5_3)
  }

  /// Waits for a message from which `body` makes something; others are dropped.
  func answer<Answer>(_ reason: String, _ body: (ControlMessage) -> Answer?) throws -> Answer {
    for _ in 0..<10_000 {
      while let message = try nextMessage() {
        if let answer = body(message) { return answer }
      }
      vmbus_sleep_milliseconds(1)
    }
    throw Failed(reason: "no answer \(reason)")
  }

  // MARK: - GPADLs and channels

  func page(_ index: Int) -> GPN { Self.firstPage + GPN(index) }

  /// Safe for as long as the guest lives.
  @unsafe
  func start(ofPage index: Int) -> UnsafeMutableRawPointer {
    unsafe memory.start + index * 4096
  }

  /// Describes memory by these words, whatever length and count say, and returns the answer.
  func describe(
    _ id: GPADLID, of channel: ChannelID = 1, _ words: [UInt64], length: Int? = nil,
    count: UInt16 = 1
  ) throws -> ControlStatus {
    try begin(id, of: channel, words, length: length, count: count)
    return try created(id)
  }

  /// The same without waiting for an answer.
  func begin(
    _ id: GPADLID, of channel: ChannelID = 1, _ words: [UInt64], length: Int? = nil,
    count: UInt16 = 1
  ) throws {
    let header = GPADLHeader {
      $0.channelID = channel
      $0.gpadlID = id
      $0.length = UInt16(length ?? words.count * 8)
      $0.rangeCount = count
    }
    try post(.gpadlHeader(header, Array(words.prefix(GPADL.wordsInHeader))))
    var rest = words.dropFirst(GPADL.wordsInHeader)
    while !rest.isEmpty {
      try post(.gpadlBody(GPADLBody { $0.gpadlID = id }, Array(rest.prefix(GPADL.wordsInBody))))
      rest = rest.dropFirst(GPADL.wordsInBody)
    }
  }

  func created(_ id: GPADLID) throws -> ControlStatus {
    try answer("for GPADL \(id)") {
      if case .gpadlCreated(let body) = $0, body.gpadlID == id { body.status } else { nil }
    }
  }

  func tearDown(_ id: GPADLID, of channel: ChannelID = 1) throws {
    try post(
      .gpadlTeardown(
        GPADLTeardown {
          $0.channelID = channel
          $0.gpadlID = id
        }))
    try answer("to the teardown") {
      if case .gpadlTorndown(let body) = $0, body.gpadlID == id { () } else { nil }
    }
  }

  /// Describes whole pages.
  func describe(_ id: GPADLID, pages: [GPN], of channel: ChannelID = 1) throws -> ControlStatus {
    try describe(id, of: channel, [UInt64(pages.count * 4096)] + pages)
  }

  func open(
    _ ring: GPADLID, of channel: ChannelID = 1, downstream: UInt32, processor: UInt32 = 0
  ) throws -> ControlStatus {
    try beginOpen(ring, of: channel, downstream: downstream, processor: processor)
    return try answer("to the open") {
      if case .openChannelResult(let body) = $0, body.channelID == channel {
        body.status
      } else {
        nil
      }
    }
  }

  /// The same without waiting for an answer.
  func beginOpen(
    _ ring: GPADLID, of channel: ChannelID = 1, downstream: UInt32, processor: UInt32 = 0
  ) throws {
    try post(
      .openChannel(
        OpenChannel {
          $0.channelID = channel
          $0.ringGPADL = ring
          $0.targetVP = processor
          $0.downstreamPageOffset = downstream
        }, nil))
  }

  func close(_ channel: ChannelID = 1) throws {
    try post(.closeChannel(CloseChannel { $0.channelID = channel }))
  }

  // MARK: - Signals

  /// What signals with one number go to.
  final class Doorbell {
    private let event: EventDescriptor

    init(_ owned: consuming OwnedDescriptor) { event = EventDescriptor(owned) }

    func signal() { event.signal() }
  }

  /// Nil when the host refuses.
  func doorbell(_ connectionID: UInt32) throws -> Doorbell? {
    try link.socket.send(LinkHeader(.bindEvent).wireBytes + LinkNumber(connectionID).wireBytes)
    guard let event = try link.socket.receive()?.takeDescriptor(0) else { return nil }
    return Doorbell(event)
  }

  /// Ends the connection, as the end of its process does.
  func die() { link.socket.shutDown() }
}
