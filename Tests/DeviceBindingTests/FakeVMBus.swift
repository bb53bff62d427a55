// SPDX-License-Identifier: Apache-2.0

import DeviceBinding
import LinuxDevices
import Platform
import Synchronization
import SystemPackage
import TestSupport
import VMBus

/// A tree of files as the kernel has them for one VMBus device, and what the kernel does when its files are
/// written to.
final class FakeVMBus: Sendable {
  static let scsi = "ba6163d9-04a1-4d29-b605-72e2ffb1dc7f"
  static let network = "f8615163-df3e-46c5-913f-f2d2f965ed0e"
  static let name = "f8b3781a-1e82-4818-a1c3-63d806ec15bb"
  static let device = "sys/bus/vmbus/devices/\(name)"

  let tree: SysfsTree
  /// The driver that the kernel has for the device.
  private let own: String
  private let flaws: Set<Flaw>
  private let log = Lock<[String]>([])

  enum Flaw {
    /// Drivers for user space refuse the device.
    case refuses
    /// They take it, and no node comes.
    case makesNoNode
    /// The kernel's driver does not take it back.
    case takesNothingBack
    /// The kernel has no `driver_override`.
    case hasNoOverride
  }

  init(
    _ deviceClass: String = scsi, driver: String? = "hv_storvsc",
    loaded: [String] = ["uio_hv_generic", "hv_uservsc"], flaws: Set<Flaw> = []
  ) throws {
    tree = try SysfsTree()
    own = deviceClass == Self.network ? "hv_netvsc" : "hv_storvsc"
    self.flaws = flaws
    try tree.write([
      "\(Self.device)/device_id": "{\(Self.name)}", "\(Self.device)/class_id": "{\(deviceClass)}",
      "\(Self.device)/id": "9", "\(Self.device)/state": "2",
      "\(Self.device)/channels/9/subchannel_id": "0",
      "proc/sys/kernel/osrelease": "6.12.107-amd64",
    ])
    if !flaws.contains(.hasNoOverride) {
      try tree.write(["\(Self.device)/driver_override": "(null)"])
    }
    for name in loaded + [own] { try tree.makeDirectory("sys/bus/vmbus/drivers/\(name)") }
    if let driver { try setDriver(driver) }
  }

  var guid: GUID { GUID(Self.name) ?? GUID() }
  var paths: SystemPaths { SystemPaths(below: tree.path) }
  var node: String { "\(paths.devices)/uio0" }

  /// What was written, without the beginning that all paths share.
  var writes: [String] { log.withLock { $0 } }

  var driver: String? {
    (try? SysfsDirectory("\(tree.path)/\(Self.device)").linkedName("driver")) ?? nil
  }

  var override: String? {
    (try? SysfsDirectory("\(tree.path)/\(Self.device)").textIfPresent("driver_override")) ?? nil
  }

  func binding(attempts: Int = 2, connection: String? = nil) -> VMBusBinding {
    VMBusBinding(paths, attempts: attempts, connection: connection) {
      [self] path, text throws(Errno) in
      let name = String(path.dropFirst(tree.path.count + "/sys/bus/vmbus/".count))
      let word = text.last == "\n" ? String(text.dropLast()) : text
      log.withLock {
        $0.append("\(name.replacing("devices/\(Self.name)/", with: "")) \(word)")
      }
      do {
        try take(name, word)
      } catch {
        throw error as? Errno ?? .ioError
      }
    }
  }

  // MARK: - The kernel

  func setDriver(_ name: String?) throws {
    try? tree.remove("\(Self.device)/driver")
    try? tree.remove("\(Self.device)/uio")
    try? tree.remove("dev")
    guard let name else { return }
    try tree.link("\(Self.device)/driver", to: "../../../../bus/vmbus/drivers/\(name)")
    guard !flaws.contains(.makesNoNode) else { return }
    if name == "uio_hv_generic" {
      let maps = "\(Self.device)/uio/uio0/maps"
      for (index, map) in [
        ("txrx_rings", "0x400000"), ("int_page", "0x1000"), ("monitor_page", "0x1000"),
      ].enumerated() {
        try tree.write([
          "\(maps)/map\(index)/name": map.0, "\(maps)/map\(index)/size": map.1,
          "\(maps)/map\(index)/offset": "0x0",
        ])
      }
      try tree.write(["dev/uio0": ""])
    } else if name == "hv_uservsc" {
      try tree.write(["dev/vmbus/\(Self.name)": ""])
    }
  }

  private func take(_ name: String, _ text: String) throws {
    let parts = name.split(separator: "/").map(String.init)
    switch parts.last {
    case "driver_override" where !flaws.contains(.hasNoOverride):
      try tree.write(["\(Self.device)/driver_override": text.isEmpty ? "(null)" : text])
    case "unbind":
      guard driver != nil else { throw Errno.noSuchFileOrDirectory }
      try setDriver(nil)
    case "new_id": try offer(to: parts[1])
    case "remove_id": break
    case "bind":
      guard driver == nil else { throw Errno.resourceBusy }
      try offer(to: parts[1])
      guard driver != nil else { throw Errno.operationNotSupportedByDevice }
    case "drivers_probe" where driver == nil: try offer(to: own)
    case "drivers_probe": break
    default: throw Errno.noSuchFileOrDirectory
    }
  }

  private func offer(to name: String) throws {
    let kept = override == "(null)" ? nil : override
    guard driver == nil, kept == nil || kept == name else { return }
    if flaws.contains(name == own ? .takesNothingBack : .refuses) { return }
    try setDriver(name)
  }
}
