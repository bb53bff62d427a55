// SPDX-License-Identifier: Apache-2.0

import CUserVSC
public import SystemPackage

/// A device file of the kernel module `hv_uservsc`: opening it opens no channel, and it has one opener.
public struct ModuleFile: ~Copyable, Sendable {
  public let owned: OwnedDescriptor

  /// - Throws: `resourceBusy` when another process has it, or one that has ended is still being cleaned
  ///   up after.
  public init(path: String) throws(Errno) {
    owned = try OwnedDescriptor(owning: checked(unsafe vmbus_uservsc_open_file(path)))
  }

  public var rawValue: Int32 { owned.rawValue }

  /// For those who ask who has the device.
  public func lock() throws(Errno) { try checked(vmbus_uservsc_lock_file(rawValue)) }

  /// Signals the host for one channel.
  public static func signal(_ descriptor: Int32, channel: UInt32) {
    // It fails when the device is gone, which its event tells.
    _ = vmbus_uservsc_signal(descriptor, channel)
  }
}
