// SPDX-License-Identifier: Apache-2.0

import StorageProtocol
import Testing
import VMBus

@Suite struct StorageNegotiationTests {
  /// A completion's 64 bytes.
  static func reply(
    status: UInt32 = 0, operation: UInt8 = 1, body: [UInt8] = [], count: Int = 64
  ) -> [UInt8] {
    var bytes: [UInt8] = [operation, 0, 0, 0, 0, 0, 0, 0]
    bytes += (0..<4).map { UInt8(truncatingIfNeeded: status >> (8 * $0)) }
    bytes += body
    bytes += repeatElement(0, count: max(0, count - bytes.count))
    return Array(bytes.prefix(count))
  }

  static func properties(limit: UInt32, subchannels: UInt8 = 0, flags: UInt8 = 0) -> [UInt8] {
    [0, 0, 0, 0, subchannels, 0, 0, 0, flags, 0, 0, 0]
      + (0..<4).map { UInt8(truncatingIfNeeded: limit >> (8 * $0)) }
      + [0, 0, 0, 0, 0, 0, 0, 0]
  }

  static let refusal = reply(status: 0xC000_0059)
  static let good = reply()
  static let goodProperties = reply(body: properties(limit: 0x40000))

  /// Gives a completion and returns what is sent next, or nil when ready.
  static func give(
    _ bytes: [UInt8], to negotiation: inout StorageNegotiation
  ) throws(StorageProtocolError) -> [UInt8]? {
    let span = bytes.span
    return packet(try negotiation.completion(unsafe span.bytes))
  }

  static func packet(_ step: StorageNegotiation.Step) -> [UInt8]? {
    guard case .send(let packet) = step else { return nil }
    return packet.indices.map { packet[$0] }
  }

  static func request(_ operation: UInt8, _ body: [UInt8] = []) -> [UInt8] {
    let start: [UInt8] = [operation, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0] + body
    return start + [UInt8](repeating: 0, count: 64 - start.count)
  }

  @Test func startUpWithTheNewestVersion() throws {
    var negotiation = StorageNegotiation()
    #expect(Self.packet(try negotiation.start()) == Self.request(7))
    #expect(try Self.give(Self.good, to: &negotiation) == Self.request(9, [0x02, 0x06]))
    #expect(try Self.give(Self.good, to: &negotiation) == Self.request(10))
    let reply = Self.reply(body: Self.properties(limit: 0x80000, subchannels: 7, flags: 1))
    #expect(try Self.give(reply, to: &negotiation) == Self.request(8))
    #expect(try Self.give(Self.good, to: &negotiation) == nil)
    #expect(
      negotiation.stage
        == .ready(
          StorageCapabilities(
            version: .windows10, maximumTransferBytes: 0x80000, maximumSubchannels: 7,
            isMultiChannel: true)))
  }

  @Test func eachRefusalGoesDownOneVersion() throws {
    var negotiation = StorageNegotiation()
    _ = try negotiation.start()
    _ = try Self.give(Self.good, to: &negotiation)
    #expect(try Self.give(Self.refusal, to: &negotiation) == Self.request(9, [0x00, 0x06]))
    // Another reason than the revision counts as a refusal too.
    let unsuccessful = Self.reply(status: 0xC000_0001)
    #expect(try Self.give(unsuccessful, to: &negotiation) == Self.request(9, [0x01, 0x05]))
    // A host of an old version has shorter packets.
    let short = Self.reply(status: 0xC000_0059, count: 48)
    #expect(try Self.give(short, to: &negotiation) == Self.request(9, [0x02, 0x04]))
    #expect(try Self.give(short, to: &negotiation) == Self.request(9, [0x00, 0x02]))
    #expect(throws: StorageProtocolError.noCommonVersion(.revisionMismatch)) {
      try Self.give(Self.refusal, to: &negotiation)
    }
    #expect(negotiation.stage == .failed)
  }

  @Test(arguments: [
    (0, StorageVersion.windows10), (1, .windows81), (2, .windows8), (3, .windows7),
    (4, .windowsVista),
  ])
  func eachVersionCanBeAgreedOn(_ refusals: Int, _ version: StorageVersion) throws {
    var negotiation = StorageNegotiation()
    _ = try negotiation.start()
    _ = try Self.give(Self.good, to: &negotiation)
    for _ in 0..<refusals { _ = try Self.give(Self.refusal, to: &negotiation) }
    // 48 bytes before 5.1, 64 since.
    let count = refusals < 3 ? 64 : 48
    let body = Self.properties(limit: 0x10000)
    _ = try Self.give(Self.reply(count: count), to: &negotiation)
    _ = try Self.give(Self.reply(body: body, count: count), to: &negotiation)
    #expect(try Self.give(Self.reply(count: count), to: &negotiation) == nil)
    #expect(
      negotiation.stage
        == .ready(StorageCapabilities(version: version, maximumTransferBytes: 0x10000)))
  }

  @Test func subchannelsNeedTheFlag() throws {
    var negotiation = try Self.negotiation(at: 3)
    let reply = Self.reply(body: Self.properties(limit: 4096, subchannels: 9, flags: 0))
    _ = try Self.give(reply, to: &negotiation)
    #expect(
      negotiation.stage
        == .ending(StorageCapabilities(version: .windows10, maximumTransferBytes: 4096)))
  }

  @Test func uselessTransferLimitIsRefused() throws {
    for limit in [0, 1, 4095] as [UInt32] {
      var negotiation = try Self.negotiation(at: 3)
      #expect(throws: StorageProtocolError.unusableTransferLimit(limit)) {
        try Self.give(Self.reply(body: Self.properties(limit: limit)), to: &negotiation)
      }
    }
  }

  /// A negotiation that has seen `events` events: 1 has begun, 5 is ready.
  static func negotiation(at events: Int) throws -> StorageNegotiation {
    var negotiation = StorageNegotiation()
    for event in 0..<events {
      switch event {
      case 0: _ = try negotiation.start()
      case 3: _ = try give(goodProperties, to: &negotiation)
      default: _ = try give(good, to: &negotiation)
      }
    }
    return negotiation
  }

  @Test func completionOutOfTurnIsRefused() throws {
    for events in [0, 5] {
      var negotiation = try Self.negotiation(at: events)
      #expect(throws: StorageProtocolError.unexpectedCompletion) {
        try Self.give(Self.good, to: &negotiation)
      }
      #expect(negotiation.stage == .failed)
      #expect(throws: StorageProtocolError.unexpectedCompletion) {
        try Self.give(Self.good, to: &negotiation)
      }
      #expect(throws: StorageProtocolError.alreadyStarted) { try negotiation.start() }
    }
  }

  @Test(arguments: 1...5) func secondStartIsRefused(_ events: Int) throws {
    var negotiation = try Self.negotiation(at: events)
    #expect(throws: StorageProtocolError.alreadyStarted) { try negotiation.start() }
    #expect(negotiation.stage == .failed)
  }

  @Test(arguments: 1...4) func shortCompletionIsRefused(_ events: Int) throws {
    // The version is known from the third on.
    let needed = events < 3 ? 48 : 64
    for count in [0, 11, 12, 47, 48, 63] where count < needed {
      var negotiation = try Self.negotiation(at: events)
      #expect(
        throws: StorageProtocolError.malformed(
          .tooShort("StorageCompletion", needed: needed, found: count))
      ) {
        try Self.give(Self.reply(count: count), to: &negotiation)
      }
      #expect(negotiation.stage == .failed)
    }
  }

  @Test(arguments: 1...4) func otherOperationsAreRefused(_ events: Int) throws {
    for operation in [0, 2, 3, 9, 11, 255] as [UInt8] {
      var negotiation = try Self.negotiation(at: events)
      #expect(
        throws: StorageProtocolError.unexpectedOperation(
          StorageOperation(rawValue: UInt32(operation)))
      ) {
        try Self.give(Self.reply(operation: operation), to: &negotiation)
      }
    }
  }

  @Test(arguments: [
    (1, StorageOperation.beginInitialization), (3, .queryProperties), (4, .endInitialization),
  ])
  func refusedStepsAreNamed(_ pair: (Int, StorageOperation)) throws {
    var negotiation = try Self.negotiation(at: pair.0)
    #expect(throws: StorageProtocolError.refused(pair.1, .invalidDeviceState)) {
      try Self.give(Self.reply(status: 0xC000_0184), to: &negotiation)
    }
    #expect(negotiation.stage == .failed)
  }
}
