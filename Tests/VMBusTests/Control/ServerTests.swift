// SPDX-License-Identifier: Apache-2.0

import Testing

@testable import VMBus

/// What a guest, hostile or merely wrong, and a device can do to a server out of turn.
@Suite struct ServerTests {
  static func contact(
    _ version: ProtocolVersion = .v6_0, _ features: FeatureFlags = [], sint: UInt8 = 2,
    pages: MonitorPages = MonitorPages()
  ) -> ControlMessage {
    let message = InitiateContact {
      $0.versionRequested = version
      $0.targetMessageVP = 5
      $0.interruptPageOrTargetInfo = TargetInfo(sint: sint, features: features).rawValue
      $0.monitorPages = pages
    }
    return .initiateContact(message, clientID: nil)
  }

  /// A server with a guest and one device that it has been told of.
  static func connected(
    _ version: ProtocolVersion = .v6_0, _ features: FeatureFlags = [],
    _ change: (inout ServerConfiguration) -> Void = { _ in }
  ) throws -> ControlServer {
    var configuration = ServerConfiguration()
    change(&configuration)
    var server = ControlServer(configuration)
    _ = try server.offer(.test())
    _ = server.receive(contact(version, features))
    _ = server.receive(.requestOffers)
    #expect(server.state == .connected)
    return server
  }

  static func header(
    _ channel: ChannelID, _ gpadl: GPADLID, length: UInt16 = 72, count: UInt16 = 1,
    words: [UInt64] = [8 * 4096, 1, 2, 3, 4, 5, 6, 7, 8]
  ) -> ControlMessage {
    let header = GPADLHeader {
      $0.channelID = channel
      $0.gpadlID = gpadl
      $0.length = length
      $0.rangeCount = count
    }
    return .gpadlHeader(header, words)
  }

  static func teardown(_ channel: ChannelID, _ gpadl: GPADLID) -> ControlMessage {
    .gpadlTeardown(
      GPADLTeardown {
        $0.channelID = channel
        $0.gpadlID = gpadl
      })
  }

  static func open(_ ring: GPADLID = 1, offset: UInt32 = 4, vp: UInt32 = 0) -> ControlMessage {
    let message = OpenChannel {
      $0.channelID = 1
      $0.openID = 33
      $0.ringGPADL = ring
      $0.downstreamPageOffset = offset
      $0.targetVP = vp
    }
    return .openChannel(message, nil)
  }

  static let close = ControlMessage.closeChannel(CloseChannel { $0.channelID = 1 })
  static let released = ControlMessage.relIDReleased(RelIDReleased { $0.channelID = 1 })

  static func modify(_ vp: UInt32) -> ControlMessage {
    .modifyChannel(
      ModifyChannel {
        $0.channelID = 1
        $0.targetVP = vp
      })
  }

  static func open(in version: ProtocolVersion = .v6_0, vp: UInt32 = 0) throws -> ControlServer {
    var server = try connected(version)
    _ = server.receive(header(1, 1))
    _ = server.gpadlCompleted(1, .success)
    _ = server.receive(open(vp: vp))
    _ = server.openCompleted(1, .success)
    #expect(server.openRequest(of: 1)?.openID == 33)
    return server
  }

  /// The messages among actions, as the guest reads them.
  static func posts(_ actions: [ServerAction]) throws -> [ControlMessage] {
    try actions.compactMap { action in
      guard case .post(let message, _) = action else { return nil }
      return try ControlMessage(parsing: message.array, version: .v6_0, features: .modifyConnection)
    }
  }

  static func created(_ gpadl: GPADLID, _ status: ControlStatus, _ channel: ChannelID = 1)
    -> ControlMessage
  {
    ClientTests.created(channel, gpadl, status)
  }

  static let openFailed = ControlMessage.openChannelResult(
    OpenChannelResult {
      $0.channelID = 1
      $0.openID = 33
      $0.status = .unsuccessful
    })

  @Test func contactsThatAreRefused() throws {
    var server = ControlServer()
    let unknown = server.receive(Self.contact(ProtocolVersion(major: 7, minor: 0)))
    #expect(
      unknown == [
        .post(OutgoingMessage(.versionResponse(VersionResponse(), nil, nil)), targetVP: 5)
      ])
    let failure = VersionResponse {
      $0.versionSupported = 1
      $0.connectionState = .failedUnknownFailure
    }
    let half = MonitorPages(parentToChild: 0x1000, childToParent: 0)
    for contact in [Self.contact(pages: half), Self.contact(sint: 16)] {
      #expect(try Self.posts(server.receive(contact)) == [.versionResponse(failure, nil, nil)])
      #expect(server.state == .disconnected)
    }
  }

  @Test func anUnknownVersionEndsTheConnectionToo() throws {
    var server = try Self.connected()
    let actions = server.receive(Self.contact(ProtocolVersion(major: 7, minor: 0)))
    #expect(actions.first == .disconnected && server.state == .disconnected)
    #expect(try Self.posts(actions) == [.versionResponse(VersionResponse(), nil, nil)])
  }

  @Test func messagesOfTheServerItself() throws {
    var server = try Self.connected()
    let response = ControlMessage.versionResponse(VersionResponse(), nil, nil)
    #expect(server.receive(response) == [.refused(.wrongDirection(.versionResponse))])
    #expect(server.receive(.allOffersDelivered) == [.refused(.wrongDirection(.allOffersDelivered))])
    #expect(server.receive(.requestOffers) == [.refused(.unexpected(.requestOffers))])
  }

  @Test func theUntrustedSideDoesNotTouchATrustedGuest() throws {
    var server = ControlServer()
    _ = server.receive(Self.contact(), origin: .trusted)
    for message in [Self.contact(), .requestOffers, .unload, Self.close, Self.header(1, 1)] {
      #expect(server.receive(message) == [.refused(.untrusted)])
    }
    #expect(server.state == .contacted)
    // Not while it begins anew either.
    server = try Self.open()
    #expect(server.receive(Self.contact(), origin: .trusted) == [.close(1)])
    #expect(server.receive(Self.contact()) == [.refused(.untrusted)])
    // And a guest that the host could have forged is replaced by one that it could not.
    server = try Self.connected()
    _ = server.receive(Self.contact(), origin: .trusted)
    #expect(server.connection?.isTrusted == true)
  }

  @Test func eventFlagsThatCannotBe() throws {
    let features: FeatureFlags = .guestSpecifiedSignalParameters
    var server = try Self.connected(.v6_0, features)
    _ = server.receive(Self.header(1, 1))
    _ = server.gpadlCompleted(1, .success)
    guard case .openChannel(let open, _) = Self.open() else { return }
    let signal = SignalParameters { $0.eventFlag = 2048 }
    let actions = server.receive(.openChannel(open, signal))
    #expect(try Self.posts(actions) == [Self.openFailed])
    #expect(actions.last == .refused(.invalidEventFlag(1, 2048)))
  }

  @Test func openedAgainWhileClosing() throws {
    var server = try Self.open()
    _ = server.receive(Self.header(1, 2))
    _ = server.gpadlCompleted(2, .success)
    _ = server.receive(Self.close)
    #expect(server.receive(Self.open(2)) == [])
    #expect(server.receive(Self.open(2)) == [.refused(.invalidChannelState(1))])
    #expect(server.receive(Self.close) == [.refused(.invalidChannelState(1))])
    #expect(server.receive(Self.teardown(1, 2)) == [])
    #expect(server.receive(Self.teardown(1, 1)) == [])
    var copy = server
    let actions = server.closeCompleted(1)
    guard case .open(let request)? = actions.first else {
      Issue.record("not opened again")
      return
    }
    #expect(request.ring == 2 && actions.last == .tearDownGPADL(1, 1))
    #expect(server.openCompleted(1, .unsuccessful).last == .tearDownGPADL(1, 2))
    #expect(server.checkInvariants() == nil)
    // The guest goes before that: nothing is left waiting.
    #expect(copy.receive(.unload) == [.tearDownGPADL(1, 2)])
    #expect(copy.closeCompleted(1) == [.tearDownGPADL(1, 1)])
    _ = copy.gpadlTornDown(1)
    #expect(copy.gpadlTornDown(2).last == .disconnected)
  }

  @Test func modifyOutOfTurn() throws {
    var server = try Self.open()
    let failed = ControlMessage.modifyChannelResponse(ModifyChannelResponse(1, .unsuccessful))
    var actions = server.receive(Self.modify(.max))
    #expect(try Self.posts(actions) == [failed])
    #expect(actions.last == .refused(.invalidTargetVP(1, .max)))
    #expect(server.receive(Self.modify(2)) == [.modify(1, targetVP: 2)])
    #expect(try Self.posts(server.receive(Self.modify(3))) == [failed])
    #expect(try Self.posts(server.modifyCompleted(1, .unsuccessful)) == [failed])
    #expect(server.modifyCompleted(1, .success) == [.refused(.invalidChannelState(1))])
    // Without an interrupt there is none to move.
    server = try Self.open(vp: .max)
    actions = server.receive(Self.modify(2))
    #expect(actions.last == .refused(.invalidChannelState(1)))
    // Guests before 5.3 wait for no answer; of what they ask meanwhile the last counts.
    server = try Self.open(in: .v5_2)
    #expect(server.receive(Self.modify(2)) == [.modify(1, targetVP: 2)])
    #expect(server.receive(Self.modify(3)) == [] && server.receive(Self.modify(4)) == [])
    #expect(server.modifyCompleted(1, .success) == [.modify(1, targetVP: 4)])
    #expect(server.modifyCompleted(1, .success) == [])
  }

  @Test func aRevokedChannelIsTolerated() throws {
    var server = try Self.open()
    let rescind = ClientTests.rescind(1)
    #expect(try Self.posts(server.revoke(1)) == [rescind])
    #expect(throws: ControlError.channelRescinded(1)) { try server.revoke(1) }
    #expect(server.receive(Self.open(1)) == [] && server.receive(Self.close) == [])
    #expect(try Self.posts(server.receive(Self.header(1, 2))) == [Self.created(2, .success)])
    #expect(
      try Self.posts(server.receive(Self.teardown(1, 1))) == [ClientTests.torndown(1)])
    #expect(server.receive(Self.released) == [.released(1)])
    // What the guest had not torn down went with the channel.
    #expect(server.gpadls.isEmpty)
    #expect(server.receive(Self.released) == [.refused(.unknownChannel(1))])
    #expect(throws: ControlError.unknownChannel(1)) { try server.revoke(1) }
  }

  @Test func aGuestMayReleaseWhatItDoesNotWant() throws {
    var server = try Self.open()
    #expect(server.receive(Self.released) == [.refused(.invalidChannelState(1))])
    server = try Self.connected()
    #expect(server.receive(Self.released) == [])
    #expect(server.receive(Self.open(1)) == [.refused(.unknownChannel(1))])
    _ = server.receive(Self.contact())
    #expect(try Self.posts(server.receive(.requestOffers)).first?.type == .offerChannel)
    // Nobody needs to be told that a device is gone which the guest does not know.
    _ = server.receive(Self.released)
    #expect(try server.revoke(1) == [] && server.offers.isEmpty)
  }

  @Test func relidsRunOut() throws {
    var server = ControlServer()
    var first = OfferChannel.test()
    for index in UInt16(0)..<2047 {
      first.subchannelIndex = index
      _ = try server.offer(first)
    }
    #expect(throws: ControlError.tooManyChannels) { try server.offer(.test(2)) }
    _ = try server.revoke(9)
    #expect(try server.offer(.test(2)).id == 9)
  }

  @Test func answersThatNobodyAskedFor() throws {
    var server = try Self.connected()
    #expect(server.openCompleted(1, .success) == [.refused(.invalidChannelState(1))])
    #expect(server.closeCompleted(1) == [.refused(.invalidChannelState(1))])
    #expect(server.modifyCompleted(1, .success) == [.refused(.invalidChannelState(1))])
    #expect(server.openCompleted(2, .success) == [.refused(.unknownChannel(2))])
    #expect(server.closeCompleted(2) == [.refused(.unknownChannel(2))])
    #expect(server.modifyCompleted(2, .success) == [.refused(.unknownChannel(2))])
    #expect(server.gpadlCompleted(1, .success) == [.refused(.unknownGPADL(1))])
    #expect(server.gpadlTornDown(1) == [.refused(.unknownGPADL(1))])
  }

  @Test func aPausedServerHearsThreeMessages() throws {
    var server = try Self.connected(.v6_0, .pauseResume)
    #expect(server.receive(.resume) == [.refused(.unexpected(.resume))])
    _ = server.receive(.pause)
    #expect(server.receive(.pause) == [.refused(.unexpected(.pause))])
    #expect(server.receive(Self.header(1, 1)) == [.refused(.unexpected(.gpadlHeader))])
    _ = try server.revoke(1)
    #expect(server.heldMessages.map(\.type) == [.rescindChannelOffer])
    // A guest that unloads does not hear of it any more.
    #expect(try Self.posts(server.receive(.unload)) == [.unloadComplete])
    #expect(server.state == .disconnected && server.checkInvariants() == nil)
  }

  @Test func monitorPagesOfTheServerStay() throws {
    var server = try Self.connected(.v6_0, [.modifyConnection, .serverSpecifiedMonitorPages]) {
      $0.features = [.modifyConnection, .serverSpecifiedMonitorPages]
      $0.monitorPages = MonitorPages(parentToChild: 0, childToParent: 0x1000)
    }
    let actions = server.receive(.modifyConnection(ModifyConnection()))
    let failure = ModifyConnectionResponse { $0.connectionState = .failedUnknownFailure }
    #expect(try Self.posts(actions) == [.modifyConnectionResponse(failure)])
    #expect(actions.last == .refused(.invalidMonitorPages))
    #expect(server.connection?.monitorPages?.childToParent == 0x1000)
  }

  @Test func reservedChannelsAreAnswered() throws {
    var server = ControlServer()
    let close = CloseReservedChannel {
      $0.channelID = 4
      $0.targetVP = 6
    }
    let response = CloseReservedChannelResponse { $0.channelID = 4 }
    #expect(
      server.receive(.closeReservedChannel(close)) == [
        .post(OutgoingMessage(.closeReservedChannelResponse(response)), targetVP: 6)
      ])
    server = try Self.connected()
    let actions = server.receive(.openReservedChannel(OpenReservedChannel { $0.channelID = 4 }))
    #expect(actions.last == .refused(.reservedChannel(4)))
    #expect(try Self.posts(actions).map(\.type) == [.openChannelResult])
  }

  /// A guest without monitor pages could not signal a monitored channel.
  @Test(arguments: [true, false]) func monitorsAreForGuestsThatHavePages(_ has: Bool) throws {
    var server = ControlServer()
    var offer = OfferChannel.test()
    (offer.monitorID, offer.monitorAllocated) = (0x41, 1)
    _ = try server.offer(offer)
    let pages = MonitorPages(parentToChild: 0x1000, childToParent: 0x2000)
    _ = server.receive(Self.contact(pages: has ? pages : MonitorPages()))
    var told: [MonitorID?] = []
    for case .post(let message, _) in server.receive(.requestOffers) {
      let parsed = try ControlMessage(parsing: message.array, version: .v6_0)
      if case .offerChannel(let offer) = parsed { told.append(offer.monitor) }
    }
    #expect(told == [has ? MonitorID(0x41) : nil])
  }
}
