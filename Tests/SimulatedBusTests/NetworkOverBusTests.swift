// SPDX-License-Identifier: Apache-2.0

import NetworkProtocol
import NetworkVSC
import Platform
import SimulatedBus
import SimulatedHost
import Synchronization
import SystemPackage
import Testing
import VSC

/// The network driver and NetVSP, joined by the rings, the GPADLs and the messages of a simulated bus.
@Suite(.timeLimit(.minutes(2))) struct NetworkOverBusTests {
  static let instance: GUID = "8d1f6a2e-59a6-4a4f-93b7-5f60c0e1a0e1"

  /// Nothing of it outlives `close`.
  struct Bed {
    let host: SimulatedHost
    let bus: SimulatedBus
    let workers: [Worker]
    let vsp: NetVSP

    init(
      _ backend: any NetworkBackend, queues: Int = 1, mtu: Int = 1500,
      machine: Machine = .isolated, flags: OfferFlags = []
    ) async throws {
      host = try SimulatedHost(path: socketPath("network"))
      vsp = makeNetVSP(
        backend, instance: NetworkOverBusTests.instance, queues: queues, mtu: mtu, flags: flags)
      host.add(vsp)
      bus = try await SimulatedBus.connect(path: host.path, .init(machine: machine))
      workers = try (0..<queues).map { try Worker(.init(name: "net-\($0)")) }
    }

    func device() throws -> Device {
      Device(try #require(bus.devices.first), workers: workers)
    }

    func close() async {
      await bus.disconnect()
      for worker in workers { worker.stop() }
      host.stop()
    }
  }

  /// Looks until it holds, at most half a minute.
  private func eventually(_ condition: () async -> Bool) async throws -> Bool {
    for _ in 0..<3000 {
      if await condition() { return true }
      try await Task.sleep(for: .milliseconds(10))
    }
    return false
  }

  @Test func interfaceIsWhatTheHostOffers() async throws {
    let bed = try await Bed(LoopbackBackend(), queues: 2)
    let device = try await NetworkDevice.open(bed.device(), smallNetwork())
    let information = device.information
    #expect(information.version == .v61)
    #expect(information.macAddress.description == "02:15:5d:01:02:03")
    #expect(information.mtu == 1500 && information.isLinkUp && information.queueCount == 2)
    #expect(information.linkSpeed == 10_000_000_000)
    #expect(information.receiveBuffer.sectionCount > 1000)
    #expect(information.sendBuffer.sectionByteCount == 6144)
    await device.close()
    #expect(device.interface.ended == .channel(.ended(.closed)))
    await bed.close()
  }

  @Test(arguments: [60, 1514]) func framesComeBack(byteCount: Int) async throws {
    let bed = try await Bed(LoopbackBackend())
    let counts = LoopCounts()
    let interface = try await NetworkVSC.open(
      bed.device(), smallNetwork(),
      user: LoopUser(counts: counts, sends: 20_000, frameByteCount: byteCount))
    let sent = try await eventually { counts.all[0]?.sent == 20_000 }
    #expect(sent)
    // The loop may drop what it has no room for, but never mixes frames up.
    let back = try await eventually { counts.received > 1000 }
    #expect(back && counts.all[0]?.wrong == 0)
    let quiet = try await eventually {
      let all = await interface.statistics()
      return all.allSatisfy {
        $0.sendsUnderWay == 0 && $0.buffersOut == 0 && $0.completionsPending == 0
      }
    }
    #expect(quiet, "each packet buffer was given back, by both ends")
    let statistics = try #require(await interface.statistics().first)
    #expect(
      statistics.sentPackets == 20_000 && statistics.refused == 0 && statistics.malformed == 0)
    #expect(statistics.channel.unknownCompletions == 0)
    #expect(statistics.sections < statistics.sentPackets, "several frames to a section")
    await interface.close()
    await bed.close()
  }

  @Test func generatorFillsTwoQueues() async throws {
    let bed = try await Bed(GeneratorBackend(byteCount: 64), queues: 2)
    let counts = LoopCounts()
    let interface = try await NetworkVSC.open(
      bed.device(), smallNetwork(), user: LoopUser(counts: counts, sends: 0, frameByteCount: 60))
    let both = try await eventually {
      counts.all.count == 2 && counts.all.values.allSatisfy { $0.received > 20_000 }
    }
    #expect(both)
    // A flow stays on its queue.
    let ports = [0, 1].map { counts.all[$0]?.ports ?? [] }
    #expect(ports[0].isDisjoint(with: ports[1]) && !ports[0].isEmpty && !ports[1].isEmpty)
    // With an empty filter the host falls silent, and all buffers are its own again.
    try await interface.setFilter([])
    let quiet = try await eventually {
      await interface.statistics().allSatisfy { $0.buffersOut == 0 && $0.completionsPending == 0 }
    }
    #expect(quiet)
    let statistics = await interface.statistics()
    #expect(statistics.count == 2)
    for queue in statistics {
      #expect(queue.malformed == 0, "\(String(describing: queue.lastFault))")
    }
    await interface.close()
    await bed.close()
  }

  @Test func sinkTakesWhatTwoQueuesSend() async throws {
    let bed = try await Bed(GeneratorBackend.sink, queues: 2)
    let counts = LoopCounts()
    let interface = try await NetworkVSC.open(
      bed.device(), smallNetwork(),
      user: LoopUser(counts: counts, sends: 50_000, frameByteCount: 60)
    )
    let sent = try await eventually {
      await interface.statistics().allSatisfy {
        $0.sentPackets == 50_000 && $0.sendsUnderWay == 0
      }
    }
    #expect(sent)
    let statistics = await interface.statistics()
    #expect(statistics.count == 2 && statistics.allSatisfy { $0.refused == 0 })
    await interface.close()
    await bed.close()
  }

  @Test(arguments: Machine.allCases) func tasksSendAndReceive(machine: Machine) async throws {
    let bed = try await Bed(
      LoopbackBackend(), queues: 2, mtu: 9000, machine: machine,
      flags: machine == .confidential ? .confidential : [])
    let device = try await NetworkDevice.open(bed.device(), smallNetwork(mtu: 9000))
    for count in [60, 1514, 6100, 6144, 9014] {
      var frame = (0..<count).map { UInt8(truncatingIfNeeded: $0 &* 13) }
      frame.replaceSubrange(
        0..<14, with: [0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 2, 0, 0, 0, 0, 9, 0x88, 0xB5])
      try await device.send(frame)
      let back = await device.receive()
      #expect(back?.bytes == frame)
    }
    let statistics = await device.interface.statistics()
    #expect(statistics.reduce(0) { $0 + $1.directSends } == 2)
    await device.close()
    let last = await device.receive()
    #expect(last == nil)
    do throws(NetworkError) {
      try await device.send([UInt8](repeating: 0, count: 60))
      Issue.record("a frame was sent by a device that is closed")
    } catch {
      #expect(error == .channel(.ended(.closed)))
    }
    await bed.close()
  }

  @Test func linkAndVirtualFunctionAreTold() async throws {
    let bed = try await Bed(LoopbackBackend(), machine: .plain)
    let told = EventList()
    let device = try await NetworkDevice.open(bed.device(), smallNetwork()) { told.add($0) }
    bed.vsp.setLinkUp(false)
    let down = try await eventually { told.all.contains(.linkDown) && !device.information.isLinkUp }
    #expect(down)
    bed.vsp.setLinkUp(true)
    bed.vsp.setVirtualFunction(7)
    let offered = try await eventually { told.all.contains(.virtualFunctionOffered(serial: 7)) }
    #expect(offered && told.all.contains(.linkUp))
    try await device.interface.switchDataPath(.virtualFunction)
    #expect(device.information.dataPath == .virtualFunction)
    try await device.interface.switchDataPath(.synthetic)
    bed.vsp.setVirtualFunction(nil)
    let revoked = try await eventually { told.all.contains(.virtualFunctionRevoked) }
    #expect(revoked)
    await device.close()
    #expect(told.all.last == .ended(.channel(.ended(.closed))))
    await bed.close()
  }

  @Test func hostThatGoesEndsTheDevice() async throws {
    let bed = try await Bed(GeneratorBackend(byteCount: 64), queues: 2)
    let counts = LoopCounts()
    let interface = try await NetworkVSC.open(
      bed.device(), smallNetwork(), user: LoopUser(counts: counts, sends: 0, frameByteCount: 60))
    let running = try await eventually { counts.received > 1000 }
    #expect(running)
    bed.host.stop()
    let end = await interface.waitUntilEnded()
    guard case .channel(.ended) = end else {
      Issue.record("\(end)")
      return
    }
    await interface.close()
    await bed.close()
  }
}

final class EventList: Sendable {
  private let list = Lock<[NetworkEvent]>([])
  func add(_ event: NetworkEvent) { list.withLock { $0.append(event) } }
  var all: [NetworkEvent] { list.withLock { $0 } }
}
