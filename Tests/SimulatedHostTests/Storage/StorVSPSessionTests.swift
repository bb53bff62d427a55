// SPDX-License-Identifier: Apache-2.0

import SimulatedHost
import StorageProtocol
import Testing
import VMBus

@Suite struct StorVSPSessionTests {
  /// A session with its controller, driven by the bytes of packets.
  final class Rig {
    var session: StorVSPSession
    let bench: StorageBench
    let nexus = SCSINexus()
    var event = StorVSPSession.Event.none

    init(_ session: StorVSPSession = StorVSPSession()) throws {
      self.session = session
      bench = try StorageBench()
    }

    func send(
      _ packet: [UInt8], data: inout [UInt8], isTransactional: Bool = true
    ) throws(StorVSPError) -> [UInt8] {
      let packetSpan = packet.span
      var dataSpan = data.mutableSpan
      var external = ContiguousExternalData(unsafe dataSpan.mutableBytes)
      var completion = StorVSPSession.Completion(repeating: 0xEE)
      let result = try session.handle(
        unsafe packetSpan.bytes, isTransactional: isTransactional, data: &external,
        target: SCSITarget(bench.controller, nexus: nexus), completion: &completion)
      event = result.event
      return (0..<result.byteCount).map { completion[$0] }
    }

    func send(_ packet: [UInt8]) throws(StorVSPError) -> [UInt8] {
      var data: [UInt8] = []
      return try send(packet, data: &data)
    }

    /// Goes on to a stage by its shortest way.
    func advance(
      to stage: StorVSPSession.Stage, version: [UInt8] = [0x00, 0x06]
    ) throws(StorVSPError) {
      let steps: [(StorVSPSession.Stage, UInt8, [UInt8])] = [
        (.begin, 7, []), (.version, 9, version), (.properties, 10, []), (.end, 8, []),
      ]
      for (now, operation, body) in steps where session.stage == now && now != stage {
        _ = try send(packet(operation, body))
      }
      #expect(session.stage == stage)
    }
  }

  static func packet(_ operation: UInt8, _ body: [UInt8] = [], count: Int = 64) -> [UInt8] {
    let start: [UInt8] = [operation, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0] + body
    return start + [UInt8](repeating: 0, count: max(0, count - start.count))
  }

  static func completion(
    _ status: [UInt8] = [0, 0, 0, 0], _ body: [UInt8] = [], count: Int = 64
  ) -> [UInt8] {
    let start: [UInt8] = [1, 0, 0, 0, 0, 0, 0, 0] + status + body
    return start + [UInt8](repeating: 0, count: max(0, count - start.count))
  }

  static let invalidState: [UInt8] = [0x84, 0x01, 0x00, 0xC0]
  static let invalidParameter: [UInt8] = [0x0D, 0x00, 0x00, 0xC0]
  static let mismatch: [UInt8] = [0x59, 0x00, 0x00, 0xC0]

  @Test func startUp() throws {
    let rig = try Rig()
    #expect(try rig.send(packet(7)) == Self.completion())
    // 6.2 is newer than this host: its own number comes back, and the guest may ask again.
    #expect(
      try rig.send(packet(9, [0x02, 0x06])) == Self.completion(Self.mismatch, [0x02, 0x06]))
    #expect(rig.session.stage == .version)
    #expect(
      try rig.send(packet(9, [0x00, 0x06])) == Self.completion([0, 0, 0, 0], [0x00, 0x06]))
    let properties: [UInt8] =
      [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x04, 0, 0, 0, 0, 0, 0, 0, 0, 0]
    #expect(try rig.send(packet(10)) == Self.completion([0, 0, 0, 0], properties))
    #expect(rig.event == .none)
    #expect(try rig.send(packet(8)) == Self.completion())
    #expect(rig.event == .ready(.windows81))
    #expect(rig.session.version == .windows81)
  }

  func packet(_ operation: UInt8, _ body: [UInt8] = []) -> [UInt8] {
    Self.packet(operation, body)
  }

  @Test(
    arguments: [
      (0x0200, true), (0x0402, true), (0x0501, true), (0x0600, true), (0x0602, false),
      (0x0502, false), (0x0000, false), (0xFFFF, false), (0x0700, false),
    ] as [(UInt16, Bool)])
  func versionsThatAreAccepted(_ pair: (UInt16, Bool)) throws {
    let rig = try Rig()
    try rig.advance(to: .version)
    let body = [UInt8(pair.0 & 0xFF), UInt8(pair.0 >> 8)]
    let answer = try rig.send(packet(9, body))
    #expect(answer == Self.completion(pair.1 ? [0, 0, 0, 0] : Self.mismatch, body))
    #expect(rig.session.stage == (pair.1 ? .properties : .version))
  }

  @Test func newestVersionCanBeRaised() throws {
    let rig = try Rig(StorVSPSession(newestVersion: .windows10))
    try rig.advance(to: .ready, version: [0x02, 0x06])
    #expect(rig.session.version == .windows10)
  }

  /// Each operation that a guest may send, in each stage where it may not.
  @Test func operationsOutOfTurnLeaveTheStageAsItIs() throws {
    let stages: [StorVSPSession.Stage] = [.begin, .version, .properties, .end, .ready]
    let allowed: [(UInt8, [StorVSPSession.Stage])] = [
      (3, [.ready]), (4, [.ready]), (5, [.ready]), (6, [.ready]), (7, [.begin]), (8, [.end]),
      (9, [.version]), (10, [.properties]), (13, [.end, .ready]),
    ]
    var refused = 0
    for stage in stages {
      for (operation, lawful) in allowed where !lawful.contains(stage) {
        let rig = try Rig()
        try rig.advance(to: stage)
        #expect(try rig.send(packet(operation)) == Self.completion(Self.invalidState))
        #expect(rig.session.stage == stage)
        refused += 1
      }
    }
    #expect(refused == 9 * 5 - 10)
  }

  @Test(arguments: [0, 1, 2, 11, 12, 14, 15, 255] as [UInt8])
  func operationsOfNoGuestEndTheChannel(_ operation: UInt8) throws {
    for stage in [.begin, .version, .properties, .end, .ready] as [StorVSPSession.Stage] {
      let rig = try Rig()
      try rig.advance(to: stage)
      #expect(
        throws: StorVSPError.unknownOperation(StorageOperation(rawValue: UInt32(operation)))
      ) { try rig.send(packet(operation)) }
    }
  }

  @Test func resetsAreDoneAtOnce() throws {
    let rig = try Rig()
    try rig.advance(to: .ready)
    for operation in [4, 5, 6] as [UInt8] {
      #expect(try rig.send(packet(operation)) == Self.completion())
    }
  }

  @Test func subchannelsBeyondTheLimitAreRefused() throws {
    for stage in [.end, .ready] as [StorVSPSession.Stage] {
      let rig = try Rig()
      try rig.advance(to: stage)
      #expect(try rig.send(packet(13, [1, 0])) == Self.completion(Self.invalidParameter))
      #expect(try rig.send(packet(13, [0, 0])) == Self.completion())
      #expect(rig.event == .none)
      // Only once.
      #expect(try rig.send(packet(13, [0, 0])) == Self.completion(Self.invalidState))
    }
  }

  @Test func subchannelsAreGivenWithinTheLimit() throws {
    let rig = try Rig(StorVSPSession(maximumSubchannels: 0x102))
    try rig.advance(to: .properties)
    let properties = try rig.send(packet(10))
    #expect(Array(properties[16...23]) == [0x02, 0x01, 0, 0, 1, 0, 0, 0])
    #expect(try rig.send(packet(13, [3, 1])) == Self.completion(Self.invalidParameter))
    #expect(try rig.send(packet(13, [2, 1])) == Self.completion())
    #expect(rig.event == .createSubchannels(0x102))
  }

  @Test func oldVersionsHaveNoSubchannels() throws {
    let rig = try Rig(StorVSPSession(maximumSubchannels: 4))
    try rig.advance(to: .properties, version: [0x02, 0x04])
    #expect(Array(try rig.send(packet(10))[16...23]) == [0, 0, 0, 0, 0, 0, 0, 0])
    #expect(try rig.send(packet(13, [1, 0])) == Self.completion(Self.invalidParameter))
  }

  @Test(arguments: [(48, 48), (50, 56), (56, 56), (64, 64), (72, 64)])
  func completionIsAsLongAsTheRequest(_ pair: (Int, Int)) throws {
    let rig = try Rig()
    #expect(try rig.send(Self.packet(7, count: pair.0)) == Self.completion(count: pair.1))
  }

  static func readRequest(_ transfer: UInt32, length: Int = 52) -> [UInt8] {
    let start: [UInt8] =
      [52, 0, 0, 0, 0, 0, 0, 0, 16, 20, 1, 0]
      + (0..<4).map { UInt8(truncatingIfNeeded: transfer >> (8 * $0)) }
      + SCSIDiskTests.read16(1, 1)
    return start + [UInt8](repeating: 0, count: length - start.count)
  }

  @Test func requestIsExecuted() throws {
    let rig = try Rig()
    try rig.advance(to: .ready)
    var data = [UInt8](repeating: 0xEE, count: 512)
    let body: [UInt8] = [52, 0, 0x01, 0x00, 0, 0, 0, 0, 16, 20, 1, 0, 0, 2, 0, 0]
    #expect(
      try rig.send(packet(3, Self.readRequest(512)), data: &data)
        == Self.completion([0, 0, 0, 0], body))
    #expect(data.allSatisfy { $0 == 0 })
  }

  @Test func failedRequestCarriesItsStatusTwice() throws {
    let rig = try Rig()
    try rig.advance(to: .ready)
    rig.bench.controller.withFaults(lun: 0) { $0.inject(StorageFault(.sense(.unrecoveredRead))) }
    var data = [UInt8](repeating: 0xEE, count: 512)
    let body: [UInt8] =
      [52, 0, 0x84, 0x02, 0, 0, 0, 0, 16, 20, 1, 0, 0, 0, 0, 0]
      + [0x70, 0, 3, 0, 0, 0, 0, 10, 0, 0, 0, 0, 0x11, 0, 0, 0, 0, 0, 0, 0]
    #expect(
      try rig.send(packet(3, Self.readRequest(512)), data: &data)
        == Self.completion([0x85, 0x01, 0x00, 0xC0], body))
  }

  @Test func shortFormOfOldVersions() throws {
    let rig = try Rig()
    try rig.advance(to: .ready, version: [0x00, 0x02])
    var data = [UInt8](repeating: 0xEE, count: 512)
    let answer = try rig.send(
      Self.packet(3, Self.readRequest(512, length: 36), count: 48), data: &data)
    let body: [UInt8] = [36, 0, 0x01, 0x00, 0, 0, 0, 0, 16, 20, 1, 0, 0, 2, 0, 0]
    #expect(answer == Self.completion([0, 0, 0, 0], body, count: 48))
    // The long form is more than it needs, and the short one too little for newer versions.
    #expect(try rig.send(packet(3, Self.readRequest(512)), data: &data).count == 64)
    let newer = try Rig()
    try newer.advance(to: .ready)
    #expect(throws: StorVSPError.malformed(.tooShort("SCSIRequest", needed: 52, found: 36))) {
      try newer.send(Self.packet(3, Self.readRequest(512, length: 36), count: 48), data: &data)
    }
  }

  @Test func transferThatLiesEndsTheChannel() throws {
    let rig = try Rig()
    try rig.advance(to: .ready)
    var data = [UInt8](repeating: 0xEE, count: 511)
    #expect(throws: StorVSPError.dataTooShort(needed: 512, found: 511)) {
      try rig.send(packet(3, Self.readRequest(512)), data: &data)
    }
    #expect(throws: StorVSPError.dataTooShort(needed: .max, found: 0)) {
      try rig.send(packet(3, Self.readRequest(.max)))
    }
    #expect(data.allSatisfy { $0 == 0xEE })
  }

  @Test func packetsWithoutTheirShapeEndTheChannel() throws {
    for stage in [.begin, .version, .end, .ready] as [StorVSPSession.Stage] {
      for count in 0..<12 {
        let rig = try Rig()
        try rig.advance(to: stage)
        #expect(throws: StorVSPError.self) {
          try rig.send([UInt8](repeating: 3, count: count))
        }
      }
    }
    let rig = try Rig()
    try rig.advance(to: .version)
    #expect(
      throws: StorVSPError.malformed(.tooShort("StorageProtocolVersion", needed: 4, found: 2))
    ) { try rig.send(Self.packet(9, [0, 6], count: 14)) }
    var data: [UInt8] = []
    #expect(throws: StorVSPError.notTransactional) {
      try rig.send(packet(9, [0, 6]), data: &data, isTransactional: false)
    }
  }

  /// The client's own start-up against this host's.
  @Test(arguments: [
    (StorageVersion.windows10, StorageVersion.windows10), (.windows81, .windows81),
    (.windows8, .windows8),
  ])
  func clientAndHostAgree(_ pair: (StorageVersion, StorageVersion)) throws {
    let rig = try Rig(StorVSPSession(newestVersion: pair.0, maximumSubchannels: 3))
    var client = StorageNegotiation()
    var step = try client.start()
    while case .send(let packet) = step {
      let reply = try rig.send(packet.indices.map { packet[$0] })
      let span = reply.span
      step = try client.completion(unsafe span.bytes)
    }
    #expect(
      client.stage
        == .ready(
          StorageCapabilities(
            version: pair.1, maximumTransferBytes: 0x40000, maximumSubchannels: 3,
            isMultiChannel: true)))
    #expect(rig.session.stage == .ready)
  }
}
