// SPDX-License-Identifier: Apache-2.0

import IntegrationProtocol
import SimulatedHost
import TestSupport
import Testing
import VMBus

/// The components as a guest sees them, over real messages and rings.
@Suite(.timeLimit(.minutes(10))) struct IntegrationOverRingTests {
  static func makeHost() throws -> SimulatedHost {
    try SimulatedHost(path: "/tmp/vmbus-test-integration-\(UInt32.random(in: 0 ... .max)).sock")
  }

  /// Takes the negotiation, and answers with version 3.0 of both.
  static func agree(_ channel: inout SmallChannel) throws {
    let packet = try channel.receive()
    let request = try #require(packet)
    #expect(request.type == .inBand)
    try channel.send(
      .inBand, id: 0,
      IntegrationSessionTests.agreement(request.payload, [3, 0, 0, 0], [3, 0, 0, 0]),
      completionRequested: false)
  }

  @Test func offersArePipesOfMessages() throws {
    let host = try Self.makeHost()
    for component in IntegrationComponent.allCases { host.add(IntegrationVSP(component)) }
    let guest = try SmallGuest(host)
    try guest.wait("three offers") { $0.offers.count == 3 }
    #expect(
      guest.offers.map { DeviceClass($0.interfaceID) } == [.heartbeat, .timesync, .shutdown])
    for offer in guest.offers {
      #expect(offer.flags.contains(.namedPipeMode) && offer.userDefined.pipeKind == .messages)
    }
    host.stop()
  }

  @Test func twoHeartbeats() throws {
    let host = try Self.makeHost()
    let device = IntegrationVSP(.heartbeat)
    host.add(device)
    let guest = try SmallGuest(host)
    try guest.wait("an offer") { $0.offers.count == 1 }
    var channel = try guest.open(guest.offers[0].channelID)
    try Self.agree(&channel)
    for _ in 0..<2 {
      let packet = try channel.receive()
      let beat = try #require(packet)
      try channel.send(
        .inBand, id: 0, IntegrationSessionTests.answer(beat.payload) { $0[28] &+= 1 },
        completionRequested: false)
    }
    try guest.wait("two are seen") { _ in device.records.values.first?.beats == 2 }
    #expect(device.records.values.first?.violations == [])
    try guest.close(channel)
    try guest.wait("it is forgotten") { _ in device.records.isEmpty }
    host.stop()
  }

  @Test func aGuestIsAskedToEnd() throws {
    let host = try Self.makeHost()
    let device = IntegrationVSP(.shutdown)
    host.add(device)
    let guest = try SmallGuest(host)
    try guest.wait("an offer") { $0.offers.count == 1 }
    var channel = try guest.open(guest.offers[0].channelID)
    try Self.agree(&channel)
    try guest.wait("they have agreed") { _ in device.records.values.first?.stage == .ready }
    device.shutDown()
    let packet = try channel.receive()
    let request = try #require(packet)
    #expect(request.payload.count == 2088)
    try channel.send(
      .inBand, id: 0, IntegrationSessionTests.answer(request.payload),
      completionRequested: false)
    try guest.wait("it is accepted") { _ in
      device.records.values.first?.shutdown == .accepted(.powerOff)
    }
    host.stop()
  }

  @Test func nonsenseIsCountedAndTheChannelGoesOn() throws {
    let host = try Self.makeHost()
    let device = IntegrationVSP(.heartbeat)
    host.add(device)
    let guest = try SmallGuest(host)
    try guest.wait("an offer") { $0.offers.count == 1 }
    var channel = try guest.open(guest.offers[0].channelID)
    var random = Numbers(seed: 3)
    for _ in 0..<20 {
      let bytes = (0..<Int.random(in: 0...100, using: &random)).map { _ in
        UInt8.random(in: 0...255, using: &random)
      }
      try channel.send(.inBand, id: 0, bytes, completionRequested: false)
    }
    try guest.wait("they are counted") { _ in
      device.records.values.first?.violations.count == 20
    }
    try Self.agree(&channel)
    try guest.wait("they have agreed") { _ in device.records.values.first?.stage == .ready }
    host.stop()
  }
}
