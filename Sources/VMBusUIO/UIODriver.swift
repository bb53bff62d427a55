// SPDX-License-Identifier: Apache-2.0

import Platform
import Synchronization
import SystemPackage
import VMBus
import VMBusLinux
public import VSC

/// The driver that every kernel has: `uio_hv_generic`.
public final class UIODriver: UserSpaceDriver {
  static let name = "uio_hv_generic"

  private let pageMap: PageMap?
  private let pageMapError: Errno?

  /// Opens what needs privileges: make it before they are dropped.
  public init() {
    do throws(Errno) {
      pageMap = try PageMap()
      pageMapError = nil
    } catch {
      pageMap = nil
      pageMapError = error
    }
  }

  public var name: String { Self.name }

  public func transport(
    to device: VMBusDeviceRecord, on machine: LinuxMachine
  ) -> any DeviceTransport { UIODevice(device, on: machine, self) }

  /// Linux gives user space no other signal for a channel with a monitor.
  static let noDoorbell =
    "the host can't be signalled: this machine is or may be isolated, and there its monitor page is mapped with the wrong encryption"

  /// Memory that may be written to as long as this process lives.
  private static let kept = Lock<[any AnyObject & Sendable]>([])

  static func keepForEver(_ memory: [any AnyObject & Sendable]) {
    kept.withLock { $0 += memory }
  }

  /// Memory whose physical addresses a device may be given.
  func allocate(
    _ memory: MemoryVisibility, byteCount: Int, on machine: LinuxMachine
  ) throws(TransportError) -> PhysicalMemory {
    switch (memory, machine.isIsolated) {
    case (.encrypted, false): throw .noSuchMemory(.encrypted)
    case (.hostVisible, true):
      throw .unusable(
        reason:
          "this machine is or may be isolated, and there a stock kernel gives user space no host-visible memory"
      )
    default: break
    }
    guard let pageMap else {
      let error = pageMapError ?? .permissionDenied
      throw .system("page map", code: error.rawValue, text: "/proc/self/pagemap: \(error)")
    }
    return try PhysicalMemory(byteCount: byteCount, pageMap)
  }
}
