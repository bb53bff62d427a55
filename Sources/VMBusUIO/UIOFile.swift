// SPDX-License-Identifier: Apache-2.0

import Platform
import SystemPackage
import VMBus
import VMBusLinux
import VSC

/// Opening and mapping the files of a device under uio_hv_generic.
enum UIOFile {
  /// Opens the device file, which opens the channel, for this process alone.
  static func openAndLock(_ node: String) throws(TransportError) -> DeviceFile {
    let file = try open(node)
    do throws(Errno) {
      try file.lock()
    } catch {
      throw .inUse(path: node)
    }
    return file
  }

  static func open(_ node: String) throws(TransportError) -> DeviceFile {
    do throws(Errno) {
      return try DeviceFile(path: node)
    } catch .permissionDenied {
      throw .notPermitted(
        path: node, need: "run as its owner, or give it to a group by a udev rule")
    } catch .tooManyOpenFiles {
      throw .unusable(
        reason:
          "the limit on open files is below \(DeviceFile.lowestDescriptor + 1): raise it (ulimit -n)"
      )
    } catch .resourceTemporarilyUnavailable, .diskQuotaExceeded {
      // EAGAIN for the open message, EDQUOT for the ring's GPADL; the kernel keeps the status.
      throw .unusable(reason: "\(node): the host refused to open the channel (see dmesg)")
    } catch .invalidArgument {
      throw .unusable(reason: "\(node): the kernel has the channel open already")
    } catch .operationNotSupportedByDevice, .noSuchFileOrDirectory, .noSuchAddressOrDevice {
      throw .rescinded
    } catch {
      throw .system("device file", code: error.rawValue, text: "\(node): \(error)")
    }
  }

  /// Maps the rings. In an isolated machine, `/dev/uioN` maps host-visible memory as if it were
  /// encrypted, and the sysfs file maps encrypted memory as if it were host-visible: a packet through
  /// the wrong one never arrives, or worse. Where both are right, the sysfs file is better: the kernel
  /// takes its mapping away when the device goes. Old kernels have no such file for a primary channel.
  ///
  /// - Parameter byteCount: of both rings.
  static func mapRing(
    _ file: borrowing DeviceFile, _ node: String, ringFile: String?, _ byteCount: Int,
    _ confidentiality: Confidentiality, isIsolated: Bool
  ) throws(TransportError) -> MappedMemory {
    if confidentiality == .hostVisible {
      if let ringFile { return try mapFile(ringFile, byteCount) }
      guard !isIsolated else {
        throw .unusable(
          reason: "this kernel has no file that maps the ring with the right encryption")
      }
    }
    return try map(file, node, UIOLayout.ringMap, byteCount)
  }

  /// Maps the page with the channel's doorbell, where it has one there.
  static func mapMonitorPage(
    _ file: borrowing DeviceFile, _ node: String, _ monitor: MonitorID?
  ) throws(TransportError) -> MappedMemory? {
    guard monitor != nil else { return nil }
    return try map(file, node, UIOLayout.monitorPageMap, MonitorPage.byteCount)
  }

  /// Map N of a UIO device lies at N pages.
  static func map(
    _ file: borrowing DeviceFile, _ node: String, _ index: Int, _ byteCount: Int
  ) throws(TransportError) -> MappedMemory {
    do throws(Errno) {
      return try MappedMemory(
        file.rawValue, offset: index * SystemPage.byteCount, byteCount: byteCount)
    } catch {
      throw .system(
        "map of a device", code: error.rawValue, text: "\(node), map \(index): \(error)")
    }
  }

  static func mapFile(_ path: String, _ byteCount: Int) throws(TransportError) -> MappedMemory {
    do throws(Errno) {
      return try mapped(path, byteCount)
    } catch .permissionDenied {
      throw .notPermitted(path: path, need: ringFileNeed)
    } catch {
      throw .system("ring file", code: error.rawValue, text: "\(path): \(error)")
    }
  }

  /// What the kernel asks of who maps a ring file, which it gives to nobody but root.
  static let ringFileNeed = "run as root, or with CAP_DAC_OVERRIDE"

  /// Whether a ring file's channel is open.
  static func canBeMapped(_ path: String) -> Bool {
    do throws(Errno) {
      _ = try mapped(path, 4096)
      return true
    } catch {
      return error == .permissionDenied
    }
  }

  private static func mapped(_ path: String, _ byteCount: Int) throws(Errno) -> MappedMemory {
    let opened: FileDescriptor
    do {
      opened = unsafe try FileDescriptor.open(path, .readWrite, options: .closeOnExec)
    } catch {
      throw error as? Errno ?? .ioError
    }
    let file = OwnedDescriptor(owning: opened.rawValue)
    return try MappedMemory(file.rawValue, byteCount: byteCount)
  }
}

extension VMBusDeviceRecord {
  /// The file that maps the primary channel's rings; nil where the kernel has none.
  var ringFile: String? {
    channels.first { $0.channel == channel && $0.ringFileByteCount != nil }?.ringFile
  }
}
