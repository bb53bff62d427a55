// SPDX-License-Identifier: Apache-2.0

import Testing

@testable import VMBus

/// Random and mutated messages between random requests: nothing traps, the invariants hold.
@Suite struct ControlRandomTests {
  /// SplitMix64, so that a run can be had again.
  struct Generator: RandomNumberGenerator {
    var state: UInt64
    /// GPADLs that there are: their ids count upwards.
    var gpadls: [GPADLID] = []
    mutating func next() -> UInt64 {
      state &+= 0x9E37_79B9_7F4A_7C15
      var word = state
      word = (word ^ (word >> 30)) &* 0xBF58_476D_1CE4_E5B9
      word = (word ^ (word >> 27)) &* 0x94D0_49BB_1331_11EB
      return word ^ (word >> 31)
    }
    mutating func below(_ bound: Int) -> Int { Int.random(in: 0..<bound, using: &self) }
    mutating func chance(_ one: Int) -> Bool { below(one) == 0 }
    /// Mostly a number that means something.
    mutating func number() -> UInt32 {
      chance(10) ? UInt32(truncatingIfNeeded: next()) : UInt32(below(5))
    }
    mutating func channel() -> ChannelID { ChannelID(chance(10) ? number() : UInt32(below(3))) }
    mutating func gpadl() -> GPADLID {
      let known = chance(2) ? gpadls.randomElement(using: &self) : nil
      return known ?? GPADLID(number())
    }
    /// Pages of a ring that will do, mostly, and where it is cut.
    mutating func pages() -> Int { chance(4) ? below(60) : 8 }
    mutating func offset() -> UInt32 { chance(4) ? number() : 4 }
    mutating func status() -> ControlStatus { chance(4) ? .unsuccessful : .success }
  }

  /// A message as it could be, of a random type; mostly one that the other end sends.
  static func message(
    _ random: inout Generator, _ direction: MessageDirection
  ) -> ControlMessage? {
    let channel = random.channel()
    let gpadl = random.gpadl()
    let status = random.status()
    let number = random.number()
    let types = ControlMessageTable.rows.filter { $0.direction == direction }.map(\.type.rawValue)
    switch random.chance(20) ? UInt32(random.below(31)) : types[random.below(types.count)] {
    case 1:
      var offer = OfferChannel.test(UInt8(random.below(4)), id: channel)
      if random.chance(3) { offer.flags = OfferFlags(rawValue: UInt16(random.below(8))) }
      if random.chance(3) { offer.subchannelIndex = UInt16(random.below(3)) }
      if random.chance(8) { offer.flags.insert(.tlnpiProvider) }
      return .offerChannel(offer)
    case 2:
      guard random.chance(6) else { return nil }
      return .rescindChannelOffer(RescindChannelOffer { $0.channelID = channel })
    case 3: return .requestOffers
    case 4: return .allOffersDelivered
    case 5:
      let open = OpenChannel {
        $0.channelID = channel
        $0.ringGPADL = gpadl
        $0.downstreamPageOffset = random.offset()
        $0.targetVP = random.number()
      }
      return .openChannel(open, random.chance(2) ? SignalParameters() : nil)
    case 6:
      return .openChannelResult(
        OpenChannelResult {
          $0.channelID = channel
          $0.openID = channel.rawValue
          $0.status = status
        })
    case 7: return .closeChannel(CloseChannel { $0.channelID = channel })
    case 8:
      let pages = random.pages()
      let header = GPADLHeader {
        $0.channelID = channel
        $0.gpadlID = gpadl
        $0.length = UInt16(8 * (pages + 1))
        $0.rangeCount = random.chance(4) ? UInt16(truncatingIfNeeded: number) : 1
      }
      return .gpadlHeader(header, [UInt64(pages) * 4096] + (0..<UInt64(pages)).map { $0 })
    case 9:
      return .gpadlBody(
        GPADLBody { $0.gpadlID = gpadl }, Array(repeating: 7, count: random.below(29)))
    case 10:
      return .gpadlCreated(
        GPADLCreated {
          $0.channelID = channel
          $0.gpadlID = gpadl
          $0.status = status
        })
    case 11:
      return .gpadlTeardown(
        GPADLTeardown {
          $0.channelID = channel
          $0.gpadlID = gpadl
        })
    case 12: return .gpadlTorndown(GPADLTorndown { $0.gpadlID = gpadl })
    case 13: return .relIDReleased(RelIDReleased { $0.channelID = channel })
    case 14:
      guard random.chance(8) else { return nil }
      let contact = InitiateContact {
        $0.versionRequested = ProtocolVersion.supported[random.chance(2) ? 0 : random.below(7)]
        $0.interruptPageOrTargetInfo = (random.next() & 0x37) << 32 | 2
      }
      return .initiateContact(contact, clientID: nil)
    case 15:
      let response = VersionResponse {
        $0.versionSupported = UInt8(random.below(2))
        $0.connectionState = ConnectionStatus(rawValue: random.chance(4) ? 2 : 0)
        $0.selectedVersionOrConnectionID = number
      }
      return .versionResponse(response, FeatureFlags(rawValue: UInt32(random.below(64))), nil)
    case 16: return random.chance(16) ? .unload : nil
    case 17: return .unloadComplete
    case 21: return .tlConnectRequest(TLConnectRequest(), siloID: nil)
    case 22:
      return .modifyChannel(
        ModifyChannel {
          $0.channelID = channel
          $0.targetVP = number
        })
    case 23: return .tlConnectResult(TLConnectResult { $0.status = .connectionRefused })
    case 24: return .modifyChannelResponse(ModifyChannelResponse(channel, status))
    case 25: return .modifyConnection(ModifyConnection())
    case 26: return .modifyConnectionResponse(ModifyConnectionResponse())
    case 27: return random.chance(8) ? .pause : nil
    case 28: return .pauseResponse
    case 29: return .resume
    default: return nil
    }
  }

  /// A message, often damaged; sometimes nothing but noise.
  static func bytes(_ random: inout Generator, _ direction: MessageDirection) -> [UInt8] {
    guard let message = message(&random, direction), !random.chance(20) else {
      var noise = (0..<random.below(260)).map { _ in UInt8(truncatingIfNeeded: random.number()) }
      if !noise.isEmpty { noise[0] = UInt8(random.below(32)) }
      return noise
    }
    var bytes = OutgoingMessage(message).array
    guard random.chance(4) else { return bytes }
    switch random.below(3) {
    case 0: bytes[random.below(bytes.count)] = UInt8(truncatingIfNeeded: random.next())
    case 1: bytes.removeLast(random.below(bytes.count))
    default: bytes += Array(repeating: 0xFF, count: random.below(64))
    }
    return bytes
  }

  /// What a driver does, whether it may or not.
  static func drive(_ client: inout ControlClient, _ random: inout Generator) {
    let channel = random.channel()
    let gpadl = random.gpadl()
    switch random.below(14) {
    case 0: _ = try? client.connect()
    case 1, 2:
      let pages = random.pages()
      let range = GPADLRange(
        byteCount: UInt32(pages) * 4096, gpns: Array(repeating: 1, count: pages))
      _ = try? client.createGPADL(channel, ranges: [range])
    case 3, 4:
      let offset = random.offset()
      _ = try? client.open(channel, OpenParameters(ring: gpadl, downstreamPageOffset: offset))
    case 5: _ = try? client.close(channel)
    case 6: _ = try? client.tearDownGPADL(gpadl)
    case 7, 12, 13: _ = try? client.modify(channel, targetVP: random.number())
    case 8: _ = try? client.release(channel)
    case 9: if random.chance(20) { _ = try? client.unload() }
    case 10: _ = random.chance(2) ? try? client.pause() : try? client.resume()
    default: _ = try? client.connectSocket(endpointID: GUID(), serviceID: GUID())
    }
  }

  /// What devices do, whether asked or not.
  static func answer(_ server: inout ControlServer, _ random: inout Generator) {
    let channel = random.channel()
    let gpadl = random.gpadl()
    switch random.below(9) {
    case 0, 1:
      var offer = OfferChannel.test(UInt8(random.below(4)))
      offer.subchannelIndex = UInt16(random.below(3))
      _ = try? server.offer(offer)
    case 2: _ = random.chance(8) ? try? server.revoke(channel) : nil
    case 3: _ = server.openCompleted(channel, random.status())
    case 4: _ = server.closeCompleted(channel)
    case 5: _ = server.gpadlCompleted(gpadl, random.status())
    case 6: _ = server.gpadlTornDown(gpadl)
    case 7: _ = server.modifyCompleted(channel, random.status())
    default: if random.chance(50) { _ = server.disconnect() }
    }
  }

  /// The name of an action, without what it carries.
  static func kind(_ action: some Any) -> String {
    Mirror(reflecting: action).children.first?.label ?? "\(action)"
  }

  static let rounds = 50_000

  @Test(arguments: [MessageOrigin.untrusted, .trusted])
  func theClientStandsAnything(_ origin: MessageOrigin) {
    var random = Generator(state: origin == .trusted ? 1 : 2)
    var configuration = ClientConfiguration()
    configuration.features = ControlPairTests.everyFeature
    configuration.confidential = origin == .trusted ? .preferred : .off
    var client = ControlClient(configuration)
    var seen: [ClientState: Int] = [:]
    var kinds: Set<String> = []
    for round in 0..<Self.rounds {
      random.gpadls = client.gpadls.keys.sorted()
      if random.chance(3) { Self.drive(&client, &random) }
      let bytes = Self.bytes(&random, .hostToGuest)
      let actions = client.receive(
        unsafe bytes.span.bytes, origin: random.chance(50) ? .untrusted : origin)
      for action in actions { kinds.insert(Self.kind(action)) }
      seen[client.state, default: 0] += 1
      if let broken = client.checkInvariants() {
        Issue.record("round \(round): \(broken), after \(bytes)")
        return
      }
    }
    // The run went everywhere, and not only in refusals.
    #expect(seen.count == ClientState.allCases.count)
    let expected: Set<String> = [
      "offered", "rescinded", "released", "opened", "gpadlCreated", "gpadlTornDown", "modified",
      "paused", "unloaded", "connected", "connectFailed", "refused", "socketRefused",
    ]
    #expect(expected.isSubset(of: kinds), "missing \(expected.subtracting(kinds))")
  }

  @Test(arguments: [MessageOrigin.untrusted, .trusted])
  func theServerStandsAnything(_ origin: MessageOrigin) {
    var random = Generator(state: origin == .trusted ? 3 : 4)
    var configuration = ServerConfiguration()
    configuration.features = ControlPairTests.everyFeature.union(.confidentialChannels)
    configuration.maximumGPADLs = 16
    configuration.maximumGPADLWords = 200
    var server = ControlServer(configuration)
    var seen: [ServerState: Int] = [:]
    var kinds: Set<String> = []
    for round in 0..<Self.rounds {
      random.gpadls = server.gpadls.keys.sorted()
      if random.chance(2) { Self.answer(&server, &random) }
      let bytes = Self.bytes(&random, .guestToHost)
      let actions = server.receive(
        unsafe bytes.span.bytes, origin: random.chance(50) ? .untrusted : origin)
      for action in actions { kinds.insert(Self.kind(action)) }
      seen[server.state, default: 0] += 1
      if let broken = server.checkInvariants() {
        Issue.record("round \(round): \(broken), after \(bytes)")
        return
      }
    }
    #expect(seen.count == ServerState.allCases.count)
    let expected: Set<String> = [
      "post", "connected", "disconnected", "open", "close", "createGPADL", "tearDownGPADL",
      "modify", "released", "refused",
    ]
    #expect(expected.isSubset(of: kinds), "missing \(expected.subtracting(kinds))")
  }
}
