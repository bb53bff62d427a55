// SPDX-License-Identifier: Apache-2.0

import VMBus
import VMBusLinux
import VSC

/// What an operator can ask of a device of this machine. Nothing is opened for it: opening the node
/// would open the channel.
extension UIODevice {
  var obstacle: DeviceObstacle? {
    do throws(DiscoveryError) {
      if let obstacle = try record.obstacle() { return DeviceObstacle(obstacle) }
    } catch {
      return DeviceObstacle("\(error)")
    }
    if record.monitor != nil, machine.isIsolated { return DeviceObstacle(UIODriver.noDoorbell) }
    do throws(ConfidentialityUnknown) {
      let memory = try machine.confidentiality(of: record.channel).value
      guard memory == .hostVisible, let path = record.ringFile,
        let facts = try? NodeFacts(ofNode: path), !facts.isAccessible
      else { return nil }
      return DeviceObstacle("no permission on \(path)", remedy: UIOFile.ringFileNeed)
    } catch {
      return DeviceObstacle(Obstacle.confidentialityUnknown(error))
    }
  }

  var properties: [DeviceProperty] {
    var lines: [DeviceProperty] = []
    func add(_ name: String, _ value: String?) {
      if let value, !value.isEmpty { lines.append(DeviceProperty(name, value)) }
    }
    let known = try? machine.confidentiality(of: record.channel)
    add("memory known", known.map { "\($0.source)" })
    add("kernel says", machine.kernelsWord(on: record.channel))
    add("isolation", "\(machine.isolation)")
    add("kernel driver", record.driver ?? "none")
    add("driver override", record.driverOverride)
    add("network interfaces", record.networkInterfaces.joined(separator: " "))
    add("disks", record.blockDevices.joined(separator: " "))
    add("state", "\(record.state)")
    add("monitor", record.monitor.map { "\($0.rawValue)" } ?? "none: signalled by hypercall")
    add("channels", record.channels.map(Self.text).joined(separator: ", "))
    for node in record.nodes {
      add(
        "maps of \(node.name)",
        node.maps.map { "\($0.name) \($0.byteCount) bytes" }.joined(separator: ", "))
    }
    add("sysfs", record.path)
    return lines
  }

  private static func text(_ channel: ChannelRecord) -> String {
    let place = channel.subchannelIndex == 0 ? "primary" : "subchannel \(channel.subchannelIndex)"
    return "\(channel.channel) (\(place))"
  }
}

extension DeviceObstacle {
  init(_ obstacle: Obstacle) { self.init(obstacle.description, remedy: obstacle.remedy) }
}
