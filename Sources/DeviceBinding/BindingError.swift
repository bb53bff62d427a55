// SPDX-License-Identifier: Apache-2.0

import SystemPackage
public import VFIOPCI

/// Why a device did not change hands: a line for a person. Where it is not said otherwise, it is with the
/// driver that had it before.
public enum BindingError: Error, Equatable, Sendable, CustomStringConvertible {
  case notThere(String)
  case notLoaded(driver: String)
  /// The system uses it: what, and for what.
  case inUse(String, by: [String])
  /// Processes have its node open.
  case open(node: String, by: [NodeHolder], isStranding: Bool)
  case refused(path: String, code: Int32)
  /// The kernel's driver for UIO wants a channel with a monitor.
  case refusedByOldKernel(String)
  /// The kernel has accepted it all, and nothing came of it.
  case notSettled(String, driver: String?, wanted: String)
  /// No driver of the kernel's takes the device, which is with none.
  case noKernelDriver(String, module: String?)
  /// The device is with the driver that had it.
  case interrupted(String)
  /// All was asked for, and nobody waited for it to come.
  case stoppedWaiting(String)
  /// It failed, and the driver that had the device did not take it back.
  case notUndone(String, why: String, driver: String?)
  case pci(PCIBindingError)
  case unreadable(String)

  public var description: String {
    switch self {
    case .notThere(let name): "there is no device \(name)"
    case .notLoaded(let driver): "the kernel module \(driver) is not loaded"
    case .inUse(let device, let uses): "the system uses \(device): \(uses.joined(separator: ", "))"
    case .open(let node, let holders, let isStranding):
      "\(node) is open in \(NodeHolder.list(holders))"
        + (isStranding
          ? ": Linux never closes a channel that is unbound while it is open, and the device is of no use until the machine is restarted"
          : "")
    case .refused(let path, let code): "\(path): \(Errno(rawValue: code))"
    case .refusedByOldKernel: "this kernel does not give user space a channel without a monitor"
    case .notSettled(let device, let driver, let wanted):
      "\(device) was to go to \(wanted), and is with \(driver ?? "no driver")\(driver == wanted ? ", which made no node of it" : "")"
    case .noKernelDriver(let device, _):
      "\(device) is free, and no driver of the kernel's takes it"
    case .interrupted(let device): "interrupted: \(device) is with the driver that had it"
    case .stoppedWaiting(let device):
      "interrupted: what was asked for is done as soon as the kernel has done it (vmbusctl show \(device))"
    case .notUndone(let device, let why, let driver):
      "\(why); and \(device) did not go back to \(driver ?? "no driver")"
    case .pci(let error): error.description
    case .unreadable(let text): text
    }
  }

  /// What to do, where something can be done.
  public var remedy: String? {
    switch self {
    case .notThere: "vmbusctl list shows the devices"
    case .notLoaded(let driver): "modprobe \(driver)"
    case .inUse:
      "unmount it (umount, swapoff, vgchange -an), or take the interface down, first; or insist: --force"
    case .open(_, let holders, _):
      "end it first (\(distinct(holders.map(\.remedy)).joined(separator: "; "))), or insist: --force"
    case .refused(_, let code)
    where [.permissionDenied, .notPermitted].contains(Errno(rawValue: code)):
      "run as root"
    case .refused: "look at the kernel's log (dmesg)"
    case .refusedByOldKernel: "use Linux 6.10 or newer"
    case .notSettled(_, let driver, let wanted):
      driver == wanted
        ? "is udevd running? look at the kernel's log (dmesg)"
        : "look at the kernel's log (dmesg)"
    case .noKernelDriver(let device, let module?):
      "modprobe \(module), then vmbusctl restore \(device)"
    case .noKernelDriver, .interrupted, .stoppedWaiting, .unreadable: nil
    case .notUndone(let device, _, _): "vmbusctl restore \(device)"
    case .pci(let error): error.remedy
    }
  }

  private func distinct(_ words: [String]) -> [String] {
    words.indices.filter { words.firstIndex(of: words[$0]) == $0 }.map { words[$0] }
  }

  /// A right is missing, which root has.
  public var isPermission: Bool {
    switch self {
    case .refused(_, let code), .pci(.refused(_, let code)):
      [.permissionDenied, .notPermitted].contains(Errno(rawValue: code))
    default: false
    }
  }
}
