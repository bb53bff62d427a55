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
    let known = try? machine.confidentiality(of: record.channel)
    return record.properties(
      identity, on: machine, memoryKnown: known.map { "\($0.source)" },
      [
        DeviceProperty(
          "subchannels", whyNoSubchannels.map { "none: \($0)" } ?? "one for each processor")
      ]
        + record.nodes.map { node in
          DeviceProperty(
            "maps of \(node.name)",
            node.maps.map { "\($0.name) \($0.byteCount) bytes" }.joined(separator: ", "))
        })
  }
}

extension DeviceObstacle {
  init(_ obstacle: Obstacle) { self.init(obstacle.description, remedy: obstacle.remedy) }
}
