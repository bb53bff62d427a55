// SPDX-License-Identifier: Apache-2.0

import VMBus
public import VMBusLinux
public import VSC

/// The driver that an operator adds: the companion module `hv_uservsc` (`kmod/`). It gives user space what
/// `uio_hv_generic` does not: rings of any size, mapped with the encryption that they have, memory for DMA
/// that outlives its process, GPADLs, and an event and a doorbell for each channel.
public struct KernelModuleDriver: UserSpaceDriver {
  static let name = "hv_uservsc"

  public init() {}

  public var name: String { Self.name }

  public func transport(
    to device: VMBusDeviceRecord, on machine: LinuxMachine
  ) -> any DeviceTransport { KernelDevice(device, on: machine) }
}

extension VMBusDeviceRecord {
  /// Where the module's device file of this device lies, when it has one.
  var moduleNode: String { "/dev/vmbus/\(instance)" }
}
