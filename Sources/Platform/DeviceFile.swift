// SPDX-License-Identifier: Apache-2.0

import CLinux
public import SystemPackage

/// A device file of Linux's `uio_hv_generic`. Opening it opens the device's channels with the host,
/// and closing its last descriptor, once nothing of it is mapped, closes them.
public struct DeviceFile: ~Copyable, Sendable {
  public let owned: OwnedDescriptor

  /// Descriptors of device files start here, and those of memory that is given to devices stay below.
  /// When a process is killed, Linux releases its files from the highest descriptor down, so that the
  /// channel is closed before the memory can be anybody else's.
  public static let lowestDescriptor: Int32 = 512

  public init(path: String) throws(Errno) {
    owned = try OwnedDescriptor(
      owning: checked(unsafe vmbus_open_device(path, Self.lowestDescriptor)))
  }

  public var rawValue: Int32 { owned.rawValue }

  /// Keeps others out who ask too, as UIO itself does not.
  ///
  /// - Throws: `wouldBlock` when another process has the device.
  public func lock() throws(Errno) { try checked(vmbus_lock_file(rawValue)) }

  /// Whether interrupts came since the last call.
  ///
  /// - Throws: `ioError` when the device is gone.
  public static func takeInterrupts(_ descriptor: Int32) throws(Errno) -> Bool {
    try checked(vmbus_uio_take_interrupts(descriptor)) != 0
  }

  /// Unmasks the interrupts of all channels of a device, and signals the host for those that no
  /// monitor serves.
  public static func signal(_ descriptor: Int32) { vmbus_uio_signal(descriptor) }
}
