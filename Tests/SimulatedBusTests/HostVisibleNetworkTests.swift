// SPDX-License-Identifier: Apache-2.0

import NetworkVSC
import SimulatedHost
import Synchronization
import TestSupport
import Testing

@testable import SimulatedBus
@testable import VSC

/// The whole of what the host sees of a guest that sends and receives frames, after every commit of a ring:
/// as many bytes of frames as are under way, and none anywhere else. `HostVisibleMemoryTests` is the same
/// for disks.
@Suite(.timeLimit(.minutes(5))) struct HostVisibleNetworkTests {
  /// What the payload of each device's frames is made of. They are odd, as no byte of a header is that is
  /// as large.
  static let secrets: [UInt8] = [0xA7, 0xB7, 0xC7]

  /// A machine with network devices that are moved step by step.
  final class Bed {
    let machine: WatchedMachine
    var nics: [any SteppedNIC] = []
    private var devices: [Device] = []
    private var servers: [SteppedNetServer] = []
    private var interfaces: [NetworkInterface] = []
    let watch: FrameWatch

    init(_ kind: Machine) async throws {
      var vsps: [SteppedNetVSP] = []
      machine = try await WatchedMachine(kind, byteCount: 16 << 20) { instance, flags in
        vsps.append(SteppedNetVSP(instance: instance, flags: flags))
        return vsps[vsps.count - 1]
      }
      for (index, vsp) in vsps.enumerated() {
        let device = try machine.device(index)
        devices.append(device)
        let (nic, server, interface) = try await Self.start(device, vsp)
        nics.append(nic)
        servers.append(server)
        interfaces.append(interface)
      }
      // The host sits where the relayed channel ends.
      let view = try HostView(servers[0].memory, boundary: GuestPages.boundary)
      watch = FrameWatch(view, machine.hostVisibleUses, secrets: HostVisibleNetworkTests.secrets)
    }

    /// The driver starts, while somebody moves its queue and its host.
    private static func start(
      _ device: Device, _ vsp: SteppedNetVSP
    ) async throws -> (any SteppedNIC, SteppedNetServer, NetworkInterface) {
      var configuration = smallNetwork(mtu: SteppedNetVSP.mtu)
      configuration.receiveBufferByteCount = 512 << 10
      configuration.sendBufferByteCount = 64 << 10
      configuration.ringByteCount = 16384
      let user = SteppedUser()
      let opened = Promise<Result<NetworkInterface, any Error>>()
      let task = Task { [configuration] in
        do {
          opened.keep(.success(try await NetworkVSC.open(device, configuration, user: user)))
        } catch {
          opened.keep(.failure(error))
        }
      }
      defer { task.cancel() }
      var server: SteppedNetServer?
      for _ in 0..<10_000 where !opened.isKept {
        if server == nil { server = vsp.server() }
        user.nic?.turn()
        server?.step()
        try await Task.sleep(for: .milliseconds(1))
      }
      try #require(opened.isKept, "the driver did not start")
      let interface = try await opened.value().get()
      return (try #require(user.nic), try #require(server), interface)
    }

    func run(_ index: Int, _ random: inout Numbers) throws {
      try nics[index].run(&random, servers[index], HostVisibleNetworkTests.secrets[index]) {
        watch.look(nics.map(\.exposed))
      }
    }

    func look() { watch.look(nics.map(\.exposed)) }

    func close() async throws {
      // A closed channel is noticed by the next step of its host.
      nics = []
      for server in servers { try await eventually { server.step() == nil } }
      servers = []
      for interface in interfaces { await interface.close() }
      await machine.stop()
    }
  }

  @Test(arguments: [Machine.isolated, .confidential])
  func noMoreIsThereThanIsUnderWay(_ machine: Machine) async throws {
    let bed = try await Bed(machine)
    bed.look()
    var random = Numbers(seed: 17)
    while bed.nics.reduce(0, { $0 + $1.packets }) < 10_000, bed.watch.leaks.isEmpty {
      try bed.run(Int.random(in: bed.nics.indices, using: &random), &random)
    }
    #expect(bed.watch.leaks.isEmpty)
    #expect(bed.watch.looks > 20_000)
    // The host did see what was under way in memory that it sees, and of no other.
    let found = bed.watch.largest
    #expect(found[0] > 1000)
    if machine == .confidential { #expect(found[1] > 1000 && found[2] == 0) }
    try await bed.close()
  }

  /// What is looked for is found, wherever it lies.
  @Test func aLeakIsFound() async throws {
    let bed = try await Bed(.confidential)
    var random = Numbers(seed: 18)
    for index in bed.nics.indices { try bed.run(index, &random) }
    #expect(bed.watch.leaks.isEmpty)
    for use in ["ring", "SynIC", "DMA", "buffer"] {
      let before = bed.watch.leaks.count
      let page = try #require(bed.watch.uses.last { $0.use == use }).pages.lowerBound
      bed.watch.view.plant([UInt8](repeating: 0xC7, count: 16), at: page << 12 + 4000)
      bed.look()
      #expect(bed.watch.leaks.count == before + 1, "in \(use)")
    }
    try await bed.close()
  }
}
