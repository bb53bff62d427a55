// SPDX-License-Identifier: Apache-2.0

import Platform
public import SimulatedBus
public import StorageVSC
import SystemPackage
import VSC

/// The disks that the untrusted host has for a paravisor: the paravisor is a guest there as any
/// other, and its data is bounced as any other's.
public final class HostDisks: Sendable {
  private let bus: SimulatedBus
  private let worker: Worker
  private let devices: [Device]
  public let disks: [BlockDevice]

  /// Opens the first disk of each storage controller.
  ///
  /// - Parameter configuration: of the paravisor as a guest of that host.
  public static func open(
    path: String, _ configuration: SimulatedBus.Configuration = .init(machine: .isolated)
  ) async throws -> HostDisks {
    var configuration = configuration
    configuration.vtl = 2
    let bus = try await SimulatedBus.connect(path: path, configuration)
    let worker = try Worker(.init(name: "paravisor"))
    var (devices, disks): ([Device], [BlockDevice]) = ([], [])
    do {
      for transport in bus.devices
      where transport.identity.deviceClass == StorageVSC.deviceClass {
        let device = Device(transport, workers: [worker])
        devices.append(device)
        disks.append(try await StorageVSC.open(device, .init(lun: 0)))
      }
    } catch {
      worker.stop()
      for device in devices { await device.close() }
      await bus.disconnect()
      throw error
    }
    return HostDisks(bus, worker, devices, disks)
  }

  private init(
    _ bus: SimulatedBus, _ worker: Worker, _ devices: [Device], _ disks: [BlockDevice]
  ) {
    self.bus = bus
    self.worker = worker
    self.devices = devices
    self.disks = disks
  }

  public func close() async {
    for disk in disks { await disk.close() }
    for device in devices { await device.close() }
    await bus.disconnect()
    worker.stop()
  }
}
