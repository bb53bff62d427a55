// SPDX-License-Identifier: Apache-2.0

public import LinuxDevices
public import PCIFunction
public import VMBus
import VMBusLinux

/// A device of this machine that a person named.
public enum NamedDevice: Sendable, Equatable {
  case vmbus(GUID)
  case pci(PCIAddress)

  /// - Parameter name: an instance GUID, a relid, a class with its place ("scsi", "scsi:1"), a network
  ///   interface, or the address of a PCI function.
  public init(
    _ name: String, _ paths: SystemPaths = SystemPaths()
  ) throws(NamedDeviceError) {
    if let address = PCIAddress(name) {
      self = .pci(address)
      return
    }
    let devices: [VMBusDeviceRecord]
    do throws(DiscoveryError) {
      let inventory = try VMBusInventory(paths)
      devices = inventory.devices
      // Of one that cannot be read nothing else is known.
      if let guid = GUID(name), !devices.contains(where: { $0.instance == guid }),
        let broken = inventory.unreadable.first(where: { "\($0)".contains("\(guid)") })
      {
        throw broken
      }
    } catch {
      throw .unreadable(error.description)
    }
    self = .vmbus(try Self.find(name, among: devices).instance)
  }

  /// The device with a network interface of that name; nil when there is none.
  public init?(interface name: String, _ paths: SystemPaths = SystemPaths()) throws(DiscoveryError)
  {
    guard
      let found = try VMBusInventory(paths).devices.first(where: {
        $0.networkInterfaces.contains(name)
      })
    else { return nil }
    self = .vmbus(found.instance)
  }

  private static func find(
    _ name: String, among devices: [VMBusDeviceRecord]
  ) throws(NamedDeviceError) -> VMBusDeviceRecord {
    let found: VMBusDeviceRecord?
    if let guid = GUID(name) {
      found = devices.first { $0.instance == guid }
    } else if let relid: UInt32 = SysfsNumber.decimal(name) {
      found = devices.first { $0.channel.rawValue == relid }
    } else if let named = devices.first(where: { $0.networkInterfaces.contains(name) }) {
      found = named
    } else {
      let (kind, index) = place(name)
      guard let deviceClass = DeviceClass(named: kind) else { throw .noName(name) }
      let ofClass = devices.filter { $0.deviceClass == deviceClass }
      found = ofClass.indices.contains(index) ? ofClass[index] : nil
    }
    guard let found else { throw .notThere(name) }
    return found
  }

  /// A class, and which of its devices, from 0.
  private static func place(_ name: String) -> (kind: Substring, index: Int) {
    guard let colon = name.lastIndex(of: ":"),
      let index: Int = SysfsNumber.decimal(name[name.index(after: colon)...])
    else { return (name[...], 0) }
    return (name[..<colon], index)
  }
}

/// No device is meant by a name: a line for a person.
public enum NamedDeviceError: Error, Equatable, Sendable, CustomStringConvertible {
  case noName(String)
  case notThere(String)
  case unreadable(String)

  public var description: String {
    switch self {
    case .noName(let name):
      "'\(name)' is no GUID, relid, class, network interface or PCI address: vmbusctl list shows the devices"
    case .notThere(let name): "this machine has no device '\(name)'"
    case .unreadable(let text): text
    }
  }
}
