// SPDX-License-Identifier: Apache-2.0

import LinuxDevices
import SystemPackage
public import VMBus
import VMBusLinux

/// Gives VMBus devices to user space, and back to the kernel's drivers.
///
/// A device is kept for its driver by `driver_override`, so that no other device of its class changes hands.
/// Kernels before 4.18 have none for VMBus: there the driver is told of the whole class (`new_id`). What
/// fails halfway, or is cancelled, is undone.
public struct VMBusBinding: Sendable {
  package let paths: SystemPaths
  private let write: SystemWriter
  /// How often the system is asked whether it is done, ten times a second.
  private let attempts: Int
  private let connection: String?

  /// - Parameter connection: of the operator's own session: what `SSH_CONNECTION` says, where it is set.
  public init(connection: String? = nil) {
    self.init(SystemPaths(), attempts: 100, connection: connection, write: writeSystemFile)
  }

  /// For tests, whose kernel is not one.
  package init(
    _ paths: SystemPaths, attempts: Int, connection: String? = nil,
    write: @escaping SystemWriter
  ) {
    self.paths = paths
    self.attempts = attempts
    self.connection = connection
    self.write = write
  }

  // MARK: - To user space

  /// Gives a device to a driver; returns when its node is there. Nothing is done when it has it already.
  ///
  /// - Parameter force: takes a device too that the system uses or somebody has open.
  public func bind(
    _ device: GUID, to wanted: BindableDriver, force: Bool = false
  ) async throws(BindingError) -> BindingOutcome {
    let before = try record(device)
    if before.driver == wanted.rawValue, let node = presentNode(before) {
      return BindingOutcome(
        device: "\(device)", driver: before.driver, previousDriver: before.driver, node: node,
        isChanged: false)
    }
    guard bus.directory("drivers/\(wanted.rawValue)").exists else {
      throw .notLoaded(driver: wanted.rawValue)
    }
    let warnings = try obstacles(before, force: force)
    do throws(BindingError) {
      try await take(before, wanted)
    } catch {
      try undo(before, after: error)
      throw error
    }
    let now = try record(device)
    return BindingOutcome(
      device: "\(device)", driver: now.driver, previousDriver: before.driver,
      node: presentNode(now), isChanged: true, warnings: warnings)
  }

  private func take(
    _ before: VMBusDeviceRecord, _ wanted: BindableDriver
  ) async throws(BindingError) {
    let device = before.instance
    let hasOverride = try set(override: wanted.rawValue, of: device)
    if before.driver != nil, before.driver != wanted.rawValue {
      try put("\(device)", into: file("driver/unbind", of: device))
    }
    // The driver then takes all devices of the class that nobody has: there is no other way.
    if !hasOverride { try tell(wanted.rawValue, "new_id", of: before.deviceClass) }
    try attach(before, to: wanted.rawValue)
    try await settle(device, wanted: wanted.rawValue) {
      $0.driver == wanted.rawValue && presentNode($0) != nil
    }
  }

  /// The driver's own answer is more than `drivers_probe` would say.
  private func attach(
    _ before: VMBusDeviceRecord, to driver: String
  ) throws(BindingError) {
    let device = before.instance
    let path = "\(bus.path)/drivers/\(driver)/bind"
    do throws(Errno) {
      try write(path, "\(device)")
    } catch {
      // Somebody else (udevd, `new_id`) was faster.
      if try record(device).driver == driver { return }
      if error == .notSupportedByKernel, before.monitor == nil {
        throw .refusedByOldKernel("\(device)")
      }
      throw .refused(path: path, code: error.rawValue)
    }
  }

  /// Gives a device back to the driver that it had.
  private func undo(
    _ before: VMBusDeviceRecord, after error: BindingError
  ) throws(BindingError) {
    let device = before.instance
    let hasOverride = (try? set(override: before.driverOverride ?? "", of: device)) ?? true
    if !hasOverride {
      for driver in BindableDriver.allCases where driver.rawValue != before.driver {
        try? tell(driver.rawValue, "remove_id", of: before.deviceClass)
      }
    }
    guard let now = try? record(device), now.driver != before.driver else { return }
    if now.driver != nil { try? put("\(device)", into: file("driver/unbind", of: device)) }
    if let driver = before.driver {
      // It may have had a device that was kept for another one already.
      _ = try? set(override: "", of: device)
      try? put("\(device)", into: "\(bus.path)/drivers/\(driver)/bind")
      _ = try? set(override: before.driverOverride ?? "", of: device)
    }
    if let now = try? record(device), now.driver != before.driver {
      throw .notUndone("\(device)", why: error.description, driver: before.driver)
    }
  }

  // MARK: - To nobody

  /// Takes a device from its driver, and gives it to none.
  public func unbind(
    _ device: GUID, force: Bool = false
  ) async throws(BindingError) -> BindingOutcome {
    let before = try record(device)
    guard before.driver != nil else {
      return BindingOutcome(
        device: "\(device)", driver: nil, previousDriver: nil, isChanged: false)
    }
    let warnings = try obstacles(before, force: force)
    try put("\(device)", into: file("driver/unbind", of: device))
    do throws(BindingError) {
      try await settle(device, wanted: "no driver") { $0.driver == nil }
    } catch .interrupted {
      throw .stoppedWaiting("\(device)")
    }
    return BindingOutcome(
      device: "\(device)", driver: nil, previousDriver: before.driver, isChanged: true,
      warnings: warnings)
  }

  // MARK: - To the kernel

  /// Gives a device back to the driver that the kernel chooses.
  public func restore(
    _ device: GUID, force: Bool = false
  ) async throws(BindingError) -> BindingOutcome {
    let before = try record(device)
    let isInUserSpace = before.isInUserSpace
    if before.driverOverride == nil, before.driver != nil, !isInUserSpace {
      return BindingOutcome(
        device: "\(device)", driver: before.driver, previousDriver: before.driver,
        isChanged: false)
    }
    let warnings = isInUserSpace ? try obstacles(before, force: force) : []
    try set(override: "", of: device)
    if isInUserSpace, let driver = before.driver {
      // It has the device because of its class.
      if before.driverOverride != driver { try tell(driver, "remove_id", of: before.deviceClass) }
      try put("\(device)", into: file("driver/unbind", of: device))
    }
    if try record(device).driver == nil {
      try put("\(device)", into: "\(bus.path)/drivers_probe")
    }
    do throws(BindingError) {
      try await settle(device, wanted: "the kernel's driver") { $0.driver != nil }
    } catch {
      if case .interrupted = error { throw .stoppedWaiting("\(device)") }
      guard case .notSettled = error else { throw error }
      throw .noKernelDriver("\(device)", module: before.deviceClass.kernelModule)
    }
    let now = try record(device)
    return BindingOutcome(
      device: "\(device)", driver: now.driver, previousDriver: before.driver, isChanged: true,
      warnings: warnings)
  }

  // MARK: - Looking

  private var bus: SysfsDirectory { SysfsDirectory("\(paths.sysfs)/bus/vmbus") }

  private func file(_ name: String, of device: GUID) -> String {
    "\(bus.path)/devices/\(device)/\(name)"
  }

  private func record(_ device: GUID) throws(BindingError) -> VMBusDeviceRecord {
    do throws(DiscoveryError) {
      guard let record = try VMBusInventory(paths).device(device) else {
        throw DiscoveryError.vanished(path: "")
      }
      return record
    } catch {
      if case .vanished = error { throw .notThere("\(device)") }
      throw .unreadable(error.description)
    }
  }

  private func presentNode(_ record: VMBusDeviceRecord) -> String? {
    record.node(paths).flatMap { SysfsDirectory($0).exists ? $0 : nil }
  }

  /// What speaks against taking a device from the driver that has it.
  ///
  /// - Returns: the same as sentences, where somebody insists.
  private func obstacles(
    _ record: VMBusDeviceRecord, force: Bool
  ) throws(BindingError) -> [String] {
    var found: [BindingError] = []
    do throws(DiscoveryError) {
      let uses = try SystemUses(
        of: SysfsDirectory(record.path), paths, connection: connection)
      if !uses.all.isEmpty { found.append(.inUse("\(record.instance)", by: uses.all)) }
      if let node = record.node(paths) {
        let holders = try NodeHolder.holders(of: node, paths)
        if !holders.isEmpty {
          found.append(
            .open(
              node: node, by: holders, isStranding: record.driver == BindableDriver.uio.rawValue))
        }
      }
    } catch {
      throw .unreadable(error.description)
    }
    if let first = found.first, !force { throw first }
    return found.map(\.description)
  }

  // MARK: - Writing

  private func put(_ text: String, into path: String) throws(BindingError) {
    do throws(Errno) {
      try write(path, text)
    } catch {
      throw .refused(path: path, code: error.rawValue)
    }
  }

  /// Which driver alone may have a device. An empty value is a newline: sysfs does not hear of a write
  /// of nothing.
  ///
  /// - Returns: whether this kernel knows of that.
  @discardableResult
  private func set(override value: String, of device: GUID) throws(BindingError) -> Bool {
    guard SysfsDirectory(file("driver_override", of: device)).exists else { return false }
    try put(value + "\n", into: file("driver_override", of: device))
    return true
  }

  /// Tells a driver of a class, or that it is not for it any more; it may know that already.
  private func tell(
    _ driver: String, _ name: String, of deviceClass: DeviceClass
  ) throws(BindingError) {
    let path = "\(bus.path)/drivers/\(driver)/\(name)"
    do throws(Errno) {
      try write(path, "\(deviceClass.guid)")
    } catch .fileExists, .operationNotSupportedByDevice, .noSuchFileOrDirectory {
      return
    } catch {
      throw .refused(path: path, code: error.rawValue)
    }
  }

  /// Waits until the system, udevd included, has done what was asked for.
  private func settle(
    _ device: GUID, wanted: String, _ isDone: (VMBusDeviceRecord) -> Bool
  ) async throws(BindingError) {
    for attempt in 0..<max(attempts, 1) {
      if attempt > 0 {
        do { try await Task.sleep(for: .milliseconds(100)) } catch {
          throw .interrupted("\(device)")
        }
      }
      if isDone(try record(device)) { return }
    }
    throw .notSettled("\(device)", driver: try record(device).driver, wanted: wanted)
  }
}
