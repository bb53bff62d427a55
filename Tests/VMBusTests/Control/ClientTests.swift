// SPDX-License-Identifier: Apache-2.0

import Testing

@testable import VMBus

/// What a server, hostile or merely wrong, and a driver can do to a client out of turn.
@Suite struct ClientTests {
  static func connecting(_ change: (inout ClientConfiguration) -> Void = { _ in }) throws
    -> ControlClient
  {
    var configuration = ClientConfiguration()
    change(&configuration)
    var client = ControlClient(configuration)
    _ = try client.connect()
    return client
  }

  static func connected(_ change: (inout ClientConfiguration) -> Void = { _ in }) throws
    -> ControlClient
  {
    var client = try connecting(change)
    _ = client.receive(accept(connectionID: 9, client.configuration.features), origin: .trusted)
    _ = client.receive(.allOffersDelivered, origin: .trusted)
    #expect(client.state == .connected)
    return client
  }

  static func accept(
    connectionID: UInt32, _ features: FeatureFlags = [], _ pages: MonitorPages? = nil
  ) -> ControlMessage {
    let response = VersionResponse {
      $0.versionSupported = 1
      $0.selectedVersionOrConnectionID = connectionID
    }
    return .versionResponse(response, features, pages)
  }

  static func created(_ channel: ChannelID, _ gpadl: GPADLID, _ status: ControlStatus = .success)
    -> ControlMessage
  {
    .gpadlCreated(
      GPADLCreated {
        $0.channelID = channel
        $0.gpadlID = gpadl
        $0.status = status
      })
  }

  static func opened(_ channel: ChannelID, openID: UInt32? = nil) -> ControlMessage {
    .openChannelResult(
      OpenChannelResult {
        $0.channelID = channel
        $0.openID = openID ?? channel.rawValue
      })
  }

  static func rescind(_ channel: ChannelID) -> ControlMessage {
    .rescindChannelOffer(RescindChannelOffer { $0.channelID = channel })
  }

  static func torndown(_ gpadl: GPADLID) -> ControlMessage {
    .gpadlTorndown(GPADLTorndown { $0.gpadlID = gpadl })
  }

  static let ring = GPADLRange(byteCount: 8 * 4096, gpns: Array(1...8))

  /// A client with an open channel 1 whose ring is in GPADL 1.
  static func open() throws -> ControlClient {
    var client = try connected()
    _ = client.receive(.offerChannel(.test(id: 1)))
    let gpadl = try client.createGPADL(1, ranges: [ring]).id
    _ = client.receive(created(1, gpadl))
    _ = try client.open(1, OpenParameters(ring: gpadl, downstreamPageOffset: 4))
    #expect(client.receive(opened(1)) == [.opened(1, .success)])
    return client
  }

  static func posts(_ actions: [ClientAction]) -> [(MessageType, UInt32)] {
    actions.compactMap { action in
      if case .post(let message, let id) = action { (message.type, id) } else { nil }
    }
  }

  @Test func messagesGoWhereTheServerSays() throws {
    var client = ControlClient()
    #expect(Self.posts(try client.connect()).map(\.1) == [4])
    #expect(Self.posts(client.receive(Self.accept(connectionID: 9))).map(\.1) == [9])
    #expect(Self.posts(try client.unload()).map(\.1) == [9])
    #expect(client.receive(.unloadComplete) == [.unloaded])
    var configuration = ClientConfiguration()
    configuration.versions = [.v4_1]
    client = ControlClient(configuration)
    #expect(Self.posts(try client.connect()).map(\.1) == [1])
    #expect(Self.posts(client.receive(Self.accept(connectionID: 9))).map(\.1) == [1])
  }

  @Test func aServerThatCannot() throws {
    var client = try Self.connecting()
    let failure = VersionResponse {
      $0.versionSupported = 1
      $0.connectionState = .failedLowResources
    }
    #expect(
      client.receive(.versionResponse(failure, nil, nil))
        == [.connectFailed(.refused(.failedLowResources))])
    #expect(client.state == .disconnected)
    #expect(
      client.receive(Self.accept(connectionID: 9)) == [.refused(.unexpected(.versionResponse))])
  }

  @Test func featuresThatNobodyAskedForAreNotInUse() throws {
    var client = try Self.connecting()
    _ = client.receive(
      Self.accept(
        connectionID: 9, FeatureFlags(rawValue: 0xFF),
        MonitorPages(parentToChild: 1, childToParent: 2)))
    #expect(client.connection?.features == [])
    #expect(client.connection?.monitorPages == nil)
    #expect(throws: ControlError.unsupported(.pause)) {
      _ = client.receive(.allOffersDelivered)
      _ = try client.pause()
    }
  }

  @Test func aServerThatNamesNoMonitorPages() throws {
    var client = try Self.connecting { $0.features = .serverSpecifiedMonitorPages }
    let granted: FeatureFlags = .serverSpecifiedMonitorPages
    #expect(
      client.receive(Self.accept(connectionID: 9, granted, MonitorPages()))
        == [.refused(.invalidMonitorPages)])
    #expect(
      client.receive(Self.accept(connectionID: 9, granted))
        == [.refused(.malformed(.tooShort("VersionResponse3", needed: 32, found: 12)))])
    #expect(client.state == .connecting)
  }

  @Test func anAnswerOf6_0WithoutFeaturesGrantsNone() throws {
    var client = try Self.connecting { $0.features = .pauseResume }
    _ = client.receive(.versionResponse(VersionResponse { $0.versionSupported = 1 }, nil, nil))
    #expect(client.connection?.version == .v6_0 && client.connection?.features == [])
  }

  // Law 8.
  @Test(arguments: [ConfidentialPolicy.preferred, .required])
  func onlyTheTrustedSideAnswersAConfidentialContact(_ policy: ConfidentialPolicy) throws {
    var client = try Self.connecting { $0.confidential = policy }
    let granted = Self.accept(connectionID: 9, .confidentialChannels)
    #expect(client.receive(granted) == [.refused(.untrusted)])
    #expect(client.receive(Self.accept(connectionID: 9)) == [.refused(.untrusted)])
    let no = ControlMessage.versionResponse(VersionResponse(), nil, nil)
    #expect(client.receive(no) == [.refused(.untrusted)])
    #expect(client.state == .connecting && client.candidates.first == .v6_0)
    _ = client.receive(granted, origin: .trusted)
    #expect(client.connection?.isConfidential == true)
    #expect(client.receive(.offerChannel(.test(id: 1))) == [.refused(.untrusted)])
    let offer = OfferChannel.test(flags: .confidential, id: 1)
    #expect(client.receive(.offerChannel(offer), origin: .trusted) == [.offered(offer)])
    _ = try client.unload()
    #expect(client.receive(.unloadComplete) == [.refused(.untrusted)])
    #expect(client.receive(.unloadComplete, origin: .trusted) == [.unloaded])
  }

  @Test func preferredGoesOnWithoutWhenTheTrustedSideRefuses() throws {
    var client = try Self.connecting { $0.confidential = .preferred }
    _ = client.receive(Self.accept(connectionID: 9), origin: .trusted)
    #expect(client.connection?.isConfidential == false)
    #expect(client.receive(.allOffersDelivered) == [.allOffersDelivered])
    #expect(
      client.receive(.offerChannel(.test(flags: .confidentialRingBuffer, id: 1)))
        == [.refused(.invalidOffer(1, .notConfidential))])
  }

  @Test func requiredTriesNothingOlder() throws {
    var client = try Self.connecting { $0.confidential = .required }
    let no = ControlMessage.versionResponse(VersionResponse(), nil, nil)
    #expect(client.receive(no, origin: .trusted) == [.connectFailed(.noCommonVersion)])
  }

  // A confidential offer of an old version: the flag can never be granted.
  @Test func confidentialOffersNeed6_0() throws {
    var client = try Self.connecting {
      $0.confidential = .preferred
      $0.versions = [.v5_3]
    }
    _ = client.receive(Self.accept(connectionID: 9, .confidentialChannels), origin: .trusted)
    #expect(client.connection?.isConfidential == false)
    #expect(
      client.receive(.offerChannel(.test(flags: .confidential, id: 1)))
        == [.refused(.invalidOffer(1, .notConfidential))])
  }

  @Test func offersThatCannotBe() throws {
    var client = try Self.connected()
    func refusal(_ offer: OfferChannel) -> [ClientAction] { client.receive(.offerChannel(offer)) }
    for id: ChannelID in [0, 2048, ChannelID(.max)] {
      #expect(refusal(.test(id: id)) == [.refused(.invalidOffer(id, .channelID))])
    }
    #expect(
      refusal(.test(flags: .confidentialExternalMemory, id: 1))
        == [.refused(.invalidOffer(1, .unlawfulFlags))])
    #expect(
      refusal(.test(subchannel: 1, id: 1)) == [.refused(.invalidOffer(1, .noPrimary))])
    #expect(client.channels.isEmpty)
    #expect(refusal(.test(id: 1)) == [.offered(.test(id: 1))])
    #expect(refusal(.test(2, id: 1)) == [.refused(.duplicateChannel(1))])
    #expect(refusal(.test(id: 2)) == [.refused(.invalidOffer(2, .duplicateInstance))])
    #expect(client.receive(Self.rescind(3)) == [.refused(.unknownChannel(3))])
    #expect(client.receive(Self.rescind(1)) == [.rescinded(1)])
    #expect(client.receive(Self.rescind(1)) == [.refused(.channelRescinded(1))])
    // The relid is taken until the client has released it, the instance is not.
    #expect(refusal(.test(2, id: 1)) == [.refused(.duplicateChannel(1))])
    #expect(refusal(.test(id: 2)) == [.offered(.test(id: 2))])
    #expect(client.checkInvariants() == nil)
  }

  @Test func aServerCannotFillTheMemory() throws {
    var client = try Self.connected()
    for id in UInt32(0)..<3000 {
      var offer = OfferChannel.test(id: ChannelID(id))
      offer.flags = .tlnpiProvider
      _ = client.receive(.offerChannel(offer))
    }
    #expect(client.channels.count == 2047)
  }

  @Test func resultsThatNobodyWaitsFor() throws {
    var client = try Self.open()
    #expect(client.receive(Self.opened(1)) == [.refused(.invalidChannelState(1))])
    #expect(client.receive(Self.opened(2)) == [.refused(.unknownChannel(2))])
    #expect(client.receive(Self.created(1, 1)) == [.refused(.invalidGPADLState(1))])
    #expect(client.receive(Self.created(1, 7)) == [.refused(.unknownGPADL(7))])
    #expect(client.receive(Self.torndown(1)) == [.refused(.invalidGPADLState(1))])
    #expect(client.receive(Self.torndown(7)) == [.refused(.unknownGPADL(7))])
    let response = ModifyChannelResponse(1, .success)
    #expect(
      client.receive(.modifyChannelResponse(response)) == [.refused(.invalidChannelState(1))])
    #expect(client.receive(.unloadComplete) == [.refused(.unexpected(.unloadComplete))])
    #expect(client.receive(.pauseResponse) == [.refused(.unexpected(.pauseResponse))])
    let closed = CloseReservedChannelResponse { $0.channelID = 1 }
    #expect(
      client.receive(.closeReservedChannelResponse(closed))
        == [.refused(.unexpected(.closeReservedChannelResponse))])
    #expect(client.receive(.requestOffers) == [.refused(.wrongDirection(.requestOffers))])
    #expect(client.channels[1]?.phase == .open && client.gpadls[1]?.phase == .created)
  }

  @Test func resultsForSomethingElse() throws {
    var client = try Self.connected()
    _ = client.receive(.offerChannel(.test(1, id: 1)))
    _ = client.receive(.offerChannel(.test(2, id: 2)))
    let gpadl = try client.createGPADL(1, ranges: [Self.ring]).id
    #expect(client.receive(Self.created(2, gpadl)) == [.refused(.unknownGPADL(gpadl))])
    _ = client.receive(Self.created(1, gpadl))
    _ = try client.open(1, OpenParameters(ring: gpadl, downstreamPageOffset: 4))
    #expect(client.receive(Self.opened(1, openID: 7)) == [.refused(.invalidChannelState(1))])
    #expect(client.receive(Self.opened(2)) == [.refused(.invalidChannelState(2))])
    #expect(client.channels[1]?.phase == .opening)
  }

  @Test func socketResults() throws {
    var client = try Self.connected()
    let service = DeviceClass.scsi.guid
    func result(_ status: ControlStatus) -> [ClientAction] {
      client.receive(
        .tlConnectResult(
          TLConnectResult {
            $0.serviceID = service
            $0.status = status
          }))
    }
    #expect(
      result(.connectionRefused) == [.refused(.unsolicitedSocketResult(.connectionRefused))])
    for _ in 0..<16 {
      _ = try client.connectSocket(endpointID: GUID(), serviceID: service)
    }
    #expect(throws: ControlError.tooManySocketRequests) {
      try client.connectSocket(endpointID: GUID(), serviceID: service)
    }
    #expect(result(.success) == [.refused(.unsolicitedSocketResult(.success))])
    #expect(client.socketRequests.count == 16)
    // Success is an offer, unless it asks the guest to accept.
    var offer = OfferChannel.test(0, flags: .tlnpiProvider, id: 1)
    offer.userDefined = UserData([0, 0, 0, 0, 1])
    _ = client.receive(.offerChannel(offer))
    #expect(client.socketRequests.count == 16)
    _ = client.receive(.offerChannel(.test(0, flags: .tlnpiProvider, id: 2)))
    #expect(client.socketRequests.count == 15)
  }

  @Test func requestsOutOfTurn() throws {
    var client = ControlClient()
    #expect(throws: ControlError.invalidConnectionState) { try client.unload() }
    #expect(throws: ControlError.invalidConnectionState) {
      try client.createGPADL(1, ranges: [Self.ring]).id
    }
    client = try Self.open()
    #expect(throws: ControlError.invalidConnectionState) { try client.connect() }
    #expect(throws: ControlError.invalidConnectionState) { try client.resume() }
    #expect(throws: ControlError.unknownChannel(2)) { try client.close(2) }
    #expect(throws: ControlError.unknownChannel(2)) { try client.release(2) }
    #expect(throws: ControlError.invalidChannelState(1)) { try client.release(1) }
    #expect(throws: ControlError.unknownGPADL(2)) { try client.tearDownGPADL(2) }
    #expect(throws: ControlError.invalidGPADLState(1)) { try client.tearDownGPADL(1) }
    #expect(throws: ControlError.invalidTargetVP(1, .max)) {
      try client.modify(1, targetVP: .max)
    }
    #expect(throws: ControlError.invalidChannelState(1)) {
      try client.open(1, OpenParameters(ring: 1, downstreamPageOffset: 4))
    }
    _ = try client.close(1)
    #expect(throws: ControlError.invalidChannelState(1)) { try client.close(1) }
    #expect(throws: ControlError.invalidGPADL(2, .noRanges)) {
      try client.createGPADL(1, ranges: []).id
    }
    for offset: UInt32 in [0, 1, 7, 8, .max] {
      #expect(throws: ControlError.invalidRing(1, .downstreamOffset(offset, pages: 8))) {
        try client.open(1, OpenParameters(ring: 1, downstreamPageOffset: offset))
      }
    }
    let odd = try client.createGPADL(1, ranges: [GPADLRange(byteCount: 100, gpns: [1])]).id
    #expect(throws: ControlError.invalidRing(1, .gpadl(odd))) {
      try client.open(1, OpenParameters(ring: odd, downstreamPageOffset: 2))
    }
    _ = client.receive(Self.created(1, odd))
    #expect(throws: ControlError.invalidRing(1, .shape(odd))) {
      try client.open(1, OpenParameters(ring: odd, downstreamPageOffset: 2))
    }
  }

  @Test func aReleaseWaitsForAnswers() throws {
    var client = try Self.open()
    _ = try client.modify(1, targetVP: 2)
    #expect(throws: ControlError.invalidChannelState(1)) { try client.modify(1, targetVP: 3) }
    let late = try client.createGPADL(1, ranges: [Self.ring]).id
    _ = client.receive(Self.rescind(1))
    #expect(Self.posts(try client.release(1)).map(\.0) == [.closeChannel, .gpadlTeardown])
    #expect(throws: ControlError.invalidChannelState(1)) { try client.release(1) }
    #expect(client.receive(Self.torndown(1)) == [.gpadlTornDown(1)])
    // Created only now: nobody else will tear it down.
    #expect(Self.posts(client.receive(Self.created(1, late))).map(\.0) == [.gpadlTeardown])
    #expect(client.receive(Self.torndown(late)) == [.gpadlTornDown(late)])
    let last = client.receive(.modifyChannelResponse(ModifyChannelResponse(1, .unsuccessful)))
    #expect(last.first == .modified(1, .unsuccessful) && last.last == .released(1))
    #expect(Self.posts(last).map(\.0) == [.relIDReleased])
    #expect(client.channels.isEmpty && client.checkInvariants() == nil)
  }

  @Test func nothingIsPostedWhilePausing() throws {
    var client = try Self.connected { $0.features = .pauseResume }
    _ = client.receive(.offerChannel(.test(id: 1)))
    let gpadl = try client.createGPADL(1, ranges: [Self.ring]).id
    _ = client.receive(Self.rescind(1))
    #expect(try client.release(1) == [])
    _ = try client.pause()
    #expect(client.receive(Self.created(1, gpadl)) == [.gpadlCreated(gpadl, .success)])
    #expect(client.receive(.pauseResponse) == [.paused])
    #expect(Self.posts(try client.resume()).map(\.0) == [.resume, .gpadlTeardown])
    #expect(client.receive(Self.torndown(gpadl)).last == .released(1))
  }

  @Test func gpadlIDsWrapRoundThoseInUse() throws {
    var client = try Self.connected()
    _ = client.receive(.offerChannel(.test(id: 1)))
    #expect(try client.createGPADL(1, ranges: [Self.ring]).id == 1)
    client.nextGPADL = .max
    #expect(try client.createGPADL(1, ranges: [Self.ring]).id == GPADLID(.max))
    #expect(try client.createGPADL(1, ranges: [Self.ring]).id == 2)
  }

  @Test func aRescindEndsAnOpenThatNobodyAnswers() throws {
    var client = try Self.connected()
    _ = client.receive(.offerChannel(.test(id: 1)))
    let gpadl = try client.createGPADL(1, ranges: [Self.ring]).id
    _ = client.receive(Self.created(1, gpadl))
    _ = try client.open(1, OpenParameters(ring: gpadl, downstreamPageOffset: 4))
    #expect(client.receive(Self.rescind(1)) == [.rescinded(1)])
    #expect(client.receive(Self.opened(1)) == [.refused(.invalidChannelState(1))])
    #expect(throws: ControlError.channelRescinded(1)) {
      try client.open(1, OpenParameters(ring: gpadl, downstreamPageOffset: 4))
    }
    #expect(Self.posts(try client.tearDownGPADL(gpadl)).map(\.0) == [.gpadlTeardown])
  }
}
