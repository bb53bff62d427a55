// SPDX-License-Identifier: Apache-2.0

import DriverProgram
import VMBusUIO
import VSC

/// The VMBus devices of this machine. Nothing is opened: opening a node opens its channel.
struct MachineDevices {
  let inventory: VMBusInventory
  private let isolation = Isolation.current
  /// Read once, and only where the processor's word is not enough.
  private var kernel: Result<KernelChannels, KernelChannelsError>?

  init() throws {
    do throws(DiscoveryError) {
      inventory = try VMBusInventory()
    } catch {
      throw ProgramFailure(.system, error.description)
    }
  }

  /// Why there is no device, when there is none.
  var whyNothing: String? { inventory.whyNothing?.description }

  /// A line for each device that is there and could not be read.
  func complain() {
    for error in inventory.unreadable { printError("vmbusctl: \(error)") }
  }

  mutating func reports() throws -> [DeviceReport] {
    try inventory.devices.map { try report($0) }
  }

  mutating func report(_ device: VMBusDeviceRecord) throws -> DeviceReport {
    var obstacle: Obstacle?
    do throws(DiscoveryError) {
      obstacle = try device.obstacle()
    } catch {
      throw ProgramFailure(.system, error.description)
    }
    var known: ChannelConfidentiality?
    do throws(ConfidentialityUnknown) {
      known = try ChannelConfidentiality(isolation: isolation, said: nil) {
        () throws(KernelChannelsError) in
        try kernelChannels().get().confidentiality(of: device.channel)
      }
    } catch {
      obstacle = obstacle ?? .confidentialityUnknown(error)
    }
    return DeviceReport(
      DeviceSummary(
        deviceClass: device.deviceClass, instance: device.instance, channel: device.channel,
        confidentiality: known?.value, transport: device.nodes.first?.node ?? device.path),
      obstacle: obstacle?.description, more: lines(device, known, obstacle))
  }

  private mutating func kernelChannels() -> Result<KernelChannels, KernelChannelsError> {
    if let kernel { return kernel }
    let read = Result { () throws(KernelChannelsError) in try KernelChannels.read() }
    kernel = read
    return read
  }

  private func lines(
    _ device: VMBusDeviceRecord, _ known: ChannelConfidentiality?, _ obstacle: Obstacle?
  ) -> [DeviceProperty] {
    var lines: [DeviceProperty] = []
    func add(_ name: String, _ value: String?) {
      if let value, !value.isEmpty { lines.append(DeviceProperty(name, value)) }
    }
    add("what to do", obstacle?.remedy)
    add("memory known", known.map { "\($0.source)" })
    add("isolation", "\(isolation)")
    add("kernel driver", device.driver ?? "none")
    add("driver override", device.driverOverride)
    add("network interfaces", device.networkInterfaces.joined(separator: " "))
    add("disks", device.blockDevices.joined(separator: " "))
    add("state", "\(device.state)")
    add("monitor", device.monitor.map { "\($0.rawValue)" } ?? "none: signalled by hypercall")
    add("channels", device.channels.map(text).joined(separator: ", "))
    for node in device.nodes {
      add(
        "maps of \(node.name)",
        node.maps.map { "\($0.name) \($0.byteCount) bytes" }.joined(separator: ", "))
    }
    add("sysfs", device.path)
    return lines
  }

  private func text(_ channel: ChannelRecord) -> String {
    let place = channel.subchannelIndex == 0 ? "primary" : "subchannel \(channel.subchannelIndex)"
    return "\(channel.channel) (\(place))"
  }

  /// The device that a person named.
  func choose(_ name: String) throws -> VMBusDeviceRecord {
    let devices = inventory.devices
    let found: VMBusDeviceRecord?
    if let guid = GUID(name) {
      found = inventory.device(guid)
    } else if let relid = UInt32(name) {
      found = devices.first { $0.channel.rawValue == relid }
    } else {
      let parts = name.split(separator: ":", maxSplits: 1, omittingEmptySubsequences: false)
      let place = parts.count == 2 ? Int(parts[1]) : 0
      guard let deviceClass = DeviceClass(named: parts[0]), let place else {
        throw ProgramFailure(
          .usage, "'\(name)' is no GUID, relid or class: vmbusctl list shows the devices")
      }
      let ofClass = devices.filter { $0.deviceClass == deviceClass }
      found = ofClass.indices.contains(place) ? ofClass[place] : nil
    }
    guard let found else {
      let why = whyNothing.map { ": \($0)" } ?? ""
      throw ProgramFailure(.unavailable, "this machine has no device '\(name)'\(why)")
    }
    return found
  }
}
