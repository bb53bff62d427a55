// SPDX-License-Identifier: Apache-2.0

import DriverProgram
import VSC

/// What `list` and `show` tell of a device.
struct DeviceReport: Sendable {
  let lines: [DeviceProperty]
  private let identity: DeviceIdentity
  private let driver: String?
  private let status: String

  init(_ device: any DeviceTransport) {
    identity = device.identity
    driver = Self.driver(for: device.identity.deviceClass)
    let obstacle = device.obstacle
    status = Self.status(obstacle, driver)
    let memory = Self.memory(device.identity.confidentiality)
    lines =
      [
        DeviceProperty("relid", "\(identity.channel)"),
        DeviceProperty("class", "\(identity.deviceClass) {\(identity.deviceClass.guid)}"),
        DeviceProperty("instance", "\(identity.instance)"),
        DeviceProperty("transport", identity.transport),
        DeviceProperty("ring", memory.ring),
        DeviceProperty("DMA memory", memory.external),
        DeviceProperty("driver", driver ?? "none"),
        DeviceProperty("status", status),
      ] + (obstacle?.remedy.map { [DeviceProperty("what to do", $0)] } ?? []) + device.properties
  }

  /// The program that drives a class.
  private static func driver(for deviceClass: DeviceClass) -> String? {
    switch deviceClass {
    case .scsi: "vsc-storage"
    case .balloon: "vsc-balloon"
    case .network: "vsc-network"
    default: nil
    }
  }

  private static func status(_ obstacle: DeviceObstacle?, _ driver: String?) -> String {
    if let obstacle { return "not usable: \(obstacle.reason)" }
    return driver == nil ? "not usable: no driver of this project is for its class" : "usable"
  }

  private static func memory(_ confidentiality: Confidentiality?) -> (
    ring: String, external: String
  ) {
    let (hostVisible, encrypted) = (
      "\(MemoryVisibility.hostVisible)", "\(MemoryVisibility.encrypted)"
    )
    return switch confidentiality {
    case .hostVisible: (hostVisible, hostVisible)
    case .ring: (encrypted, hostVisible)
    case .ringAndExternalMemory: (encrypted, encrypted)
    case nil: ("unknown", "unknown")
    }
  }

  var columns: [String] {
    let memory = Self.memory(identity.confidentiality)
    return [
      "\(identity.channel)", "\(identity.deviceClass)", "\(identity.instance)", memory.ring,
      memory.external, driver ?? "-", status,
    ]
  }

  /// Keys as programs like them.
  var json: [String: String] {
    Dictionary(
      lines.map { ($0.name.lowercased().replacing(" ", with: "_"), $0.value) },
      uniquingKeysWith: { first, _ in first })
  }
}
