// SPDX-License-Identifier: Apache-2.0

import VMBus

extension VMBusInventory {
  /// The same without libudev, which looks nowhere but in `/sys`: devices are found by the names that the
  /// kernel gives them. Devices that go away meanwhile are left out.
  package init(_ paths: SystemPaths) throws(DiscoveryError) {
    let bus = SysfsDirectory("\(paths.sysfs)/bus/vmbus")
    let directories = try bus.names(in: "devices").map { bus.directory("devices/\($0)") }
    self.init(directories) { directory throws(DiscoveryError) in
      try Self.nodes(below: directory, paths)
    }
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
