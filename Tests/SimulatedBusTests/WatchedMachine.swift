// SPDX-License-Identifier: Apache-2.0

import Platform
import SimulatedHost
import Synchronization
import TestSupport
import Testing

@testable import SimulatedBus
@testable import VSC

/// A guest with one device of its host, or a guest with a paravisor and a device of each kind: relayed, with
/// an encrypted ring, all encrypted.
final class WatchedMachine {
  static let instances: [GUID] = [
    "8d1f6a2e-59a6-4a4f-93b7-5f60c0e1a011", "8d1f6a2e-59a6-4a4f-93b7-5f60c0e1a012",
    "8d1f6a2e-59a6-4a4f-93b7-5f60c0e1a013",
  ]

  let host: SimulatedHost
  let paravisor: SimulatedHost?
  let bus: SimulatedBus
  /// The guest's.
  let worker: Worker

  /// - Parameter makeVSP: a device with these flags. The host's comes first.
  init(
    _ machine: Machine, byteCount: Int, _ makeVSP: (GUID, OfferFlags) throws -> any VSP
  ) async throws {
    host = try SimulatedHost(path: socketPath("watched"))
    host.add(try makeVSP(Self.instances[0], []))
    if machine == .confidential {
      var configuration = SimulatedHost.Configuration()
      configuration.hostPath = host.path
      configuration.leaves = IsolatedMachine(
        kind: .sevSNP, hasParavisor: true, offersConfidentialVMBus: true
      ).leaves(boundaryBit: 46)
      let paravisor = try SimulatedHost(path: socketPath("watching"), configuration)
      paravisor.add(try makeVSP(Self.instances[1], .confidentialRingBuffer))
      paravisor.add(try makeVSP(Self.instances[2], .confidential))
      self.paravisor = paravisor
    } else {
      paravisor = nil
    }
    worker = try Worker(.init(name: "watched"))
    var configuration = SimulatedBus.Configuration(machine: machine)
    configuration.memoryByteCount = byteCount
    configuration.maximumWorkers = 1
    bus = try await SimulatedBus.connect(path: (paravisor ?? host).path, configuration)
  }

  func device(_ index: Int) throws -> Device {
    let instance = Self.instances[index]
    return Device(
      try #require(bus.devices.first { $0.identity.instance == instance }), workers: [worker])
  }

  /// What the guest has made host-visible, by page numbers without the boundary bit.
  var hostVisibleUses: [(pages: Range<GPN>, use: String)] {
    var uses = bus.hostVisibleUses.map { entry in
      let (first, end) = (entry.pages.lowerBound, entry.pages.upperBound)
      return (first & ~GuestPages.boundary..<end & ~GuestPages.boundary, entry.use)
    }
    // The paravisor's own, by which the host talks to it.
    if paravisor != nil { uses.append((1 << 35..<1 << 35 + 2, "SynIC")) }
    return uses
  }

  func stop() async {
    await bus.disconnect()
    worker.stop()
    paravisor?.stop()
    host.stop()
  }
}
