// SPDX-License-Identifier: Apache-2.0

import VMBus
import VMBusLinux

extension VMBusDeviceRecord {
  /// The driver that has it, if that one gives it to user space.
  var bindableDriver: BindableDriver? { driver.flatMap { BindableDriver(rawValue: $0) } }

  /// A driver of the kernel's has it that gives it to user space.
  var isInUserSpace: Bool { bindableDriver != nil }

  /// What a program opens, where the device's driver makes it one.
  func node(_ paths: SystemPaths) -> String? {
    switch bindableDriver {
    case .uio: nodes.first?.node
    case .module: "\(paths.devices)/vmbus/\(instance)"
    case nil: nil
    }
  }
}

extension DeviceClass {
  /// The module with the kernel's own driver.
  var kernelModule: String? {
    switch self {
    case .scsi, .ide, .fibreChannel: "hv_storvsc"
    case .network: "hv_netvsc"
    case .balloon: "hv_balloon"
    case .vpci: "pci_hyperv"
    case .framebuffer: "hyperv_drm"
    case .keyboard: "hyperv_keyboard"
    case .mouse: "hid_hyperv"
    case .kvp, .timesync, .heartbeat, .shutdown, .backup: "hv_utils"
    case .fileCopy: "uio_hv_generic"
    default: nil
    }
  }
}
