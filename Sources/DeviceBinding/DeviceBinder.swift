// SPDX-License-Identifier: Apache-2.0

import LinuxDevices
import PCIFunction
import VFIOPCI
import VMBus

/// Binds what a person named: a VMBus device, or a PCI function.
public struct DeviceBinder: Sendable {
  private let vmbus: VMBusBinding
  private let pci: PCIBinding
  private let paths: SystemPaths
  private let connection: String?

  /// - Parameter connection: of the operator's own session: what `SSH_CONNECTION` says, where it is set.
  public init(connection: String? = nil) {
    self.init(
      SystemPaths(), VMBusBinding(connection: connection), PCIBinding(), connection: connection)
  }

  package init(
    _ paths: SystemPaths, _ vmbus: VMBusBinding, _ pci: PCIBinding, connection: String? = nil
  ) {
    self.paths = paths
    self.vmbus = vmbus
    self.pci = pci
    self.connection = connection
  }

  /// - Parameter driver: for a VMBus device. Nil for the companion module where it is loaded, and
  ///   otherwise the one that every kernel has; a function goes to vfio-pci.
  public func bind(
    _ device: NamedDevice, to driver: BindableDriver? = nil, force: Bool = false
  ) async throws(BindingError) -> BindingOutcome {
    switch device {
    case .vmbus(let instance):
      return try await vmbus.bind(instance, to: driver ?? best(for: instance), force: force)
    case .pci(let address):
      let before = try record(address)
      guard !before.isBoundToVFIO else { return outcome(address, before, before) }
      let warnings = try obstacles(before, force: force)
      try await changing { () async throws(PCIBindingError) in
        try await pci.bind(address, evenInUse: force)
      }
      return outcome(address, before, try record(address), warnings)
    }
  }

  /// A device that one of the two has already stays there.
  private func best(for instance: GUID) -> BindableDriver {
    let drivers = SysfsDirectory("\(paths.sysfs)/bus/vmbus")
    let now: String? = (try? drivers.directory("devices/\(instance)").linkedName("driver")) ?? nil
    return now.flatMap { BindableDriver(rawValue: $0) }
      ?? (drivers.directory("drivers/\(BindableDriver.module.rawValue)").exists ? .module : .uio)
  }

  /// Takes a device from its driver, and gives it to none.
  public func unbind(
    _ device: NamedDevice, force: Bool = false
  ) async throws(BindingError) -> BindingOutcome {
    switch device {
    case .vmbus(let instance): return try await vmbus.unbind(instance, force: force)
    case .pci(let address):
      let before = try record(address)
      guard before.driver != nil else { return outcome(address, before, before) }
      let warnings = try obstacles(before, force: force)
      try await changing { () async throws(PCIBindingError) in try await pci.unbind(address) }
      return outcome(address, before, try record(address), warnings)
    }
  }

  /// Gives a device back to the driver that the kernel chooses.
  public func restore(
    _ device: NamedDevice, force: Bool = false
  ) async throws(BindingError) -> BindingOutcome {
    switch device {
    case .vmbus(let instance): return try await vmbus.restore(instance, force: force)
    case .pci(let address):
      let before = try record(address)
      let isKept = before.isBoundToVFIO || before.driverOverride != nil
      guard isKept || before.driver == nil else { return outcome(address, before, before) }
      let warnings = before.isBoundToVFIO ? try obstacles(before, force: force) : []
      try await changing { () async throws(PCIBindingError) in try await pci.restore(address) }
      return outcome(address, before, try record(address), warnings)
    }
  }

  // MARK: - PCI functions

  private func record(_ address: PCIAddress) throws(BindingError) -> PCIRecord {
    do throws(DiscoveryError) {
      if let record = try PCIRecord(address, paths) { return record }
    } catch {
      throw .unreadable(error.description)
    }
    throw .pci(.notThere(address))
  }

  private func outcome(
    _ address: PCIAddress, _ before: PCIRecord, _ now: PCIRecord, _ warnings: [String] = []
  ) -> BindingOutcome {
    BindingOutcome(
      device: "\(address)", driver: now.driver, previousDriver: before.driver,
      node: now.isBoundToVFIO ? now.ways(paths).first.map { now.node($0, paths) } : nil,
      isChanged: before.driver != now.driver || before.driverOverride != now.driverOverride,
      warnings: warnings)
  }

  private func obstacles(
    _ record: PCIRecord, force: Bool
  ) throws(BindingError) -> [String] {
    var found: [BindingError] = []
    do throws(DiscoveryError) {
      let uses = try SystemUses(
        of: paths.directory(of: record.address), paths, connection: connection)
      if !uses.all.isEmpty { found.append(.inUse("\(record.address)", by: uses.all)) }
      for way in record.isBoundToVFIO ? record.ways(paths) : [] {
        let node = record.node(way, paths)
        let holders = try NodeHolder.holders(of: node, paths)
        if !holders.isEmpty { found.append(.open(node: node, by: holders, isStranding: false)) }
      }
    } catch {
      throw .unreadable(error.description)
    }
    if let first = found.first, !force { throw first }
    return found.map(\.description)
  }

  private func changing(
    _ body: () async throws(PCIBindingError) -> Void
  ) async throws(BindingError) {
    do throws(PCIBindingError) { try await body() } catch { throw .pci(error) }
  }
}
