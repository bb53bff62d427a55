// SPDX-License-Identifier: Apache-2.0

import VMBus

extension VMBusInventory {
  /// The same without libudev, which looks nowhere but in `/sys`: devices are found by the names that the
  /// kernel gives them. Devices that go away meanwhile are left out.
  package init(_ paths: SystemPaths) throws(DiscoveryError) {
    let bus = SysfsDirectory("\(paths.sysfs)/bus/vmbus")
    var (devices, unreadable): ([VMBusDeviceRecord], [DiscoveryError]) = ([], [])
    for name in try bus.names(in: "devices") {
      let directory = bus.directory("devices/\(name)")
      do throws(DiscoveryError) {
        try devices.append(
          VMBusDeviceRecord(reading: directory, nodes: Self.nodes(below: directory, paths)))
      } catch .vanished {
        continue
      } catch {
        unreadable.append(error)
      }
    }
    self.devices = devices.sorted { $0.channel.rawValue < $1.channel.rawValue }
    self.unreadable = unreadable
    whyNothing = devices.isEmpty && unreadable.isEmpty ? .onThisMachine() : nil
  }

  private static func nodes(
    below device: SysfsDirectory, _ paths: SystemPaths
  ) throws(DiscoveryError) -> [UIODeviceRecord] {
    var found: [UIODeviceRecord] = []
    for name in try device.names(in: "uio") {
      try found.append(
        UIODeviceRecord(
          reading: device.directory("uio/\(name)"), name: name, node: "\(paths.devices)/\(name)"))
    }
    return found
  }
}
