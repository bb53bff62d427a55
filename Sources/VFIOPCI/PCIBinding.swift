// SPDX-License-Identifier: Apache-2.0

import CLinux
public import LinuxDevices
public import PCIFunction
import SystemPackage
import VMBus

/// Gives PCI functions to VFIO, and back to the kernel's drivers.
///
/// A function is kept for its driver by `driver_override`, so that no other function of its kind changes
/// hands. What fails halfway is undone.
public struct PCIBinding: Sendable {
  private let paths: SystemPaths
  private let write: Writer
  /// How often the system is asked whether it is done, ten times a second.
  private let attempts: Int

  /// Writes a text to a file of the system.
  package typealias Writer = @Sendable (_ path: String, _ text: String) throws(Errno) -> Void

  public init(_ paths: SystemPaths = SystemPaths()) {
    self.init(paths, attempts: 50) { path, text throws(Errno) in
      let bytes = Array(text.utf8)
      let result = unsafe vmbus_write_file(path, bytes, bytes.count)
      guard result == 0 else { throw Errno(rawValue: -result) }
    }
  }

  /// For tests, whose kernel is not one.
  package init(_ paths: SystemPaths, attempts: Int, write: @escaping Writer) {
    self.paths = paths
    self.attempts = attempts
    self.write = write
  }

  // MARK: - To VFIO

  /// Gives a function to VFIO; returns when it can be opened. Nothing is done when VFIO has it already.
  ///
  /// A disk that the system uses stays where it is.
  ///
  /// - Parameter evenInUse: takes that one, too.
  /// - Throws: what is in the way, or that the task was cancelled. The function is then with the driver
  ///   that had it before.
  public func bind(
    _ address: PCIAddress, evenInUse: Bool = false
  ) async throws(PCIBindingError) {
    let before = try record(address)
    guard !before.isBoundToVFIO else { return }
    guard SysfsDirectory("\(paths.sysfs)/bus/pci/drivers/\(PCIRecord.vfioDriver)").exists else {
      throw .noDriver(PCIRecord.vfioDriver)
    }
    let inUse = evenInUse ? [] : try disksInUse(address)
    guard inUse.isEmpty else { throw .inUse(address, by: inUse) }
    do throws(PCIBindingError) {
      try set("driver_override", of: address, to: PCIRecord.vfioDriver)
      if before.driver != nil { try put("\(address)", into: file("driver/unbind", of: address)) }
      try probe(address)
      try await settle(address) { $0.isBoundToVFIO && !$0.ways(paths).isEmpty }
    } catch {
      await undo(before)
      throw error
    }
  }

  /// Gives a function back to the driver that it had, or to the one that the kernel chooses.
  private func undo(_ before: PCIRecord) async {
    let address = before.address
    try? set("driver_override", of: address, to: before.driverOverride ?? "")
    let now = try? record(address)
    if now?.driver != before.driver {
      if now?.driver != nil { try? put("\(address)", into: file("driver/unbind", of: address)) }
      if let driver = before.driver {
        try? put("\(address)", into: "\(paths.sysfs)/bus/pci/drivers/\(driver)/bind")
      }
    }
  }

  // MARK: - Back

  /// Takes a function from VFIO, and lets the kernel choose its driver. It waits for programs that have
  /// the function open, for as long as the kernel does.
  public func restore(_ address: PCIAddress) async throws(PCIBindingError) {
    let before = try record(address)
    try set("driver_override", of: address, to: "")
    if before.isBoundToVFIO { try put("\(address)", into: file("driver/unbind", of: address)) }
    try probe(address)
    try await settle(address) { !$0.isBoundToVFIO && $0.driverOverride == nil }
  }

  /// Takes a function from the driver that has it, and gives it to none.
  public func unbind(_ address: PCIAddress) async throws(PCIBindingError) {
    guard try record(address).driver != nil else { return }
    try put("\(address)", into: file("driver/unbind", of: address))
    try await settle(address) { $0.driver == nil }
  }

  // MARK: - Steps

  private func record(_ address: PCIAddress) throws(PCIBindingError) -> PCIRecord {
    do throws(DiscoveryError) {
      guard let record = try PCIRecord(address, paths) else {
        throw DiscoveryError.vanished(path: "")
      }
      return record
    } catch {
      if case .vanished = error { throw .notThere(address) }
      throw .unreadable(error.description)
    }
  }

  private func file(_ name: String, of address: PCIAddress) -> String {
    "\(paths.directory(of: address).path)/\(name)"
  }

  private func put(_ text: String, into path: String) throws(PCIBindingError) {
    do throws(Errno) {
      try write(path, text)
    } catch {
      throw .refused(path: path, code: error.rawValue)
    }
  }

  /// An empty value is a newline: sysfs does not hear of a write of nothing.
  private func set(
    _ name: String, of address: PCIAddress, to value: String
  ) throws(PCIBindingError) {
    try put(value + "\n", into: file(name, of: address))
  }

  private func probe(_ address: PCIAddress) throws(PCIBindingError) {
    try put("\(address)", into: "\(paths.sysfs)/bus/pci/drivers_probe")
  }

  /// Waits until the system, udevd included, has done what was asked for.
  private func settle(
    _ address: PCIAddress, _ isDone: (PCIRecord) -> Bool
  ) async throws(PCIBindingError) {
    for attempt in 0..<max(attempts, 1) {
      if attempt > 0 {
        do { try await Task.sleep(for: .milliseconds(100)) } catch { throw .interrupted(address) }
      }
      let now = try record(address)
      if isDone(now) && areNodesThere(now) { return }
    }
    let now = try record(address)
    throw .notSettled(address, driver: now.driver, hasIOMMU: now.group != nil)
  }

  private func areNodesThere(_ record: PCIRecord) -> Bool {
    !record.isBoundToVFIO
      || record.ways(paths).contains { SysfsDirectory(record.node($0, paths)).exists }
  }

  private func disksInUse(_ address: PCIAddress) throws(PCIBindingError) -> [String] {
    do throws(DiscoveryError) {
      return try DisksInUse(below: paths.directory(of: address), paths).uses
    } catch {
      throw .unreadable(error.description)
    }
  }
}

/// Why a function did not change hands: a line for a person.
public enum PCIBindingError: Error, Equatable, Sendable, CustomStringConvertible {
  case notThere(PCIAddress)
  case noDriver(String)
  /// The system uses disks of it: what, and for what.
  case inUse(PCIAddress, by: [String])
  case refused(path: String, code: Int32)
  /// The system has accepted it all, and nothing came of it.
  case notSettled(PCIAddress, driver: String?, hasIOMMU: Bool)
  /// The task was cancelled.
  case interrupted(PCIAddress)
  case unreadable(String)

  public var description: String {
    switch self {
    case .notThere(let address): "there is no PCI function \(address)"
    case .noDriver(let driver): "the kernel module \(driver) is not loaded"
    case .inUse(let address, let uses):
      "the system uses \(address): \(uses.joined(separator: ", "))"
    case .refused(let path, let code): "\(path): \(Errno(rawValue: code))"
    case .notSettled(let address, let driver, _):
      "\(address) is with \(driver.map { "the driver \($0)" } ?? "no driver") all the same"
    case .interrupted(let address): "\(address): interrupted"
    case .unreadable(let text): text
    }
  }

  /// What to do, where something can be done.
  public var remedy: String? {
    switch self {
    case .noDriver(let driver): "modprobe \(driver)"
    case .inUse: "unmount it (umount, swapoff, vgchange -an) first; the system's own disk stays"
    case .refused(_, let code) where Errno(rawValue: code) == .permissionDenied: "run as root"
    case .notSettled(let address, _, hasIOMMU: false):
      VFIOObstacle.noIOMMU(address).remedy
    case .notSettled: "look at the kernel's log (dmesg)"
    default: nil
    }
  }
}
