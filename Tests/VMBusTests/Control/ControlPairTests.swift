// SPDX-License-Identifier: Apache-2.0

import Testing

@testable import VMBus

/// Client and server together, over nothing but their messages.
@Suite struct ControlPairTests {
  static let everyFeature: FeatureFlags = [
    .guestSpecifiedSignalParameters, .channelInterruptRedirection, .modifyConnection, .pauseResume,
  ]

  static func connected(
    _ version: ProtocolVersion = .v6_0, features: FeatureFlags = everyFeature
  ) throws -> ControlPair {
    var client = ClientConfiguration()
    client.features = features
    var server = ServerConfiguration()
    server.versions = [version]
    server.features = features
    var pair = ControlPair(client: client, server: server)
    try pair.connect()
    _ = pair.take()
    return pair
  }

  @Test(arguments: ProtocolVersion.supported)
  func connectsDownwards(_ version: ProtocolVersion) throws {
    var server = ServerConfiguration()
    server.versions = [version]
    var pair = ControlPair(server: server)
    try pair.connect()
    let contacts = pair.messages.filter { $0.type == .initiateContact }.count
    #expect(contacts == 1 + (ProtocolVersion.supported.firstIndex(of: version) ?? -1))
    let connection = try #require(pair.client.connection)
    #expect(connection.version == version)
    #expect(connection.features == [])
    #expect(connection.messageConnectionID == (version >= .v5_0 ? 4 : 1))
    #expect(pair.take().told == [.connected(connection), .allOffersDelivered])
    #expect(pair.client.state == .connected && pair.server.state == .connected)
    #expect(pair.server.connection?.version == version)
  }

  @Test func noCommonVersion() throws {
    var client = ClientConfiguration()
    client.versions = [.v4_1, .v4_0]
    var server = ServerConfiguration()
    server.versions = [.v6_0]
    var pair = ControlPair(client: client, server: server)
    try pair.connect()
    #expect(pair.told == [.connectFailed(.noCommonVersion)])
    #expect(pair.client.state == .disconnected && pair.server.state == .disconnected)
    pair.server = ControlServer()
    _ = pair.take()
    try pair.connect()
    #expect(pair.client.connection?.version == .v4_1)
  }

  @Test func isolatedMachinesStopAt5_2() throws {
    var client = ClientConfiguration()
    client.isIsolated = true
    var server = ServerConfiguration()
    server.versions = [.v5_1, .v5_0]
    var pair = ControlPair(client: client, server: server)
    try pair.connect()
    #expect(pair.told == [.connectFailed(.noCommonVersion)])
    #expect(pair.messages.filter { $0.type == .initiateContact }.count == 3)
  }

  @Test func featuresAreThoseOfBoth() throws {
    var client = ClientConfiguration()
    client.features = [.pauseResume, .gpaPinning]
    client.clientID = "00112233-4455-6677-8899-aabbccddeeff"
    var pair = ControlPair(client: client)
    try pair.connect()
    #expect(pair.client.connection?.features == [.pauseResume, .clientID])
    #expect(pair.server.connection?.features == [.pauseResume, .clientID])
    #expect(pair.server.connection?.clientID == "00112233-4455-6677-8899-aabbccddeeff")
  }

  @Test func monitorPagesOfEitherSide() throws {
    let guests = MonitorPages(parentToChild: 0x1000, childToParent: 0x2000)
    let hosts = MonitorPages(parentToChild: 0, childToParent: 0x3000)
    var client = ClientConfiguration()
    client.monitorPages = guests
    var pair = ControlPair(client: client)
    try pair.connect()
    #expect(pair.client.connection?.monitorPages == guests)
    #expect(pair.server.connection?.monitorPages == guests)

    client.features = .serverSpecifiedMonitorPages
    var server = ServerConfiguration()
    server.features = .serverSpecifiedMonitorPages
    server.monitorPages = hosts
    pair = ControlPair(client: client, server: server)
    try pair.connect()
    #expect(pair.client.connection?.monitorPages == hosts)
    #expect(pair.server.connection?.monitorPages == hosts)
  }

  static func offered(_ action: ClientAction) -> OfferChannel? {
    if case .offered(let offer) = action { offer } else { nil }
  }

  @Test func unloadWaitsForTheDevices() throws {
    var pair = try Self.connected()
    let id = try pair.offer(.test())
    let ring = try pair.createRing(id)
    let buffer = try pair.createRing(id)
    try pair.open(id, ring: ring)
    pair.devicesAnswer = false
    let pending = try pair.createRing(id)
    _ = pair.take()
    pair.run(try pair.client.unload())
    #expect(pair.take().asked == [.close(id), .tearDownGPADL(id, buffer)])
    #expect(pair.server.state == .resetting && pair.client.state == .unloading)
    pair.run(pair.server.gpadlTornDown(buffer))
    pair.run(pair.server.closeCompleted(id))
    #expect(pair.take().asked == [.tearDownGPADL(id, ring)])
    pair.run(pair.server.gpadlTornDown(ring))
    pair.run(pair.server.gpadlCompleted(pending, .success))
    #expect(pair.take().asked == [.tearDownGPADL(id, pending)])
    #expect(pair.client.state == .unloading)
    pair.run(pair.server.gpadlTornDown(pending))
    let (told, asked) = pair.take()
    #expect(told == [.unloaded] && asked == [.disconnected])
    #expect(pair.brokenInvariant == nil)
    try pair.connect()
    #expect(pair.take().told.compactMap(Self.offered).map(\.channelID) == [id])
  }

  @Test func contactWhileConnectedBeginsAnew() throws {
    var pair = try Self.connected()
    let id = try pair.offer(.test())
    let ring = try pair.createRing(id)
    pair.devicesAnswer = false
    try pair.open(id, ring: ring)
    _ = pair.take()
    // The guest has crashed: its next kernel knows nothing.
    pair.client = ControlClient()
    try pair.connect()
    #expect(pair.server.state == .resetting && pair.client.state == .connecting)
    #expect(pair.take().asked == [])
    pair.run(pair.server.openCompleted(id, .success))
    #expect(pair.take().asked == [.close(id)])
    pair.run(pair.server.closeCompleted(id))
    pair.run(pair.server.gpadlTornDown(ring))
    #expect(pair.server.state == .connected && pair.client.state == .connected)
    #expect(pair.take().told.compactMap(Self.offered).map(\.channelID) == [id])
    #expect(pair.brokenInvariant == nil)
  }

  @Test func pauseHoldsMessagesBack() throws {
    var pair = try Self.connected()
    let first = try pair.offer(.test(1))
    _ = pair.take()
    pair.run(try pair.client.pause())
    #expect(pair.take().told == [.paused])
    let second = try pair.offer(.test(2))
    pair.run(try pair.server.revoke(first))
    #expect(pair.take().told == [] && pair.client.state == .paused)
    #expect(throws: ControlError.invalidConnectionState) { try pair.createRing(first) }
    pair.run(try pair.client.resume())
    let told = pair.take().told
    #expect(told.compactMap(Self.offered).map(\.channelID) == [second])
    #expect(told.contains(.rescinded(first)) && told.contains(.resumed))
    pair.run(try pair.client.pause())
    pair.run(try pair.client.unload())
    #expect(pair.take().told == [.paused, .unloaded])
    #expect(pair.brokenInvariant == nil)
    var old = try Self.connected(.v5_3)
    #expect(throws: ControlError.unsupported(.pause)) { try old.client.pause() }
  }

  @Test func confidentialOffersNeedAConfidentialConnection() throws {
    var client = ClientConfiguration()
    client.confidential = .preferred
    var server = ServerConfiguration()
    server.features.insert(.confidentialChannels)
    var pair = ControlPair(client: client, server: server)
    pair.origin = .trusted
    try pair.offer(.test(1, flags: .confidential))
    try pair.offer(.test(2, flags: .confidentialRingBuffer))
    try pair.connect()
    #expect(pair.client.connection?.isConfidential == true)
    #expect(
      pair.take().told.compactMap(Self.offered).map(\.flags.confidentiality)
        == [.ringAndExternalMemory, .ring])
    let ring = try pair.createRing(1)
    try pair.open(1, ring: ring)
    #expect(pair.server.openRequest(of: 1)?.confidentiality == .ringAndExternalMemory)
    // Nothing from the untrusted side ends or changes it.
    #expect(
      pair.client.receive(.rescindChannelOffer(RescindChannelOffer { $0.channelID = 1 }))
        == [.refused(.untrusted)])
    #expect(pair.server.receive(.unload) == [.refused(.untrusted)])
    #expect(pair.server.receive(.initiateContact(.init(), clientID: nil)) == [.refused(.untrusted)])
    #expect(pair.server.state == .connected)

    // The same server to a guest whose contact the host could have touched.
    pair = ControlPair(server: server)
    try pair.offer(.test(1, flags: .confidential))
    try pair.connect()
    #expect(
      pair.take().told.compactMap(Self.offered).map(\.flags.confidentiality) == [.hostVisible])
    let plain = try pair.createRing(1)
    try pair.open(1, ring: plain)
    #expect(pair.server.openRequest(of: 1)?.confidentiality == .hostVisible)
  }

  @Test func confidentialRequiredAndRefused() throws {
    var client = ClientConfiguration()
    client.confidential = .required
    var pair = ControlPair(client: client)
    pair.origin = .trusted
    try pair.connect()
    #expect(pair.take().told == [.connectFailed(.notConfidential), .unloaded])
    #expect(pair.client.state == .disconnected && pair.server.state == .disconnected)
    // The operator lets it fall back.
    pair.origin = .untrusted
    pair.run(try pair.client.connect(confidential: .off))
    #expect(pair.client.state == .connected && pair.client.connection?.isConfidential == false)
  }

  @Test func socketsAreRefused() throws {
    var pair = try Self.connected()
    let endpoint: GUID = "00000001-facb-11e6-bd58-64006a7986d3"
    let service: GUID = "00000002-facb-11e6-bd58-64006a7986d3"
    pair.run(try pair.client.connectSocket(endpointID: endpoint, serviceID: service))
    #expect(
      pair.take().told
        == [.socketRefused(endpointID: endpoint, serviceID: service, .connectionRefused)])
  }

  @Test func monitorPagesAreReplaced() throws {
    var pair = try Self.connected()
    let pages = MonitorPages(parentToChild: 0x1000, childToParent: 0x2000)
    pair.run(try pair.client.modifyConnection(monitorPages: pages))
    let (told, asked) = pair.take()
    #expect(told == [.connectionModified(.successful)])
    #expect(asked == [.monitorPagesChanged(pages)])
    #expect(throws: ControlError.invalidMonitorPages) {
      try pair.client.modifyConnection(
        monitorPages: MonitorPages(parentToChild: 0, childToParent: 1))
    }
  }

  @Test func aGuestThatVanishesFreesEverything() throws {
    var pair = try Self.connected()
    let id = try pair.offer(.test())
    try pair.open(id, ring: pair.createRing(id))
    _ = pair.take()
    pair.run(pair.server.disconnect())
    #expect(pair.take().asked.last == .disconnected)
    #expect(pair.server.state == .disconnected && pair.server.gpadls.isEmpty)
    #expect(pair.server.offers.map(\.channelID) == [id])
    #expect(pair.server.disconnect() == [])
  }
}
