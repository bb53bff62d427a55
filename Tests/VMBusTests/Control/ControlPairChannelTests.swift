// SPDX-License-Identifier: Apache-2.0

import Testing

@testable import VMBus

/// The life of channels between client and server, over nothing but their messages.
@Suite struct ControlPairChannelTests {
  @Test(arguments: ProtocolVersion.supported)
  func wholeLifeOfAChannel(_ version: ProtocolVersion) throws {
    var pair = try ControlPairTests.connected(version)
    let id = try pair.offer(.test())
    guard case .offered(let offer)? = pair.take().told.first else {
      Issue.record("no offer")
      return
    }
    #expect(offer.channelID == 1 && offer.connectionID == 0x2001 && offer.isDedicated == 1)

    // Three fragments: 27 + 28 + 6 words.
    let ring = try pair.createRing(id, pages: 60)
    #expect(pair.messages.filter { $0.type == .gpadlBody }.count == 2)
    var (told, asked) = pair.take()
    #expect(told == [.gpadlCreated(ring, .success)])
    #expect(asked == [.createGPADL(id, ring)])
    #expect(pair.server.gpadl(ring, of: id)?.first?.gpns.count == 60)
    #expect(pair.server.gpadl(ring, of: 2) == nil)

    try pair.open(id, ring: ring, offset: 30)
    (told, asked) = pair.take()
    #expect(told == [.opened(id, .success)])
    guard case .open(let request)? = asked.first else {
      Issue.record("not asked to open")
      return
    }
    #expect(request.ringPages.count == 60 && request.downstreamPageOffset == 30)
    #expect(request.eventFlag == 1 && request.connectionID == 0x2001 && request.targetVP == 0)
    #expect(pair.server.openRequest(of: id) == request)

    if version >= .v4_1 {
      pair.run(try pair.client.modify(id, targetVP: 3))
      (told, asked) = pair.take()
      #expect(told == [.modified(id, .success)])
      #expect(asked == [.modify(id, targetVP: 3)])
    } else {
      #expect(throws: ControlError.unsupported(.modifyChannel)) {
        try pair.client.modify(id, targetVP: 3)
      }
    }
    #expect(throws: ControlError.invalidGPADLState(ring)) { try pair.client.tearDownGPADL(ring) }
    pair.run(try pair.client.close(id))
    pair.run(try pair.client.tearDownGPADL(ring))
    (told, asked) = pair.take()
    #expect(told == [.gpadlTornDown(ring)])
    #expect(asked == [.close(id), .tearDownGPADL(id, ring)])

    pair.run(try pair.server.revoke(id))
    #expect(pair.take().told == [.rescinded(id)])
    pair.run(try pair.client.release(id))
    (told, asked) = pair.take()
    #expect(told == [.released(id)])
    #expect(asked == [.released(id)])
    #expect(pair.brokenInvariant == nil)
    #expect(try pair.offer(.test()) == id)
  }

  @Test func signalParametersReachTheDevice() throws {
    var pair = try ControlPairTests.connected()
    let id = try pair.offer(.test())
    let ring = try pair.createRing(id)
    var parameters = OpenParameters(ring: ring, downstreamPageOffset: 4)
    parameters.targetVP = OpenChannel.interruptsDisabledVP
    parameters.userData = UserData([1, 2, 3])
    parameters.signal = SignalParameters {
      $0.connectionID = 77
      $0.eventFlag = 2047
      $0.flags = 1
    }
    pair.run(try pair.client.open(id, parameters))
    let request = try #require(pair.server.openRequest(of: id))
    #expect(request.connectionID == 77 && request.eventFlag == 2047 && request.redirectsInterrupt)
    #expect(request.userData == UserData([1, 2, 3]))
    #expect(throws: ControlError.invalidChannelState(id)) {
      try pair.client.modify(id, targetVP: 0)
    }
    var plain = try ControlPairTests.connected(.v5_3)
    try plain.offer(.test())
    parameters.ring = try plain.createRing(id)
    #expect(throws: ControlError.unsupported(.openChannel)) {
      try plain.client.open(id, parameters)
    }
  }

  @Test func aDeviceMayRefuseToOpen() throws {
    var pair = try ControlPairTests.connected()
    let id = try pair.offer(.test())
    let ring = try pair.createRing(id)
    _ = pair.take()
    pair.openStatus = .unsuccessful
    try pair.open(id, ring: ring)
    #expect(pair.take().told == [.opened(id, .unsuccessful)])
    pair.openStatus = .success
    try pair.open(id, ring: ring)
    #expect(pair.take().told == [.opened(id, .success)])
    #expect(pair.brokenInvariant == nil)
  }

  @Test func hotAddWithSubchannels() throws {
    var pair = ControlPair()
    try pair.offer(.test(1))
    try pair.offer(.test(1, subchannel: 1))
    try pair.offer(.test(2))
    try pair.connect()
    let early = pair.take().told.compactMap(ControlPairTests.offered)
    #expect(early.map(\.channelID) == [1, 3, 2])
    try pair.offer(.test(1, subchannel: 2))
    #expect(pair.take().told.compactMap(ControlPairTests.offered).map(\.subchannelIndex) == [2])
    #expect(throws: ControlError.invalidOffer(5, .noPrimary)) {
      try pair.server.offer(.test(9, subchannel: 1))
    }
    #expect(throws: ControlError.invalidOffer(5, .duplicateInstance)) {
      try pair.server.offer(.test(1, subchannel: 2))
    }
    #expect(throws: ControlError.invalidOffer(5, .unlawfulFlags)) {
      try pair.server.offer(.test(9, flags: .confidentialExternalMemory))
    }
    // The subchannels go before their primary.
    pair.run(try pair.server.revoke(1))
    #expect(pair.take().told == [.rescinded(2), .rescinded(4), .rescinded(1)])
  }

  /// What a relay does for its guest.
  @Test func memoryCanHaveAnIDOfSomebodyElses() throws {
    var pair = try ControlPairTests.connected()
    let id = try pair.offer(.test())
    let range = GPADLRange(byteCount: 8 * 4096, gpns: (0..<8).map { 0x100 + $0 })
    pair.run(try pair.client.createGPADL(id, as: 0xE1E10, ranges: [range]))
    #expect(pair.take().told.last == .gpadlCreated(0xE1E10, .success))
    #expect(throws: ControlError.invalidGPADLState(0xE1E10)) {
      try pair.client.createGPADL(id, as: 0xE1E10, ranges: [range])
    }
    #expect(throws: ControlError.invalidGPADLState(0)) {
      try pair.client.createGPADL(id, as: 0, ranges: [range])
    }
    // Its own ids keep clear of it.
    #expect(try pair.createRing(id) == 1)
    try pair.open(id, ring: 0xE1E10)
    #expect(pair.take().told.last == .opened(id, .success))
  }

  /// A fault that a host can be told to have: its guest refuses the offer.
  @Test func anUnlawfulOfferCanBeMade() throws {
    var server = ServerConfiguration()
    server.offersUnlawfulFlags = true
    server.features.insert(.confidentialChannels)
    var client = ClientConfiguration()
    client.confidential = .preferred
    var pair = ControlPair(client: client, server: server)
    pair.origin = .trusted
    try pair.connect()
    _ = pair.take()
    try pair.offer(.test(9, flags: .confidentialExternalMemory))
    #expect(pair.take().told == [.refused(.invalidOffer(1, .unlawfulFlags))])
  }

  @Test func rescindWhileOpenClearsEverythingAway() throws {
    var pair = try ControlPairTests.connected()
    let id = try pair.offer(.test())
    let ring = try pair.createRing(id)
    let buffer = try pair.createRing(id)
    try pair.open(id, ring: ring)
    _ = pair.take()
    pair.run(try pair.server.revoke(id))
    #expect(pair.take().told == [.rescinded(id)])
    #expect(throws: ControlError.channelRescinded(id)) { try pair.createRing(id) }
    pair.run(try pair.client.release(id))
    let (told, asked) = pair.take()
    #expect(told == [.gpadlTornDown(ring), .gpadlTornDown(buffer), .released(id)])
    #expect(asked == [.released(id)])
    #expect(pair.client.channels.isEmpty && pair.client.gpadls.isEmpty)
    #expect(pair.brokenInvariant == nil)
  }

  @Test func reofferWaitsForTheRelease() throws {
    var pair = try ControlPairTests.connected()
    let id = try pair.offer(.test())
    pair.run(try pair.server.revoke(id))
    _ = pair.take()
    let again = try pair.offer(.test())
    let sub = try pair.offer(.test(subchannel: 1))
    #expect(again == 2 && sub == 3)
    #expect(pair.take().told == [])
    pair.run(try pair.client.release(id))
    #expect(pair.take().told.compactMap(ControlPairTests.offered).map(\.channelID) == [again, sub])
  }

  @Test func rescindAmidRequests() throws {
    var pair = try ControlPairTests.connected()
    let id = try pair.offer(.test())
    let ring = try pair.createRing(id)
    let other = try pair.createRing(id)
    _ = pair.take()
    pair.devicesAnswer = false
    try pair.open(id, ring: ring)
    let pending = try pair.createRing(id)
    pair.run(try pair.client.tearDownGPADL(other))
    #expect(pair.take().told == [])
    // The server answers for the device that is gone, but for the open.
    pair.run(try pair.server.revoke(id))
    #expect(
      pair.take().told
        == [.gpadlTornDown(other), .gpadlCreated(pending, .success), .rescinded(id)])
    #expect(pair.server.openCompleted(id, .success) == [.refused(.invalidChannelState(id))])
    #expect(
      pair.server.gpadlCompleted(pending, .success) == [.refused(.invalidGPADLState(pending))])
    #expect(pair.server.gpadlTornDown(other) == [.refused(.unknownGPADL(other))])
    pair.run(try pair.client.release(id))
    #expect(pair.take().told == [.gpadlTornDown(ring), .gpadlTornDown(pending), .released(id)])
    #expect(pair.brokenInvariant == nil)
  }
}
