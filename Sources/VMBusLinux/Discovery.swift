// SPDX-License-Identifier: Apache-2.0

public import VMBus

/// The VMBus devices of this machine, found through libudev.
public struct VMBusInventory: Sendable, Equatable {
  /// By relid, which is the order in which the host offered them.
  public var devices: [VMBusDeviceRecord]
  /// Why a device that is there is not among them.
  public var unreadable: [DiscoveryError]
  /// Why there is no device at all, when there is none.
  public var whyNothing: NoDevicesReason?

  /// Looks once. Devices that go away meanwhile are left out.
  public init() throws(DiscoveryError) {
    let context = try UdevContext()
    var unreadable: [DiscoveryError] = []
    let nodes = try Self.nodes(context, &unreadable)
    let directories = try context.devicePaths(subsystem: "vmbus").map { SysfsDirectory($0) }
    self.init(directories, unreadable) { nodes[$0.path] ?? [] }
  }

  /// - Parameters:
  ///   - unreadable: what was so before.
  ///   - nodes: the UIO devices below a device.
  init(
    _ directories: [SysfsDirectory], _ unreadable: [DiscoveryError] = [],
    nodes: (SysfsDirectory) throws(DiscoveryError) -> [UIODeviceRecord]
  ) {
    var (devices, unreadable): ([VMBusDeviceRecord], [DiscoveryError]) = ([], unreadable)
    for directory in directories {
      do throws(DiscoveryError) {
        try devices.append(VMBusDeviceRecord(reading: directory, nodes: nodes(directory)))
      } catch .vanished {
        continue
      } catch {
        unreadable.append(error)
      }
    }
    self.devices = devices.sorted { $0.channel.rawValue < $1.channel.rawValue }
    self.unreadable = unreadable
    whyNothing = devices.isEmpty && unreadable.isEmpty ? .onThisMachine() : nil
  }

  /// The device of that instance.
  public func device(_ instance: GUID) -> VMBusDeviceRecord? {
    devices.first { $0.instance == instance }
  }

  /// The UIO devices below VMBus devices, by the directory of these.
  private static func nodes(
    _ context: borrowing UdevContext, _ unreadable: inout [DiscoveryError]
  ) throws(DiscoveryError) -> [String: [UIODeviceRecord]] {
    var found: [String: [UIODeviceRecord]] = [:]
    for path in try context.devicePaths(subsystem: "uio") {
      guard let device = context.device(path), let parent = device.parentPath(subsystem: "vmbus"),
        let name = device.name
      else { continue }
      do throws(DiscoveryError) {
        let record = try UIODeviceRecord(
          reading: SysfsDirectory(path), name: name, node: device.node ?? "/dev/\(name)")
        found[parent, default: []].append(record)
      } catch .vanished {
        continue
      } catch {
        unreadable.append(error)
      }
    }
    return found
  }
}

/// Why a machine has no VMBus devices.
public enum NoDevicesReason: Sendable, Equatable, CustomStringConvertible {
  /// Not a guest of Hyper-V: what the processor says instead, where it says something.
  case notHyperV(hypervisor: String?)
  /// A guest of Hyper-V, whose kernel has no VMBus.
  case noBus
  /// No bus, and this kind of processor cannot be asked about Hyper-V.
  case noBusAndNoCPUID
  /// The bus is there, and the host offers nothing that the kernel accepts.
  case noOffers

  static func onThisMachine() -> NoDevicesReason {
    if SysfsDirectory("/sys/bus/vmbus").exists { return .noOffers }
    return switch Hypervisor.current {
    case .hyperV: .noBus
    case .none: .notHyperV(hypervisor: nil)
    case .other(let vendor): .notHyperV(hypervisor: vendor)
    case .unknown: .noBusAndNoCPUID
    }
  }

  public var description: String {
    switch self {
    case .notHyperV(nil): "this machine is not a guest of Hyper-V"
    case .notHyperV(let hypervisor?):
      "this machine is not a guest of Hyper-V (its hypervisor is '\(hypervisor)')"
    case .noBus:
      "this machine is a guest of Hyper-V, but the kernel has no VMBus: modprobe hv_vmbus"
    case .noBusAndNoCPUID: "the kernel has no VMBus (there is no /sys/bus/vmbus)"
    case .noOffers: "the host offers no VMBus device"
    }
  }
}
