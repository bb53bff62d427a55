// SPDX-License-Identifier: Apache-2.0

/// The four registers of a CPUID leaf.
public struct CPUIDLeaf: Equatable, Sendable {
  public var eax: UInt32
  public var ebx: UInt32
  public var ecx: UInt32
  public var edx: UInt32

  public init(eax: UInt32 = 0, ebx: UInt32 = 0, ecx: UInt32 = 0, edx: UInt32 = 0) {
    self.eax = eax
    self.ebx = ebx
    self.ecx = ecx
    self.edx = edx
  }
}

/// What answers a CPUID leaf: the processor, or a test.
public typealias CPUIDSource = (UInt32) -> CPUIDLeaf

/// What the processor says that this machine runs on.
public enum Hypervisor: Equatable, Sendable {
  case none
  case hyperV
  case other(vendor: String)
  /// Processors of this kind cannot be asked.
  case unknown

  static let featuresLeaf: UInt32 = 1
  private static let presentBit: UInt32 = 1 << 31
  static let vendorLeaf: UInt32 = 0x4000_0000
  private static let hyperVVendor = "Microsoft Hv"

  public init(_ cpuid: CPUIDSource) {
    guard cpuid(Self.featuresLeaf).ecx & Self.presentBit != 0 else {
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

  /// What CPUID says on Hyper-V, with the last of its leaves.
  static func leaves(last: UInt32) -> [UInt32: CPUIDLeaf] {
    // "Microsoft Hv", four bytes to a register.
    [
      featuresLeaf: CPUIDLeaf(ecx: presentBit),
      vendorLeaf: CPUIDLeaf(eax: last, ebx: 0x7263_694D, ecx: 0x666F_736F, edx: 0x7648_2074),
    ]
  }
}
