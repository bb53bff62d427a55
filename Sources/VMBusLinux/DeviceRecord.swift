// SPDX-License-Identifier: Apache-2.0

public import VMBus

/// A VMBus device as the kernel shows it in sysfs, copied at one moment. Nothing is opened for it.
public struct VMBusDeviceRecord: Sendable, Equatable {
  /// Stable for the life of the machine's configuration; also the name of the sysfs directory.
  public var instance: GUID
  public var deviceClass: DeviceClass
  /// The primary channel's relid. It changes when the host offers the device anew.
  public var channel: ChannelID
  public var state: KernelChannelState
  /// Nil for a channel that is signalled by hypercall.
  public var monitor: MonitorID?
  /// The kernel's driver that the device is bound to.
  public var driver: String?
  /// The only driver that may bind the device, where somebody said so.
  public var driverOverride: String?
  /// The primary channel and its subchannels, by relid. Empty before Linux 4.14.
  public var channels: [ChannelRecord]
  /// What `uio_hv_generic` made of the device: one, or none when it is not bound to it.
  public var nodes: [UIODeviceRecord]
  /// What another driver made of the device: its network interfaces, such as `eth0`.
  public var networkInterfaces: [String]
  /// And its disks, such as `sda`.
  public var blockDevices: [String]
  /// The device's directory below `/sys/devices`.
  public var path: String
}

/// A channel of a device, as the kernel shows it.
public struct ChannelRecord: Sendable, Equatable {
  public var channel: ChannelID
  /// 0 is the primary channel.
  public var subchannelIndex: UInt16
  public var monitor: MonitorID?
  /// Bytes of the `ring` file, which holds both rings; nil when there is none. Linux before 6.12
  /// states 4 MiB, or more with large pages, whatever the primary channel's rings really have.
  public var ringFileByteCount: UInt64?
  /// The channel's directory.
  public var path: String

  public var ringFile: String { path + "/ring" }
}

/// The `state` of a primary channel.
public enum KernelChannelState: Sendable, Equatable, CustomStringConvertible {
  case offered
  case opening
  /// Offered and known, but nobody has opened it (the kernel's name for it is misleading: "open").
  case closed
  case opened
  /// A number that this package does not know.
  case other(UInt32)

  init(_ value: UInt32) {
    self =
      switch value {
      case 0: .offered
      case 1: .opening
      case 2: .closed
      case 3: .opened
      default: .other(value)
      }
  }

  public var description: String {
    switch self {
    case .offered: "offered"
    case .opening: "opening"
    case .closed: "not open"
    case .opened: "open"
    case .other(let value): "state \(value)"
    }
  }
}

/// A device of the kernel's UIO class below a VMBus device.
public struct UIODeviceRecord: Sendable, Equatable {
  /// `uio0`.
  public var name: String
  /// Opening it opens the device's primary channel.
  public var node: String
  /// In the order in which they are mapped: map N lies at N pages.
  public var maps: [UIOMap]
  /// Interrupts that user space was told of.
  public var eventCount: UInt32
  public var path: String
}

/// What can be mapped of a UIO device.
public struct UIOMap: Sendable, Equatable {
  public var name: String
  public var byteCount: UInt64
  /// Where in the mapping's first page it begins.
  public var offset: UInt64

  public init(name: String, byteCount: UInt64, offset: UInt64) {
    self.name = name
    self.byteCount = byteCount
    self.offset = offset
  }
}
