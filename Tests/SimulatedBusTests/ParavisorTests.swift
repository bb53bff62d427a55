// SPDX-License-Identifier: Apache-2.0

import EchoVSC
import SimulatedHost
import SimulatedLink
import Testing
import VSC

@testable import SimulatedBus

/// A guest, its paravisor and its host, joined by sockets: each row of the table "Where memory is
/// encrypted" that has a paravisor.
@Suite(.timeLimit(.minutes(10))) struct ParavisorTests {
  private static let paravisors: GUID = "8d1f6a2e-59a6-4a4f-93b7-5f60c0e1a0ff"

  /// A host with one device, and a paravisor with another one.
  private struct Bed {
    let host: SimulatedHost
    let paravisor: SimulatedHost

    init(
      _ flags: OfferFlags = .confidential, offersConfidential: Bool = true,
      grantsConfidential: Bool = true, hostRelids: ClosedRange<ChannelID> = ChannelID.valid,
      kind: IsolatedMachine.Kind = .sevSNP,
      name: String = #function
    ) throws {
      var hosts = SimulatedHost.Configuration()
      hosts.server.channelIDs = hostRelids
      host = try SimulatedHost(path: socketPath(name), hosts)
      host.add(EchoVSP())
      var configuration = SimulatedHost.Configuration()
      configuration.hostPath = host.path
      configuration.leaves = IsolatedMachine(
        kind: kind, hasParavisor: true, offersConfidentialVMBus: offersConfidential
      ).leaves(boundaryBit: 46)
      if !grantsConfidential { configuration.server.features.remove(.confidentialChannels) }
      paravisor = try SimulatedHost(path: socketPath("p" + name), configuration)
      paravisor.add(EchoVSP(flags: flags, instance: ParavisorTests.paravisors))
    }

    func connect(
      _ change: (inout SimulatedBus.Configuration) -> Void = { _ in }
    ) async throws(TransportError) -> SimulatedBus {
      var configuration = SimulatedBus.Configuration(machine: .confidential)
      configuration.timeoutSeconds = 10
      change(&configuration)
      return try await SimulatedBus.connect(path: paravisor.path, configuration)
    }

    func stop() {
      paravisor.stop()
      host.stop()
    }
  }

  /// Runs 10,000 packets through a device.
  private func echo(_ transport: any DeviceTransport) async throws -> UInt64 {
    let worker = try Worker(.init(name: "echo"))
    let device = Device(transport, workers: [worker])
    let received = try await countEchoes(of: 10_000, on: device)
    await device.close()
    worker.stop()
    return received
  }

  @Test(arguments: [
    (OfferFlags.confidentialRingBuffer, Confidentiality.ring),
    (OfferFlags.confidential, .ringAndExternalMemory),
  ])
  func aGuestHasThePartysOwnAndRelayedChannels(
    _ flags: OfferFlags, _ expected: Confidentiality
  ) async throws {
    let bed = try Bed(flags)
    let bus = try await bed.connect()
    #expect(bus.connection?.isConfidential == true)
    let devices = bus.devices
    #expect(devices.map(\.identity.confidentiality) == [.hostVisible, expected])
    #expect(devices.map(\.identity.channel.rawValue) == [1, 1024])
    for device in devices { #expect(try await echo(device) == 10_000) }
    // The same again, at a second open.
    for device in devices { #expect(try await echo(device) == 10_000) }
    #expect(bus.refusedMessages == 0)
    await bus.disconnect()
    bed.stop()
  }

  @Test func withoutConfidentialVMBusTheGuestTurnsToTheHost() async throws {
    let bed = try Bed(offersConfidential: false)
    let bus = try await bed.connect()
    #expect(bus.connection?.isConfidential == false)
    #expect(bus.devices.map(\.identity.confidentiality) == [.hostVisible])
    for device in bus.devices { #expect(try await echo(device) == 10_000) }
    await bus.disconnect()
    bed.stop()
  }

  @Test func whenItIsRefusedTheGuestTurnsToTheHost() async throws {
    let bed = try Bed(grantsConfidential: false)
    let bus = try await bed.connect()
    #expect(bus.connection?.isConfidential == false)
    #expect(bus.devices.map(\.identity.instance) != [Self.paravisors])
    for device in bus.devices { #expect(try await echo(device) == 10_000) }
    await bus.disconnect()
    bed.stop()
  }

  @Test(arguments: [IsolatedMachine.Kind.sevSNP, .tdx, .vbs])
  func eachKindOfMachineCallsInItsWay(_ kind: IsolatedMachine.Kind) async throws {
    let bed = try Bed(kind: kind)
    let bus = try await bed.connect()
    for device in bus.devices { #expect(try await echo(device) == 10_000) }
    await bus.disconnect()
    // Confidential: the guest posts to the paravisor, and that one to the host, both plainly.
    #expect(bed.host.posts.vmgexit + bed.host.posts.tdcall == 0)
    #expect(bed.paravisor.posts.plain > 0)
    #expect(bed.paravisor.posts.vmgexit + bed.paravisor.posts.tdcall == 0)
    let plain = bed.host.posts.plain
    let conventional = try await bed.connect { $0.confidential = .never }
    for device in conventional.devices { #expect(try await echo(device) == 10_000) }
    await conventional.disconnect()
    let posts = bed.host.posts
    switch kind {
    case .sevSNP: #expect(posts.vmgexit > 0 && posts.tdcall == 0 && posts.plain == plain)
    case .tdx: #expect(posts.tdcall > 0 && posts.vmgexit == 0 && posts.plain == plain)
    case .vbs, .other: #expect(posts.plain > plain && posts.vmgexit + posts.tdcall == 0)
    }
    bed.stop()
  }

  @Test func aGuestThatRequiresItTurnsToNobody() async throws {
    let bed = try Bed(grantsConfidential: false)
    await #expect(throws: TransportError.self) {
      try await bed.connect { $0.confidential = .require }
    }
    bed.stop()
  }

  @Test func anOperatorCanForbidTheAttempt() async throws {
    let bed = try Bed()
    let bus = try await bed.connect { $0.confidential = .never }
    #expect(bus.connection?.isConfidential == false)
    #expect(bus.devices.count == 1)
    await bus.disconnect()
    bed.stop()
  }

  @Test func anOldVersionHasNoConfidentialConnection() async throws {
    let bed = try Bed()
    let bus = try await bed.connect { $0.versions = [.v5_3] }
    #expect(bus.connection?.version == .v5_3)
    #expect(bus.connection?.isConfidential == false)
    for device in bus.devices { #expect(try await echo(device) == 10_000) }
    await bus.disconnect()
    bed.stop()
  }

  @Test func aHostThatGoesTakesItsChannelsAlong() async throws {
    let bed = try Bed()
    let bus = try await bed.connect()
    #expect(bus.devices.count == 2)
    bed.host.stop()
    try await eventually { bus.devices.count == 1 }
    let left = try #require(bus.devices.first)
    #expect(left.identity.instance == Self.paravisors)
    #expect(try await echo(left) == 10_000)
    await bus.disconnect()
    bed.paravisor.stop()
  }

  @Test func theHostsDevicesComeAndGo() async throws {
    let bed = try Bed()
    let bus = try await bed.connect()
    let added = bed.host.add(EchoVSP(instance: "8d1f6a2e-59a6-4a4f-93b7-5f60c0e1a0fe"))
    try await eventually { bus.devices.count == 3 }
    for device in bus.devices { #expect(try await echo(device) == 10_000) }
    bed.host.revoke(added)
    try await eventually { bus.devices.count == 2 }
    await bus.disconnect()
    bed.stop()
  }

  /// Relids are unique over both: a host that gives out the paravisor's is not passed on.
  @Test func aHostCannotTakeTheParavisorsRelids() async throws {
    let bed = try Bed(hostRelids: 1024...1030)
    let bus = try await bed.connect()
    #expect(bus.devices.map(\.identity.instance) == [Self.paravisors])
    #expect(bed.paravisor.refusals == 1)
    for device in bus.devices { #expect(try await echo(device) == 10_000) }
    await bus.disconnect()
    bed.stop()
  }

  /// Memory that was host-visible is private again when it is needed, and the other way round.
  @Test func pagesChangeTheirKindAsTheyAreNeeded() async throws {
    let bed = try Bed()
    let bus = try await bed.connect { $0.memoryByteCount = 4 << 20 }
    let pages = bus.core.machine.pages
    // All of it, in one kind after the other: 8 MiB without what SynICs and hypercalls have.
    for _ in 0..<3 {
      for memory in MemoryVisibility.allCases {
        let all = try pages.allocate(memory, byteCount: 5 << 20, use: "test")
        let bytes = unsafe UnsafeMutableRawBufferPointer(start: all.start, count: all.byteCount)
        // What the other kind held is gone.
        let isZero = unsafe bytes.allSatisfy { $0 == 0 }
        #expect(isZero)
        unsafe bytes.initializeMemory(as: UInt8.self, repeating: 0xA5)
        #expect(throws: TransportError.outOfMemory(memory, byteCount: 5 << 20)) {
          _ = try pages.allocate(memory, byteCount: 5 << 20, use: "test")
        }
      }
    }
    for device in bus.devices { #expect(try await echo(device) == 10_000) }
    await bus.disconnect()
    bed.stop()
  }

  /// A page of a channel that is encrypted becomes host-visible under it, and one of the host's private.
  @Test(
    arguments: [(1024, 0x10_0800, true, 0, 1), (1, 0x10_0800, false, 1, 0)]
      as [(ChannelID, GPN, Bool, UInt64, UInt64)])
  func aPageThatChangesInUseIsCounted(
    _ channel: ChannelID, _ page: GPN, _ isVisible: Bool, _ host: UInt64, _ paravisor: UInt64
  ) async throws {
    let bed = try Bed()
    let bus = try await bed.connect()
    let link = bus.core.machine.link
    if !isVisible { try link.setVisibility(firstPage: page, pageCount: 1, isHostVisible: true) }
    let range = try #require(GPADLRange(pages: [page]))
    let (id, actions) = try bus.core.locked { state in
      Result { try state.client.createGPADL(channel, ranges: [range]) }
    }.get()
    #expect(try await bus.core.ask(.gpadl(id)) { _ throws(ControlError) in actions }.isSuccess)
    try link.setVisibility(firstPage: page, pageCount: 1, isHostVisible: isVisible)
    // Its neighbour is nobody's.
    try link.setVisibility(firstPage: page + 1, pageCount: 1, isHostVisible: isVisible)
    await bus.disconnect()
    // Then all guests have left.
    bed.stop()
    #expect(bed.host.visibilityViolations == host)
    #expect(bed.paravisor.visibilityViolations == paravisor)
  }

  /// Of the guest's memory the host sees what it needs for its own channels, and nothing else.
  @Test func theVisibilityMapHoldsWhatItMust() async throws {
    let bed = try Bed()
    let bus = try await bed.connect { $0.maximumWorkers = 1 }
    var uses = bus.hostVisibleUses
    // Two processors with the host's SynIC, each two pages.
    #expect(uses.map(\.use).sorted() == ["SynIC", "SynIC", "hypercall page"])
    #expect(uses.map(\.pages.count).sorted() == [1, 2, 2])
    #expect(uses.allSatisfy { $0.pages.lowerBound >> 34 == 1 })
    let relayed = try #require(bus.devices.first)
    let worker = try Worker(.init(name: "echo"))
    let device = Device(relayed, workers: [worker])
    let channel = try await device.open(ChannelParameters(ringByteCount: 16384), on: worker)
    uses = bus.hostVisibleUses
    #expect(uses.map(\.use).sorted() == ["SynIC", "SynIC", "hypercall page", "ring"])
    #expect(uses.filter { $0.use == "ring" }.map(\.pages.count) == [8])
    _ = consume channel
    await device.close()
    try await eventually { bus.hostVisibleUses.count == 3 }
    worker.stop()
    await bus.disconnect()
    bed.stop()
  }
}

/// Waits until something holds; ten seconds at most.
func eventually(
  _ condition: () async throws -> Bool, location: SourceLocation = #_sourceLocation
) async throws {
  for _ in 0..<1000 {
    if try await condition() { return }
    try await Task.sleep(for: .milliseconds(10))
  }
  Issue.record("it never held", sourceLocation: location)
}
