// SPDX-License-Identifier: Apache-2.0

import VMBus
import VSC

extension VMBusDeviceRecord {
  /// What an operator can be told of a device, whichever driver has it.
  ///
  /// - Parameters:
  ///   - known: who says which memory its channels use.
  ///   - more: what its driver's transport has to add.
  package func properties(
    _ identity: DeviceIdentity, on machine: LinuxMachine, memoryKnown known: String?,
    _ more: [DeviceProperty]
  ) -> [DeviceProperty] {
    var lines: [DeviceProperty] = []
    func add(_ name: String, _ value: String?) {
      if let value, !value.isEmpty { lines.append(DeviceProperty(name, value)) }
    }
    add("data", identity.data(isIsolated: machine.isIsolated))
    add("memory known", known)
    add("kernel says", machine.kernelsWord(on: channel))
    add("isolation", "\(machine.isolation)")
    add("kernel driver", driver ?? "none")
    add("driver override", driverOverride)
    add("network interfaces", networkInterfaces.joined(separator: " "))
    add("disks", blockDevices.joined(separator: " "))
    add("state", "\(state)")
    add("monitor", monitor.map { "\($0.rawValue)" } ?? "none: signalled by hypercall")
    add("channels", channels.map(\.text).joined(separator: ", "))
    lines += more
    add("sysfs", path)
    return lines
  }
}

extension ChannelRecord {
  fileprivate var text: String {
    let place = subchannelIndex == 0 ? "primary" : "subchannel \(subchannelIndex)"
    return "\(channel) (\(place))"
  }
}
