// SPDX-License-Identifier: Apache-2.0

import LinuxDevices
import PCIFunction
import VFIOPCI
import VMBus
import VMBusLinux
import VMBusUIO

extension Doctor {
  /// Devices that somebody gave to user space, or meant to; of all others only how many there are.
  var vmbusDevices: [Finding] {
    guard bus.exists else { return [] }
    let (inventory, kernel): (VMBusInventory, KernelFacts)
    do throws(DiscoveryError) {
      (inventory, kernel) = (try VMBusInventory(paths), try KernelFacts.running(paths))
    } catch {
      return [Finding("devices", .fault, "\(error)")]
    }
    var found = inventory.unreadable.map { Finding("devices", .fault, "\($0)") }
    let ours = inventory.devices.filter {
      $0.isInUserSpace || $0.driverOverride.flatMap(BindableDriver.init(rawValue:)) != nil
    }
    if ours.isEmpty {
      found.append(
        Finding(
          "devices", .ok, "none is bound for user space",
          remedy: inventory.devices.isEmpty ? nil : "vmbusctl bind DEVICE"))
    }
    for device in ours {
      do throws(DiscoveryError) {
        found.append(try finding(device, kernel))
      } catch {
        found.append(Finding("\(device.instance)", .fault, "\(error)"))
      }
    }
    return found
  }

  private func finding(
    _ device: VMBusDeviceRecord, _ kernel: KernelFacts
  ) throws(DiscoveryError) -> Finding {
    let (name, kind) = ("\(device.instance)", "\(device.deviceClass)")
    guard let driver = device.bindableDriver else {
      let wanted = device.driverOverride ?? "?"
      return Finding(
        name, .fault,
        "\(kind): kept for \(wanted), and with \(device.driver.map { "the driver \($0)" } ?? "no driver")",
        remedy: "vmbusctl bind \(name) --driver \(wanted), or vmbusctl restore \(name)")
    }
    switch driver {
    case .uio:
      let obstacle = try device.obstacle(kernel) { path throws(DiscoveryError) in
        try NodeFacts(ofNode: path)
      }
      return switch obstacle {
      case nil: Finding(name, .ok, "\(kind): \(device.node(paths) ?? "") is free for a driver")
      case .binding(.locked(let node, let process)):
        Finding(name, .ok, "\(kind): process \(process) drives it by \(node)")
      case .openAlready: try openFinding(device, kind)
      case let obstacle?: Finding(name, .fault, "\(kind): \(obstacle)", remedy: obstacle.remedy)
      }
    case .module:
      let node = device.node(paths) ?? ""
      let obstacle = NodeFacts.obstacle(
        try NodeFacts(ofNode: node), node: node, subsystem: driver.rawValue)
      return switch obstacle {
      case nil: Finding(name, .ok, "\(kind): \(node)")
      case .locked(_, let process):
        Finding(name, .ok, "\(kind): process \(process) drives it by \(node)")
      case let obstacle?: Finding(name, .fault, "\(kind): \(obstacle)", remedy: obstacle.remedy)
      }
    }
  }

  /// Its channel is open, and nobody has the node's lock: who has it open tells a program that takes none
  /// from a channel that is lost.
  private func openFinding(
    _ device: VMBusDeviceRecord, _ kind: String
  ) throws(DiscoveryError) -> Finding {
    let node = device.node(paths) ?? ""
    let holders = try NodeHolder.holders(of: node, paths)
    if !holders.isEmpty {
      return Finding(
        "\(device.instance)", .warning,
        "\(kind): \(NodeHolder.list(holders)) has \(node) open without a lock")
    }
    return Finding(
      "\(device.instance)", .fault,
      "\(kind): its channel is open, and no process that can be seen has \(node): it was unbound while it was in use, and Linux never closes it",
      remedy: isRoot ? "restart this machine (reboot)" : "sudo vmbusctl doctor sees all processes")
  }

  /// Functions that are with VFIO, or are meant to be.
  var functions: [Finding] {
    let records = (try? PCIRecord.all(paths)) ?? []
    return records.filter { $0.isBoundToVFIO || $0.driverOverride == PCIRecord.vfioDriver }.map {
      function in
      do throws(VFIOObstacle) {
        let way = try function.way(nil, paths)
        return Finding(
          "\(function.address)", .ok, "PCI function: \(function.node(way, paths)) (\(way.rawValue))"
        )
      } catch {
        return Finding(
          "\(function.address)", .fault, "PCI function: \(error)", remedy: error.remedy)
      }
    }
  }
}
