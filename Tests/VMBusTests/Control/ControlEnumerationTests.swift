// SPDX-License-Identifier: Apache-2.0

import Testing

@testable import VMBus

/// Every message type, in every state, of every version, at both ends: what must come of it.
///
/// A letter per state: `A` accepted, `-` accepted with nothing to do; else refused because of
/// d: direction, t: unknown type, u: no place in this state of the connection, c: unknown
/// channel, s: state of the channel, k: duplicate, x: rescinded, g: unknown GPADL, p: state of
/// the GPADL, r: ring, n: hvsock, v: reserved channel. A capital letter: refused, and the peer
/// was answered.
@Suite struct ControlEnumerationTests {
  struct Version: Sendable, CustomStringConvertible {
    let version: ProtocolVersion
    let features: FeatureFlags
    var description: String { features.isEmpty ? "\(version)" : "\(version) with features" }
  }

  static let versions =
    ProtocolVersion.supported.map { Version(version: $0, features: []) } + [
      Version(version: .v6_0, features: ControlPairTests.everyFeature)
    ]

  static func outcome(of error: ControlError) -> String {
    switch error {
    case .wrongDirection: "d"
    case .malformed(.unknownType): "t"
    case .unexpected: "u"
    case .unknownChannel: "c"
    case .invalidChannelState: "s"
    case .duplicateChannel, .duplicateGPADL: "k"
    case .channelRescinded: "x"
    case .unknownGPADL: "g"
    case .invalidGPADLState: "p"
    case .invalidRing: "r"
    case .unsolicitedSocketResult: "n"
    case .reservedChannel: "v"
    default: "?"
    }
  }

  /// A message of each type about channel 1 and GPADL 1; the two types that do not exist are
  /// bare headers.
  static func bytes(_ type: UInt32, _ version: Version) -> [UInt8] {
    let context = MessageContext(version: version.version, features: version.features)
    let message: ControlMessage? =
      switch type {
      case 1: .offerChannel(.test(id: 1))
      case 2: .rescindChannelOffer(RescindChannelOffer { $0.channelID = 1 })
      case 3: .requestOffers
      case 4: .allOffersDelivered
      case 5:
        .openChannel(
          OpenChannel {
            $0.channelID = 1
            $0.ringGPADL = 1
            $0.downstreamPageOffset = 4
          }, SignalParameters.areSent(context) ? SignalParameters() : nil)
      case 6:
        .openChannelResult(
          OpenChannelResult {
            $0.channelID = 1
            $0.openID = 1
          })
      case 7: .closeChannel(CloseChannel { $0.channelID = 1 })
      case 8:
        .gpadlHeader(
          GPADLHeader {
            $0.channelID = 1
            $0.gpadlID = 1
            $0.length = 16
            $0.rangeCount = 1
          }, [4096, 1])
      case 9: .gpadlBody(GPADLBody { $0.gpadlID = 1 }, Array(repeating: 1, count: 28))
      case 10:
        .gpadlCreated(
          GPADLCreated {
            $0.channelID = 1
            $0.gpadlID = 1
          })
      case 11:
        .gpadlTeardown(
          GPADLTeardown {
            $0.channelID = 1
            $0.gpadlID = 1
          })
      case 12: .gpadlTorndown(GPADLTorndown { $0.gpadlID = 1 })
      case 13: .relIDReleased(RelIDReleased { $0.channelID = 1 })
      case 14:
        .initiateContact(
          InitiateContact { $0.versionRequested = version.version }, clientID: nil)
      case 15: .versionResponse(VersionResponse { $0.versionSupported = 1 }, nil, nil)
      case 16: .unload
      case 17: .unloadComplete
      case 18: .openReservedChannel(OpenReservedChannel { $0.channelID = 1 })
      case 19: .closeReservedChannel(CloseReservedChannel { $0.channelID = 1 })
      case 20: .closeReservedChannelResponse(CloseReservedChannelResponse { $0.channelID = 1 })
      case 21: .tlConnectRequest(TLConnectRequest(), siloID: nil)
      case 22:
        .modifyChannel(
          ModifyChannel {
            $0.channelID = 1
            $0.targetVP = 3
          })
      case 23: .tlConnectResult(TLConnectResult { $0.status = .connectionRefused })
      case 24: .modifyChannelResponse(ModifyChannelResponse { $0.channelID = 1 })
      case 25: .modifyConnection(ModifyConnection())
      case 26: .modifyConnectionResponse(ModifyConnectionResponse())
      case 27: .pause
      case 28: .pauseResponse
      case 29: .resume
      default: nil
      }
    guard let message else { return [UInt8(type)] + Array(repeating: 0, count: 39) }
    return OutgoingMessage(message).array
  }

  /// Each state of the client, as the columns of its table.
  enum ClientColumn: Int, CaseIterable {
    case disconnected, connecting, receivingOffers, connected
    case offered, opening, open, modifying, creating, created, tearingDown, rescinded
    case pausing, paused, unloading
  }

  static let all = String(repeating: "d", count: 15)
  static let none = String(repeating: "t", count: 15)
  static let clientTable: [String] = [
    none,  // 0
    "uuAAkkkkkkkkAu-",  // 1 OfferChannel
    "uuccAAAAAAAxcu-",  // 2 RescindChannelOffer
    all,
    "uuAuuuuuuuuuuu-",  // 4 AllOffersDelivered
    all,
    "uuccsAsssssscu-",  // 6 OpenChannelResult
    all, all, all,
    "uugggpppAppggu-",  // 10 GPADLCreated
    all,
    "uugggpppppAggu-",  // 12 GPADLTorndown
    all, all,
    "uAuuuuuuuuuuuuu",  // 15 VersionResponse
    all,
    "uuuuuuuuuuuuuuA",  // 17 UnloadComplete
    all, all,
    "uuuuuuuuuuuuuuu",  // 20 CloseReservedChannelResponse
    all, all,
    "uunnnnnnnnnnnu-",  // 23 TLConnectResult
    "uuccsssAsssscu-",  // 24 ModifyChannelResponse
    all,
    "uuuuuuuuuuuuuu-",  // 26 ModifyConnectionResponse
    all,
    "uuuuuuuuuuuuAu-",  // 28 PauseResponse
    all,
    none,  // 30
  ]

  /// The table's letter, and what an older version makes of it.
  static func expected(_ type: UInt32, _ column: ClientColumn, _ version: Version) -> String {
    let letter = String(Array(clientTable[Int(type)])[column.rawValue])
    let isParsed = !["disconnected", "connecting", "paused", "unloading"].contains("\(column)")
    let isKnown: Bool =
      switch type {
      case 23: version.version >= .v4_1
      case 24: version.version >= .v5_3
      case 26: version.features.contains(.modifyConnection)
      default: true
      }
    return isParsed && !isKnown ? "t" : letter
  }

  /// A client in that state, or nil where the version has no such state.
  static func client(_ column: ClientColumn, _ version: Version) throws -> ControlClient? {
    if column == .modifying, version.version < .v5_3 { return nil }
    if [.pausing, .paused].contains(column), !version.features.contains(.pauseResume) {
      return nil
    }
    var configuration = ClientConfiguration()
    configuration.versions = [version.version]
    configuration.features = version.features
    var client = ControlClient(configuration)
    guard column != .disconnected else { return client }
    _ = try client.connect()
    guard column != .connecting else { return client }
    let response = VersionResponse { $0.versionSupported = 1 }
    _ = client.receive(.versionResponse(response, version.features, nil))
    guard column != .receivingOffers else { return client }
    _ = client.receive(.allOffersDelivered)
    switch column {
    case .pausing: _ = try client.pause()
    case .paused:
      _ = try client.pause()
      _ = client.receive(.pauseResponse)
    case .unloading: _ = try client.unload()
    default: break
    }
    guard
      (ClientColumn.offered.rawValue...ClientColumn.rescinded.rawValue).contains(column.rawValue)
    else { return client }
    _ = client.receive(.offerChannel(.test(id: 1)))
    guard column != .offered else { return client }
    guard column != .rescinded else {
      _ = client.receive(.rescindChannelOffer(RescindChannelOffer { $0.channelID = 1 }))
      return client
    }
    let range = GPADLRange(byteCount: 8 * 4096, gpns: Array(repeating: 1, count: 8))
    let gpadl = try client.createGPADL(1, ranges: [range]).id
    guard column != .creating else { return client }
    let created = GPADLCreated {
      $0.channelID = 1
      $0.gpadlID = gpadl
    }
    _ = client.receive(.gpadlCreated(created))
    guard column != .created else { return client }
    guard column != .tearingDown else {
      _ = try client.tearDownGPADL(gpadl)
      return client
    }
    _ = try client.open(1, OpenParameters(ring: gpadl, downstreamPageOffset: 4))
    guard column != .opening else { return client }
    let opened = OpenChannelResult {
      $0.channelID = 1
      $0.openID = 1
    }
    _ = client.receive(.openChannelResult(opened))
    if column == .modifying { _ = try client.modify(1, targetVP: 3) }
    return client
  }

  @Test func everyMessageToTheClient() throws {
    var count = 0
    var states: Set<ClientState> = []
    #expect(Self.clientTable.count == 31)
    for version in Self.versions {
      for column in ClientColumn.allCases {
        guard let client = try Self.client(column, version) else { continue }
        states.insert(client.state)
        for type in UInt32(0)...30 {
          var copy = client
          let bytes = Self.bytes(type, version)
          let actions = copy.receive(unsafe bytes.span.bytes, origin: .untrusted)
          var found = actions.isEmpty ? "-" : "A"
          if case .refused(let error)? = actions.last {
            found = Self.outcome(of: error)
            #expect(String(reflecting: copy) == String(reflecting: client))
          }
          let place: Comment = "type \(type), \(column), \(version): \(actions)"
          #expect(found == Self.expected(type, column, version), place)
          #expect(copy.checkInvariants() == nil, place)
          count += 1
        }
      }
    }
    #expect(states == Set(ClientState.allCases))
    // 8 versions * 15 states, but modifying needs 5.3 and pausing 6.0 with the feature.
    #expect(count == 31 * (8 * 15 - 5 - 7 - 7))
    print("control plane, client: \(count) pairs of message and state have their outcome")
  }

  /// Each state of the server, as the columns of its table.
  enum ServerColumn: Int, CaseIterable {
    case disconnected, contacted, connected
    case offered, accepted, assembling, creating, opening, open, closing, modifying, tearingDown
    case revoked
    case paused, resetting
  }

  static let serverTable: [String] = [
    none,  // 0
    all, all,
    "uAuuuuuuuuuuuuu",  // 3 RequestOffers
    all,
    "uccRARRss-sR-uu",  // 5 OpenChannel
    all,
    "uccsssssAsAs-uu",  // 7 CloseChannel
    "uCCAKKKKKKKKAuu",  // 8 GPADLHeader
    "ugggpAppppppguu",  // 9 GPADLBody
    all,
    "ugggApp----pguu",  // 11 GPADLTeardown
    all,
    "ucc-ssssssssAuu",  // 13 RelIDReleased
    "AAAAAA--A-A-AA-",  // 14 InitiateContact
    all,
    "uAAAAA--A-A-AA-",  // 16 Unload
    all,
    "uVVVVVVVVVVVVuu",  // 18 OpenReservedChannel
    "AAAAAAAAAAAAAuA",  // 19 CloseReservedChannel
    all,
    "uAAAAAAAAAAAAuu",  // 21 TLConnectRequest
    "uccSSSSSASSSXuu",  // 22 ModifyChannel
    all, all,
    "uAAAAAAAAAAAAuu",  // 25 ModifyConnection
    all,
    "uAAAAAAAAAAAAuu",  // 27 Pause
    all,
    "uuuuuuuuuuuuu-u",  // 29 Resume
    none,  // 30
  ]

  static func expected(_ type: UInt32, _ column: ServerColumn, _ version: Version) -> String {
    let letter = String(Array(serverTable[Int(type)])[column.rawValue])
    guard ![.disconnected, .paused, .resetting].contains(column) else { return letter }
    switch type {
    case 21 where version.version < .v4_1: return "-"
    case 22 where version.version < .v4_1: return "t"
    // Guests before 5.3 get no answers, and may ask again before the first one is done.
    case 22 where version.version < .v5_3:
      return column == .modifying ? "-" : letter == "A" ? "A" : letter.lowercased()
    case 25 where !version.features.contains(.modifyConnection): return "t"
    case 27 where !version.features.contains(.pauseResume): return "t"
    default: return letter
    }
  }

  static func server(_ column: ServerColumn, _ version: Version) throws -> ControlServer? {
    if column == .modifying, version.version < .v4_1 { return nil }
    if column == .paused, !version.features.contains(.pauseResume) { return nil }
    var configuration = ServerConfiguration()
    configuration.features = version.features
    var server = ControlServer(configuration)
    guard column != .disconnected else { return server }
    let contact = InitiateContact {
      $0.versionRequested = version.version
      $0.interruptPageOrTargetInfo = TargetInfo(features: version.features).rawValue
    }
    _ = server.receive(.initiateContact(contact, clientID: nil))
    guard column != .contacted else { return server }
    _ = server.receive(.requestOffers)
    guard column != .connected else { return server }
    if column == .paused {
      _ = server.receive(.pause)
      return server
    }
    _ = try server.offer(.test())
    guard column != .offered else { return server }
    if column == .revoked {
      _ = try server.revoke(1)
      return server
    }
    let pages = column == .assembling ? 40 : 8
    let range = GPADLRange(byteCount: UInt32(pages * 4096), gpns: Array(repeating: 1, count: pages))
    let messages = try GPADL.messages(1, of: 1, ranges: [range])
    _ = server.receive(messages[0].bytes, origin: .untrusted)
    guard column != .assembling, column != .creating else { return server }
    _ = server.gpadlCompleted(1, .success)
    guard column != .accepted else { return server }
    func bytes(_ type: UInt32) -> [UInt8] { Self.bytes(type, version) }
    func send(_ type: UInt32) {
      _ = server.receive(unsafe bytes(type).span.bytes, origin: .untrusted)
    }
    guard column != .tearingDown else {
      send(11)
      return server
    }
    send(5)
    guard column != .opening else { return server }
    _ = server.openCompleted(1, .success)
    switch column {
    case .closing: send(7)
    case .modifying: send(22)
    case .resetting: send(16)
    default: break
    }
    return server
  }

  @Test func everyMessageToTheServer() throws {
    var count = 0
    var states: Set<ServerState> = []
    #expect(Self.serverTable.count == 31)
    for version in Self.versions {
      for column in ServerColumn.allCases {
        guard let server = try Self.server(column, version) else { continue }
        states.insert(server.state)
        for type in UInt32(0)...30 {
          var copy = server
          let bytes = Self.bytes(type, version)
          let actions = copy.receive(unsafe bytes.span.bytes, origin: .untrusted)
          var found = actions.isEmpty ? "-" : "A"
          if case .refused(let error)? = actions.last {
            found = Self.outcome(of: error)
            if actions.count > 1 { found = found.uppercased() }
            #expect(String(reflecting: copy) == String(reflecting: server))
          }
          let place: Comment = "type \(type), \(column), \(version): \(actions)"
          #expect(found == Self.expected(type, column, version), place)
          #expect(copy.checkInvariants() == nil, place)
          count += 1
        }
      }
    }
    #expect(states == Set(ServerState.allCases))
    #expect(count == 31 * (8 * 15 - 1 - 7))
    print("control plane, server: \(count) pairs of message and state have their outcome")
  }
}
