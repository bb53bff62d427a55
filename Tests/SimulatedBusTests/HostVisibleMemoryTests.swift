// SPDX-License-Identifier: Apache-2.0

import SimulatedHost
import StorageVSC
import Synchronization
import TestSupport
import Testing

@testable import SimulatedBus
@testable import VSC

/// The whole of what the host sees of a guest is compared after every commit of a ring, with a model of
/// what may be there. One thread moves guest and host, step by step, so that nothing happens between a
/// commit and the look.
@Suite(.timeLimit(.minutes(5))) struct HostVisibleMemoryTests {
  static let secrets = ["relayed-secret-1", "in-ring-secret-2", "all-enc-secret-3"].map {
    Array($0.utf8)
  }

  /// A machine with disks that are moved step by step.
  final class Bed {
    let machine: WatchedMachine
    private var devices: [Device] = []
    private var servers: [SteppedServer] = []
    var disks: [any SteppedDisk] = []
    let watch: HostWatch

    init(_ kind: Machine, isScrubbed: Bool = true) async throws {
      var vsps: [SteppedVSP] = []
      machine = try await WatchedMachine(kind, byteCount: 8 << 20) { instance, flags in
        vsps.append(try SteppedVSP(instance: instance, flags: flags))
        return vsps[vsps.count - 1]
      }
      for (index, vsp) in vsps.enumerated() {
        let device = try machine.device(index)
        let opened = try await device.open(
          ChannelParameters(ringByteCount: 16384), on: machine.worker)
        servers.append(try vsp.server())
        disks.append(
          try Self.disk(
            device, opened, servers[index], HostVisibleMemoryTests.secrets[index], isScrubbed))
        devices.append(device)
      }
      for disk in disks { try disk.start() }
      // The host sits where the relayed channel ends.
      let view = try HostView(servers[0].memory, boundary: GuestPages.boundary)
      watch = HostWatch(
        view, machine.hostVisibleUses, secrets: HostVisibleMemoryTests.secrets)
    }

    private static func disk(
      _ device: Device, _ opened: consuming OpenedChannel, _ server: SteppedServer,
      _ secret: [UInt8], _ isScrubbed: Bool
    ) throws -> any SteppedDisk {
      switch consume opened {
      case .hostVisible(let channel):
        return try SteppedStorage(channel, pool(device, isScrubbed), server, secret: secret)
      case .encryptedRing(let channel):
        return try SteppedStorage(channel, pool(device, isScrubbed), server, secret: secret)
      case .encrypted(let channel):
        return try SteppedStorage(channel, pool(device, isScrubbed), server, secret: secret)
      }
    }

    private static func pool<Memory: Visibility>(
      _ device: Device, _ isScrubbed: Bool
    ) throws -> DMAPool<Memory> {
      if isScrubbed { return try device.makePool(count: 5, byteCount: 8192) }
      let pages = try device.transport.allocate(Memory.memory, byteCount: 5 * 8192)
      return unsafe DMAPool(
        DMAPages(
          start: pages.start, byteCount: pages.byteCount, pageNumbers: pages.pageNumbers,
          isScrubbed: false, owner: pages.owner), bufferByteCount: 8192)
    }

    /// The guest lets go of the disks, and has its memory back.
    func closeDisks() async throws {
      disks = []
      for server in servers { try await eventually { !server.run() } }
      servers = []
      for device in devices { await device.close() }
      devices = []
    }

    func close() async throws {
      try await closeDisks()
      await machine.stop()
    }
  }

  @Test(arguments: [Machine.isolated, .confidential])
  func nothingIsThereButWhatMustBe(_ machine: Machine) async throws {
    let bed = try await Bed(machine)
    let watch = bed.watch
    let always: Set = machine == .isolated ? ["SynIC"] : ["SynIC", "hypercall page"]
    #expect(Set(watch.uses.map(\.use)) == always.union(["ring", "DMA"]))
    watch.look()
    var random = Numbers(seed: 7)
    while bed.disks.reduce(0, { $0 + $1.packets }) < 10_000, watch.leaks.isEmpty {
      try bed.disks[Int.random(in: bed.disks.indices, using: &random)].run(&random, watch)
    }
    #expect(watch.leaks.isEmpty)
    // After each request, each answer, and each completion.
    #expect(watch.looks > 30_000)
    // Nothing is left when the disks are gone, the rings neither.
    try await bed.closeDisks()
    try await eventually { bed.machine.bus.hostVisibleUses.allSatisfy { always.contains($0.use) } }
    watch.look()
    for page in watch.view.pagesInUse {
      let use = watch.use(of: page)
      #expect(use.map(always.contains) == true, "page \(page) was for \(use ?? "nothing")")
    }
    #expect(watch.leaks.isEmpty)
    try await bed.close()
  }

  /// What is looked for is found, wherever it lies.
  @Test func aLeakIsFound() async throws {
    let bed = try await Bed(.confidential)
    let watch = bed.watch
    var random = Numbers(seed: 8)
    for disk in bed.disks { try disk.run(&random, watch) }
    #expect(watch.leaks.isEmpty)
    typealias Leak = HostWatch.Leak
    var expected: [Leak] = []
    func plant(_ bytes: [UInt8], _ page: GPN?, _ kind: Leak.Kind?) {
      guard let page else {
        Issue.record("there is no such page")
        return
      }
      watch.view.plant(bytes, at: page << 12 + 4096 - UInt64(bytes.count))
      watch.look()
      if let kind { expected.append(Leak(page: page, use: watch.use(of: page), kind: kind)) }
      #expect(watch.leaks == expected)
    }
    let ranges = watch.uses.map(\.pages)
    for (use, kind) in [("ring", Leak.Kind.secret), ("SynIC", .secret), ("DMA", .unexpected)] {
      let page = watch.uses.first { $0.use == use }?.pages.lowerBound
      for secret in Self.secrets { plant(secret, page, kind) }
    }
    // A single bit is enough where nothing belongs.
    for use in ["DMA", "hypercall page"] {
      plant([1], watch.uses.last { $0.use == use }?.pages.lowerBound, .unexpected)
    }
    plant([1], watch.view.freePage(isVisible: true, except: ranges), .unexpected)
    plant([1], watch.view.freePage(isVisible: false, except: ranges), .notVisible)
    // A packet is no leak.
    plant([1], watch.uses.first { $0.use == "ring" }?.pages.lowerBound, nil)
    try await bed.close()
  }

  /// A guest that does not scrub what it exposed.
  @Test(arguments: [Machine.isolated, .confidential])
  func dataThatStaysIsFound(_ machine: Machine) async throws {
    let bed = try await Bed(machine, isScrubbed: false)
    var random = Numbers(seed: 9)
    for (index, disk) in bed.disks.enumerated() {
      let before = bed.watch.leaks.count
      for _ in 0..<8 { try disk.run(&random, bed.watch) }
      let leaks = bed.watch.leaks.dropFirst(before)
      // Encrypted memory needs no scrubbing.
      #expect(leaks.isEmpty == (index == 2))
      #expect(leaks.allSatisfy { $0.use == "DMA" && $0.kind == .unexpected })
    }
    try await bed.close()
  }
}
