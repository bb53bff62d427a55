// SPDX-License-Identifier: Apache-2.0

import CUdev
import VMBus

/// A connection to libudev. Its owner, and the owners of what is made from it, use it from one
/// thread at a time. Every string is copied out.
//
// Safe: each owner's pointer is valid until its `deinit` gives it back, and never leaves it.
@safe
struct UdevContext: ~Copyable {
  fileprivate let pointer: OpaquePointer

  init() throws(DiscoveryError) {
    guard let pointer = unsafe udev_new() else { throw .lastFailure("udev_new") }
    unsafe self.pointer = pointer
  }

  deinit { unsafe _ = udev_unref(pointer) }

  /// The sysfs directories of all devices of a subsystem.
  func devicePaths(subsystem: WireName) throws(DiscoveryError) -> [String] {
    guard let enumeration = unsafe udev_enumerate_new(pointer) else {
      throw .lastFailure("udev_enumerate_new")
    }
    defer { unsafe _ = udev_enumerate_unref(enumeration) }
    var result = unsafe udev_enumerate_add_match_subsystem(enumeration, subsystem.description)
    guard result >= 0 else { throw .udev("udev_enumerate_add_match_subsystem", code: -result) }
    result = unsafe udev_enumerate_scan_devices(enumeration)
    guard result >= 0 else { throw .udev("udev_enumerate_scan_devices", code: -result) }
    var paths: [String] = []
    var entry = unsafe udev_enumerate_get_list_entry(enumeration)
    while let current = unsafe entry {
      if let path = unsafe copied(udev_list_entry_get_name(current)) { paths.append(path) }
      unsafe entry = udev_list_entry_get_next(current)
    }
    return paths
  }

  /// The device of a sysfs directory, or nil when it is gone.
  func device(_ path: String) -> UdevDevice? {
    guard let device = unsafe udev_device_new_from_syspath(pointer, path) else { return nil }
    return unsafe UdevDevice(owning: device)
  }
}

@safe
struct UdevDevice: ~Copyable {
  private let pointer: OpaquePointer

  fileprivate init(owning pointer: OpaquePointer) { unsafe self.pointer = pointer }

  deinit { unsafe _ = udev_device_unref(pointer) }

  /// The last part of the directory's path.
  var name: String? { unsafe copied(udev_device_get_sysname(pointer)) }
  var node: String? { unsafe copied(udev_device_get_devnode(pointer)) }
  /// Below `/sys`.
  var devicePath: String? { unsafe copied(udev_device_get_devpath(pointer)) }
  var subsystem: String? { unsafe copied(udev_device_get_subsystem(pointer)) }
  /// What happened, for a device that a monitor received.
  var action: String? { unsafe copied(udev_device_get_action(pointer)) }

  /// The directory of the nearest device above of a subsystem.
  func parentPath(subsystem: WireName) -> String? {
    // The parent belongs to the child.
    guard
      let parent = unsafe udev_device_get_parent_with_subsystem_devtype(
        pointer, subsystem.description, nil)
    else { return nil }
    return unsafe copied(udev_device_get_syspath(parent))
  }
}

/// Where a monitor's events come from.
public enum UdevEventSource: String, Sendable {
  /// From systemd-udevd, after its rules have run: modes, owners and links are set.
  case udev
  /// From the kernel itself, where no udevd runs.
  case kernel

  /// What this machine has.
  public static var available: UdevEventSource {
    SysfsDirectory("/run/udev/control").exists ? .udev : .kernel
  }
}

@safe
struct UdevMonitor: ~Copyable {
  private let context: UdevContext
  private let pointer: OpaquePointer

  init(
    _ context: consuming UdevContext, source: UdevEventSource, subsystems: [WireName]
  ) throws(DiscoveryError) {
    guard
      let monitor = unsafe udev_monitor_new_from_netlink(context.pointer, source.rawValue)
    else { throw .lastFailure("udev_monitor_new_from_netlink") }
    do throws(DiscoveryError) {
      for subsystem in subsystems {
        let result = unsafe udev_monitor_filter_add_match_subsystem_devtype(
          monitor, subsystem.description, nil)
        guard result >= 0 else {
          throw .udev("udev_monitor_filter_add_match_subsystem_devtype", code: -result)
        }
      }
      let result = unsafe udev_monitor_enable_receiving(monitor)
      guard result >= 0 else { throw .udev("udev_monitor_enable_receiving", code: -result) }
    } catch {
      unsafe _ = udev_monitor_unref(monitor)
      throw error
    }
    self.context = context
    unsafe pointer = monitor
  }

  deinit { unsafe _ = udev_monitor_unref(pointer) }

  var descriptor: Int32 { unsafe udev_monitor_get_fd(pointer) }

  /// The next device that something happened to, or nil when there is none. Never blocks.
  ///
  /// - Throws: when events were lost, because they came faster than they were received.
  mutating func receive() throws(DiscoveryError) -> UdevDevice? {
    var error: Int32 = 0
    guard let device = unsafe vmbus_udev_receive(pointer, &error) else {
      guard error == 0 else { throw .udev("udev_monitor_receive_device", code: error) }
      return nil
    }
    return unsafe UdevDevice(owning: device)
  }
}

private func copied(_ text: UnsafePointer<CChar>?) -> String? {
  guard let text = unsafe text else { return nil }
  return unsafe String(cString: text)
}
