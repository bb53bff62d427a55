// SPDX-License-Identifier: Apache-2.0

public import VSC

/// A driver of the kernel's that gives the devices bound to it to user space, and the transport over it.
public protocol UserSpaceDriver: Sendable {
  /// As the bus has it in sysfs.
  var name: String { get }

  /// A device as it was found, whether it can be used or not.
  func transport(
    to device: VMBusDeviceRecord, on machine: LinuxMachine
  ) -> any DeviceTransport
}

extension VMBusDeviceRecord {
  /// Which of several drivers a device is for: the one that has it, or that somebody wanted it to have;
  /// otherwise the first one that is loaded, or the last one. That one says what is to be done.
  ///
  /// - Parameters:
  ///   - names: of the drivers, the best one first, the one that every kernel has last.
  ///   - loaded: the names of all that the bus has.
  /// - Returns: the place among `names`; nil when there are none.
  func driver(among names: [String], loaded: Set<String>) -> Int? {
    names.firstIndex { $0 == driver } ?? names.firstIndex { $0 == driverOverride }
      ?? names.firstIndex { loaded.contains($0) } ?? names.indices.last
  }
}
