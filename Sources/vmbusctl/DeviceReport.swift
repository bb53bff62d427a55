// SPDX-License-Identifier: Apache-2.0

import DriverProgram
import VSC

/// What `list` and `show` tell of a device.
struct DeviceReport: Sendable {
  let lines: [DeviceProperty]
  let columns: [String]

  /// - Parameters:
  ///   - obstacle: why it is not usable, where that is known.
  ///   - more: what else is known, for people.
  init(
    _ device: DeviceSummary, obstacle: String?, more: [DeviceProperty]
  ) {
    let driver = Self.driver(for: device.deviceClass)
    let status = Self.status(driver, obstacle)
    let memory = device.confidentiality.map { Self.memory($0) }
    let ring = memory.map { "\($0.ring)" } ?? "unknown"
    let external = memory.map { "\($0.external)" } ?? "unknown"
    columns = [
      "\(device.channel)", "\(device.deviceClass)", "\(device.instance)", ring, external,
      driver ?? "-", status,
    ]
    lines =
      [
        DeviceProperty("relid", "\(device.channel)"),
        DeviceProperty("class", "\(device.deviceClass) {\(device.deviceClass.guid)}"),
        DeviceProperty("instance", "\(device.instance)"),
        DeviceProperty("transport", device.transport),
        DeviceProperty("ring", ring),
        DeviceProperty("DMA memory", external),
        DeviceProperty("driver", driver ?? "none"),
        DeviceProperty("status", status),
      ] + more
  }

  init(_ device: any DeviceTransport) {
    self.init(DeviceSummary(device.identity), obstacle: nil, more: device.properties)
  }

  /// The program that drives a class.
  private static func driver(for deviceClass: DeviceClass) -> String? {
    deviceClass == .scsi ? "vsc-storage" : nil
  }

  private static func status(_ driver: String?, _ obstacle: String?) -> String {
    if let obstacle { return "not usable: \(obstacle)" }
    return driver == nil ? "not usable: no driver of this project is for its class" : "usable"
  }

  private static func memory(
    _ confidentiality: Confidentiality
  ) -> (ring: MemoryVisibility, external: MemoryVisibility) {
    switch confidentiality {
    case .hostVisible: (.hostVisible, .hostVisible)
    case .ring: (.encrypted, .hostVisible)
    case .ringAndExternalMemory: (.encrypted, .encrypted)
    }
  }

  /// Keys as programs like them.
  var json: [String: String] {
    Dictionary(
      lines.map { ($0.name.lowercased().replacing(" ", with: "_"), $0.value) },
      uniquingKeysWith: { first, _ in first })
  }
}

/// What every device has, wherever it was found.
struct DeviceSummary: Sendable {
  var deviceClass: DeviceClass
  var instance: GUID
  var channel: ChannelID
  /// Nil where nobody can say it.
  var confidentiality: Confidentiality?
  var transport: String
}

extension DeviceSummary {
  init(_ identity: DeviceIdentity) {
    self.init(
      deviceClass: identity.deviceClass, instance: identity.instance, channel: identity.channel,
      confidentiality: identity.confidentiality, transport: identity.transport)
  }
}
