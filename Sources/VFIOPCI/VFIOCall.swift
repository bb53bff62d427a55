// SPDX-License-Identifier: Apache-2.0

import SystemPackage
import VMBus
import VSC

/// What the kernel's refusals mean.
enum VFIOCall {
  static func failed(_ what: WireName, _ code: Int32) -> TransportError {
    .system(what, code: code, text: "\(Errno(rawValue: code))")
  }

  /// Turns the `-errno` of the shims into an error.
  @discardableResult
  static func check(_ what: WireName, _ result: Int32) throws(TransportError) -> Int32 {
    guard result >= 0 else { throw failed(what, -result) }
    return result
  }

  /// The end of setting a device's addresses up.
  static func attached(_ result: Int32) throws(TransportError) {
    guard result < 0 else { return }
    switch Errno(rawValue: -result) {
    case .notPermitted:
      throw .notPermitted(
        path: "the function's IOMMU",
        need:
          "without interrupt remapping a function could raise any interrupt: turn it on, or allow that (vfio_iommu_type1.allow_unsafe_interrupts=1)"
      )
    default: throw failed("VFIO attach", -result)
    }
  }

  static func mapFailed(_ byteCount: Int, _ code: Int32) -> TransportError {
    switch Errno(rawValue: code) {
    case .noMemory:
      .notPermitted(
        path: "memory for DMA",
        need:
          "\(byteCount) bytes more would exceed the limit of locked memory (ulimit -l), or there is no memory"
      )
    default: failed("map of memory for DMA", code)
    }
  }

  /// Opening of a node of VFIO.
  static func openFailed(_ path: String, _ code: Int32) -> TransportError {
    switch Errno(rawValue: code) {
    case .permissionDenied:
      .notPermitted(path: path, need: "run as its owner, or give it to a group by a udev rule")
    case .notPermitted:
      .notPermitted(path: path, need: "CAP_SYS_RAWIO is needed where there is no IOMMU")
    case .resourceBusy: .inUse(path: path)
    case .noSuchFileOrDirectory, .operationNotSupportedByDevice, .noSuchAddressOrDevice: .rescinded
    default: .system("VFIO", code: code, text: "\(path): \(Errno(rawValue: code))")
    }
  }
}
