// SPDX-License-Identifier: Apache-2.0

import CLinux

/// The four registers of a CPUID leaf.
struct CPUIDLeaf: Equatable, Sendable {
  var eax: UInt32 = 0
  var ebx: UInt32 = 0
  var ecx: UInt32 = 0
  var edx: UInt32 = 0
}

/// What answers a CPUID leaf: the processor, or a test.
typealias CPUIDSource = (UInt32) -> CPUIDLeaf

/// What the processor says that this machine runs on.
enum Hypervisor: Equatable, Sendable {
  case none
  case hyperV
  case other(vendor: String)
  /// Processors of this kind cannot be asked.
  case unknown

  private static let features: UInt32 = 1
  private static let presentBit: UInt32 = 1 << 31
  static let vendorLeaf: UInt32 = 0x4000_0000
  private static let hyperVVendor = "Microsoft Hv"

  init(_ cpuid: CPUIDSource) {
    guard cpuid(Self.features).ecx & Self.presentBit != 0 else {
      self = .none
      return
    }
    let leaf = cpuid(Self.vendorLeaf)
    let bytes = [leaf.ebx, leaf.ecx, leaf.edx].flatMap { register in
      (0..<4).map { UInt8(truncatingIfNeeded: register >> (8 * $0)) }
    }
    let vendor = String(decoding: bytes.filter { 0x20..<0x7F ~= $0 }, as: UTF8.self)
    self = vendor == Self.hyperVVendor ? .hyperV : .other(vendor: vendor)
  }

  static var current: Hypervisor { vmbus_has_cpuid() ? Hypervisor(processorCPUID) : .unknown }
}

/// Asks the processor that this runs on.
func processorCPUID(_ leaf: UInt32) -> CPUIDLeaf {
  let answer = vmbus_cpuid(leaf)
  return CPUIDLeaf(eax: answer.eax, ebx: answer.ebx, ecx: answer.ecx, edx: answer.edx)
}
