// SPDX-License-Identifier: Apache-2.0

import VMBus

extension VMBusDeviceRecord {
  /// Reads what sysfs says of a device.
  init(
    reading directory: SysfsDirectory, nodes: [UIODeviceRecord]
  ) throws(DiscoveryError) {
    let override = try directory.textIfPresent("driver_override") ?? ""
    try self.init(
      instance: directory.value("device_id", "a GUID in braces", GUID.init(braced:)),
      deviceClass: DeviceClass(
        directory.value("class_id", "a GUID in braces", GUID.init(braced:))),
      channel: ChannelID(directory.value("id", "a relid", SysfsNumber.decimal)),
      state: KernelChannelState(directory.value("state", "a channel's state", SysfsNumber.decimal)),
      monitor: directory.monitor,
      driver: directory.linkedName("driver"),
      driverOverride: override.isEmpty || override == "(null)" ? nil : override,
      channels: ChannelRecord.read(directory),
      nodes: nodes,
      networkInterfaces: directory.names(in: "net"),
      blockDevices: directory.blockDevices,
      path: directory.path)
  }

  /// Looks again which channels there are. Of subchannels that come and go a monitor tells that the
  /// device has changed.
  public func currentChannels() throws(DiscoveryError) -> [ChannelRecord] {
    try ChannelRecord.read(SysfsDirectory(path))
  }
}

extension ChannelRecord {
  static func read(_ device: SysfsDirectory) throws(DiscoveryError) -> [ChannelRecord] {
    let channels = device.directory("channels")
    var found: [ChannelRecord] = []
    for name in try device.names(in: "channels") {
      guard let relid: UInt32 = SysfsNumber.decimal(name) else {
        throw .malformed(file: channels.path, content: name, expected: "a relid")
      }
      do throws(DiscoveryError) {
        try found.append(ChannelRecord(ChannelID(relid), channels.directory(name)))
      } catch .vanished {
        // The host took the subchannel back between the listing and the reading.
        continue
      }
    }
    return found.sorted { $0.channel.rawValue < $1.channel.rawValue }
  }

  private init(_ channel: ChannelID, _ directory: SysfsDirectory) throws(DiscoveryError) {
    try self.init(
      channel: channel,
      subchannelIndex: directory.value(
        "subchannel_id", "a subchannel's index", SysfsNumber.decimal),
      monitor: directory.monitor,
      ringFileByteCount: directory.byteCount(of: "ring"),
      path: directory.path)
  }
}

extension UIODeviceRecord {
  init(reading directory: SysfsDirectory, name: String, node: String) throws(DiscoveryError) {
    var maps: [UIOMap] = []
    let count = try directory.names(in: "maps").count
    // The kernel numbers them without a gap.
    for index in 0..<count {
      let map = directory.directory("maps/map\(index)")
      try maps.append(
        UIOMap(
          name: map.text("name"),
          byteCount: map.value("size", "a size in hexadecimal", SysfsNumber.hexadecimal),
          offset: map.value("offset", "an offset in hexadecimal", SysfsNumber.hexadecimal)))
    }
    try self.init(
      name: name, node: node, maps: maps,
      eventCount: directory.valueIfPresent("event", "a count", SysfsNumber.decimal) ?? 0,
      path: directory.path)
  }
}

extension SysfsDirectory {
  /// The file is absent for a channel without a monitor.
  fileprivate var monitor: MonitorID? {
    get throws(DiscoveryError) {
      try valueIfPresent("monitor_id", "a monitor id") { text in
        SysfsNumber.decimal(text).flatMap { MonitorID($0) }
      }
    }
  }

  /// A controller's disks: hostN/targetN:C:T/N:C:T:L/block/NAME.
  fileprivate var blockDevices: [String] {
    get throws(DiscoveryError) {
      var found: [String] = []
      for host in try names(in: ".") where host.hasPrefix("host") {
        for target in try names(in: host) where target.hasPrefix("target") {
          for unit in try names(in: "\(host)/\(target)") where unit.contains(":") {
            found += try names(in: "\(host)/\(target)/\(unit)/block")
          }
        }
      }
      return found.sorted()
    }
  }
}

extension GUID {
  /// The kernel writes GUIDs in braces in files, and without in names.
  fileprivate init?(braced text: String) {
    guard text.hasPrefix("{") else { return nil }
    self.init(text)
  }
}
