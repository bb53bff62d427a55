// SPDX-License-Identifier: Apache-2.0

import NetworkProtocol
import SimulatedHost
import Testing
import VMBus

/// The provider's end of NVSP: each stage, and each message where it has no place.
@Suite struct NVSPSessionTests {
  static func session(
    _ stage: NVSPSession.Stage = .ready, version: UInt32 = 0x60001, queues: Int = 8
  ) throws -> NVSPSession {
    var configuration = AdapterConfiguration()
    configuration.maximumQueues = queues
    var session = NVSPSession(configuration)
    if stage == .version { return session }
    _ = try handle(&session, Wire.nvsp(1, version, version))
    if stage == .buffers { return session }
    _ = try handle(&session, Wire.nvsp(101, 5, 0xCAFE))
    #expect(session.receiveBuffer(byteCount: 1 << 20).status == .success)
    _ = try handle(&session, Wire.nvsp(107, 1, 0xFFFF_FFFF, 0))
    #expect(session.stage == .ready)
    return session
  }

  @discardableResult
  static func handle(
    _ session: inout NVSPSession, _ message: [UInt8], isTransactional: Bool = true
  ) throws(NetVSPError) -> NVSPSession.Action {
    try session.handle(unsafe message.span.bytes, isTransactional: isTransactional)
  }

  /// The error that a message gets.
  static func error(
    _ session: inout NVSPSession, _ message: [UInt8], isTransactional: Bool = true
  ) -> NetVSPError? {
    do throws(NetVSPError) {
      _ = try handle(&session, message, isTransactional: isTransactional)
      return nil
    } catch {
      return error
    }
  }

  static func bytes(_ action: NVSPSession.Action) -> [UInt8]? {
    switch action {
    case .complete(let message), .offerSubchannels(let message, _):
      message.indices.map { message[$0] }
    default: nil
    }
  }

  @Test(
    arguments: [
      (0x2, true), (0x30002, true), (0x40000, true), (0x50000, true), (0x60000, true),
      (0x60001, true), (0x60002, false), (0, false), (0x30001, false), (.max, false),
    ] as [(UInt32, Bool)])
  func versions(_ pair: (UInt32, Bool)) throws {
    var session = try Self.session(.version)
    let answer = try Self.handle(&session, Wire.nvsp(1, pair.0, pair.0))
    let first = pair.0 == 2 ? 2 : UInt32.max
    #expect(
      Self.bytes(answer)
        == Wire.nvsp(2, pair.1 ? first : .max, 34, pair.1 ? 1 : 2))
    #expect(session.stage == (pair.1 ? .buffers : .version))
    // A refused guest asks again.
    if !pair.1 { #expect(Self.error(&session, Wire.nvsp(1, 0x50000, 0x50000)) == nil) }
  }

  @Test func theStartUpGoesInItsOrder() throws {
    var session = try Self.session(.buffers)
    _ = try Self.handle(&session, Wire.nvsp(125, 9014, 0, 0xAC, 0), isTransactional: false)
    #expect(session.frameByteCount == 9014)
    #expect(session.capabilities.contains([.sriov, .receiveCoalescing, .ieee8021q, .teaming]))
    _ = try Self.handle(&session, Wire.nvsp(100, 6, 30), isTransactional: false)
    #expect(session.ndisVersion == NVSPNDISVersion(major: 6, minor: 30))
    guard
      case .mapReceiveBuffer(let gpadl, let id) = try Self.handle(
        &session, Wire.nvsp(101, 0x1234, 0xCAFE))
    else {
      Issue.record("no receive buffer")
      return
    }
    #expect(gpadl == GPADLID(0x1234) && id == 0xCAFE)
    // 16 MiB in pieces of 256 + 9014 + 36 bytes.
    let answer = session.receiveBuffer(byteCount: 16 << 20).message
    #expect(
      answer.indices.map { answer[$0] }
        == Wire.nvsp(102, 1, 1, 0, 9306, 1802, 9306 * 1802))
    guard case .mapSendBuffer(let gpadl) = try Self.handle(&session, Wire.nvsp(104, 9, 0)) else {
      Issue.record("no send buffer")
      return
    }
    #expect(gpadl == GPADLID(9))
    let other = session.sendBuffer(byteCount: 1 << 20).message
    #expect(other.indices.map { other[$0] } == Wire.nvsp(105, 1, 6144))
    guard case .rndis(let packet) = try Self.handle(&session, Wire.nvsp(107, 1, 3, 100)) else {
      Issue.record("no RNDIS")
      return
    }
    #expect(packet == NVSPRNDISPacket(channel: .control, sectionIndex: 3, sectionByteCount: 100))
    #expect(session.stage == .ready)
  }

  @Test(arguments: [0, 1513, 9217, 0xFFFF_FFFF] as [UInt32])
  func aFrameSizeOutOfRangeIsTheSmallest(_ size: UInt32) throws {
    var session = try Self.session(.buffers)
    _ = try Self.handle(&session, Wire.nvsp(125, size, 0, 0, 0), isTransactional: false)
    #expect(session.frameByteCount == 1514)
  }

  @Test(arguments: [nil, 0, 4096, 1806 * 32 - 1, 1 << 31] as [Int?])
  func aReceiveBufferOfNoUse(_ byteCount: Int?) throws {
    var session = try Self.session(.buffers)
    _ = try Self.handle(&session, Wire.nvsp(101, 1, 1))
    #expect(session.receiveBuffer(byteCount: byteCount).status == .failure)
    // Another one may be given.
    #expect(Self.error(&session, Wire.nvsp(101, 2, 1)) == nil)
  }

  @Test(arguments: [nil, 0, 6143] as [Int?])
  func aSendBufferOfNoUse(_ byteCount: Int?) throws {
    var session = try Self.session(.buffers)
    _ = try Self.handle(&session, Wire.nvsp(104, 1, 1))
    #expect(session.sendBuffer(byteCount: byteCount).status == .failure)
  }

  @Test func whatHasNoPlaceBeforeAVersion() throws {
    for type in [100, 101, 103, 104, 106, 107, 125, 129, 131, 133] as [UInt32] {
      var session = try Self.session(.version)
      #expect(
        Self.error(&session, Wire.nvsp(type, 1, 1))
          == .unexpected(NVSPMessageType(rawValue: type)))
    }
  }

  @Test func whatHasNoPlaceBeforeTheFirstRNDISMessage() throws {
    for type in [103, 106, 107, 129, 131, 133] as [UInt32] {
      var session = try Self.session(.buffers)
      #expect(
        Self.error(&session, Wire.nvsp(type, 1, 1))
          == .unexpected(NVSPMessageType(rawValue: type)))
    }
  }

  @Test func whatIsSentOnce() throws {
    for (type, first) in [
      (125, Wire.nvsp(125, 1514, 0, 0, 0)), (100, Wire.nvsp(100, 6, 30)),
    ] as [(UInt32, [UInt8])] {
      var session = try Self.session(.buffers)
      #expect(Self.error(&session, first) == nil)
      #expect(
        Self.error(&session, first) == .repeated(NVSPMessageType(rawValue: type)))
    }
    var session = try Self.session(.ready)
    #expect(Self.error(&session, Wire.nvsp(1, 0x60001, 0x60001)) == .repeated(.initialize))
    #expect(Self.error(&session, Wire.nvsp(101, 7, 1)) == .repeated(.sendReceiveBuffer))
    _ = session.sendBuffer(byteCount: 6144)
    #expect(Self.error(&session, Wire.nvsp(104, 7, 1)) == .repeated(.sendSendBuffer))
    // The configuration decides how the buffer is divided.
    #expect(
      Self.error(&session, Wire.nvsp(125, 1514, 0, 0, 0)) == .unexpected(.sendNDISConfiguration))
  }

  @Test func whatOnlyAHostSends() throws {
    for type in [2, 102, 105, 108, 128, 132, 134] as [UInt32] {
      for stage in [NVSPSession.Stage.version, .buffers, .ready] {
        var session = try Self.session(stage)
        #expect(
          Self.error(&session, Wire.nvsp(type, 1, 1))
            == .wrongDirection(NVSPMessageType(rawValue: type)))
      }
    }
  }

  @Test func whatNobodySends() throws {
    for type in [0, 3, 99, 109, 124, 126, 127, 130, 135, 136, 137, .max] as [UInt32] {
      var session = try Self.session(.ready)
      #expect(
        Self.error(&session, Wire.nvsp(type))
          == .unexpected(NVSPMessageType(rawValue: type)))
    }
  }

  @Test func whatWantsAnAnswerMustAskForIt() throws {
    var session = try Self.session(.version)
    #expect(
      Self.error(&session, Wire.nvsp(1, 2, 2), isTransactional: false)
        == .notTransactional(.initialize))
    session = try Self.session(.buffers)
    #expect(
      Self.error(&session, Wire.nvsp(101, 2, 2), isTransactional: false)
        == .notTransactional(.sendReceiveBuffer))
    #expect(
      Self.error(&session, Wire.nvsp(104, 2, 2), isTransactional: false)
        == .notTransactional(.sendSendBuffer))
    session = try Self.session(.ready)
    #expect(
      Self.error(&session, Wire.nvsp(133, 1, 2), isTransactional: false)
        == .notTransactional(.subchannel))
  }

  @Test func messagesThatAreTooShort() throws {
    for length in 0..<4 {
      var session = try Self.session(.version)
      let error = Self.error(&session, [UInt8](repeating: 1, count: length))
      #expect(
        error == .malformed(.tooShort("NVSPHeader", needed: 4, found: length)))
    }
    var session = try Self.session(.buffers)
    for (message, stage) in [
      (Wire.words(1, 2), .version), (Wire.words(101, 2), .buffers),
      (Wire.words(125, 1514), .buffers), (Wire.words(107, 0, 0), .ready),
      (Wire.words(133, 1), .ready), (Wire.words(129), .ready),
    ] as [([UInt8], NVSPSession.Stage)] {
      session = try Self.session(stage)
      guard case .malformed = Self.error(&session, message) else {
        Issue.record("\(message) is taken")
        continue
      }
    }
  }

  @Test func subchannelsAreAskedForOnceAndFewerThanThereAre() throws {
    func answer(_ count: UInt32, operation: UInt32 = 1, queues: Int = 8) throws -> [UInt8]? {
      var session = try Self.session(.ready, queues: queues)
      return try Self.bytes(Self.handle(&session, Wire.nvsp(133, operation, count)))
    }
    #expect(try answer(7) == Wire.nvsp(133, 1, 7))
    #expect(try answer(8) == Wire.nvsp(133, 2, 0))
    #expect(try answer(.max) == Wire.nvsp(133, 2, 0))
    #expect(try answer(0) == Wire.nvsp(133, 2, 0))
    #expect(try answer(3, operation: 2) == Wire.nvsp(133, 2, 0))
    #expect(try answer(1, queues: 1) == Wire.nvsp(133, 2, 0))
    #expect(try answer(63, queues: 64) == Wire.nvsp(133, 1, 63))
    var session = try Self.session(.ready)
    _ = try Self.handle(&session, Wire.nvsp(133, 1, 3))
    #expect(try Self.bytes(Self.handle(&session, Wire.nvsp(133, 1, 3))) == Wire.nvsp(133, 2, 0))
    // They came with version 5.
    session = try Self.session(.ready, version: 0x40000)
    #expect(Self.error(&session, Wire.nvsp(133, 1, 1)) == .unexpected(.subchannel))
  }

  @Test func dataPathsAreSwitched() throws {
    var session = try Self.session(.ready)
    guard case .switchDataPath(.virtualFunction) = try Self.handle(&session, Wire.nvsp(129, 1))
    else {
      Issue.record("not switched")
      return
    }
    #expect(session.dataPath == .virtualFunction)
    guard case .malformed = Self.error(&session, Wire.nvsp(129, 2)) else {
      Issue.record("a path that there is not")
      return
    }
    #expect(session.dataPath == .virtualFunction)
    session = try Self.session(.ready, version: 0x30002)
    #expect(Self.error(&session, Wire.nvsp(129, 1)) == .unexpected(.switchDataPath))
  }

  @Test func objectsByNVSPAreNotKnown() throws {
    var session = try Self.session(.ready)
    #expect(
      try Self.bytes(Self.handle(&session, Wire.nvsp(131, 0, 0)))
        == Wire.nvsp(132, 0xC000_00BB, 0))
  }

  @Test func buffersAreRevokedOnceAndGivenAgain() throws {
    var session = try Self.session(.ready)
    #expect(Self.error(&session, Wire.nvsp(103, 0xCAFF)) == .unexpected(.revokeReceiveBuffer))
    #expect(Self.error(&session, Wire.nvsp(103, 0xCAFE)) == nil)
    #expect(Self.error(&session, Wire.nvsp(103, 0xCAFE)) == .unexpected(.revokeReceiveBuffer))
    #expect(Self.error(&session, Wire.nvsp(106, 0)) == .unexpected(.revokeSendBuffer))
    #expect(Self.error(&session, Wire.nvsp(101, 1, 0xCAFE)) == nil)
  }

  @Test func aSubchannelCarriesDataOnly() throws {
    var session = NVSPSession(AdapterConfiguration(), isSubchannel: true)
    #expect(Self.error(&session, Wire.nvsp(107, 0, 0xFFFF_FFFF, 0)) == nil)
    for type in [1, 100, 101, 104, 125, 129, 133] as [UInt32] {
      #expect(
        Self.error(&session, Wire.nvsp(type, 1, 1))
          == .notOnSubchannel(NVSPMessageType(rawValue: type)))
    }
  }

  @Test func eachErrorSaysSomething() {
    let errors: [NetVSPError] = [
      .malformed(.tooShort("x", needed: 1, found: 0)), .unexpected(.initialize),
      .repeated(.initialize), .notOnSubchannel(.subchannel), .wrongDirection(.subchannel),
      .notTransactional(.initialize), .unknownCompletion(3), .badSection(index: 1, byteCount: 2),
      .badRanges(count: 9), .memory(page: 0x123), .splitHeader(offset: 4),
      .unexpectedRNDIS(.packet), .badFrame(byteCount: 3), .badOffload, .tooManyAnswers,
    ]
    #expect(Set(errors.map(\.description)).count == errors.count)
    #expect(NetVSPError.memory(page: 0x123).description.contains("0x123"))
  }
}
