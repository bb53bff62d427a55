// SPDX-License-Identifier: Apache-2.0

/// Whether the host can read this machine's memory.
public enum Isolation: Sendable, Equatable {
  /// All memory is as visible to the host as any.
  case none(NotIsolatedReason)
  case isolated(IsolatedMachine)
  /// Processors of this kind do not say it to a program.
  case unknown
}

public enum NotIsolatedReason: Sendable, Equatable {
  case notHyperV
  /// The hypervisor's CPUID leaves end before the one that tells of isolation.
  case hypervisorTooOld(lastLeaf: UInt32)
  /// The hypervisor says so.
  case conventional
}

/// A machine whose memory the host sees only where it is given to it.
public struct IsolatedMachine: Sendable, Equatable {
  public enum Kind: Sendable, Equatable {
    /// By the hypervisor alone (virtualization-based security).
    case vbs
    case sevSNP
    case tdx
    /// A kind that this package does not know.
    case other(UInt8)
  }

  public var kind: Kind
  /// A trusted layer inside of the machine, such as OpenHCL.
  public var hasParavisor: Bool
  /// The paravisor offers channels with encrypted rings, and the kernel may have taken them.
  public var offersConfidentialVMBus: Bool

  public init(kind: Kind, hasParavisor: Bool, offersConfidentialVMBus: Bool) {
    self.kind = kind
    self.hasParavisor = hasParavisor
    self.offersConfidentialVMBus = offersConfidentialVMBus
  }
}

extension Isolation {
  // The leaves and bits are those that Linux reads (arch/x86/kernel/cpu/mshyperv.c).
  fileprivate static let featuresLeaf: UInt32 = 0x4000_0003
  /// In EBX: the machine is isolated.
  fileprivate static let isolationBit: UInt32 = 1 << 22
  fileprivate static let configurationLeaf: UInt32 = 0x4000_000C
  /// In the configuration's EAX.
  fileprivate static let paravisorBit: UInt32 = 1 << 0
  /// In its EBX, with the bit's number in bits 6 to 11.
  fileprivate static let boundaryActiveBit: UInt32 = 1 << 5
  /// In its EBX: 0 none, 1 VBS, 2 SEV-SNP, 3 TDX.
  fileprivate static let kindMask: UInt32 = 0xF
  fileprivate static let stackInterfaceLeaf: UInt32 = 0x4000_0081
  /// "VS#1" in EAX.
  fileprivate static let stackInterface: UInt32 = 0x3123_5356
  fileprivate static let stackPropertiesLeaf: UInt32 = 0x4000_0082
  /// In EAX.
  fileprivate static let confidentialVMBusBit: UInt32 = 1 << 3

  /// The leaves that tell of isolation.
  public static let leafNumbers: [UInt32] = [
    Hypervisor.featuresLeaf, Hypervisor.vendorLeaf, featuresLeaf, configurationLeaf,
    stackInterfaceLeaf, stackPropertiesLeaf,
  ]

  public init(_ cpuid: CPUIDSource) {
    guard Hypervisor(cpuid) == .hyperV else {
      self = .none(.notHyperV)
      return
    }
    let lastLeaf = cpuid(Hypervisor.vendorLeaf).eax
    guard lastLeaf >= Self.featuresLeaf else {
      self = .none(.hypervisorTooOld(lastLeaf: lastLeaf))
      return
    }
    guard cpuid(Self.featuresLeaf).ebx & Self.isolationBit != 0 else {
      self = .none(.conventional)
      return
    }
    guard lastLeaf >= Self.configurationLeaf else {
      // It says that it is, and not how.
      self = .unknown
      return
    }
    let configuration = cpuid(Self.configurationLeaf)
    let kind: IsolatedMachine.Kind
    switch UInt8(configuration.ebx & Self.kindMask) {
    case 0:
      self = .none(.conventional)
      return
    case 1: kind = .vbs
    case 2: kind = .sevSNP
    case 3: kind = .tdx
    case let other: kind = .other(other)
    }
    // The paravisor answers these leaves; the hypervisor's last leaf does not count them, and a
    // processor answers leaves that it does not have with anything: the signature decides.
    let hasStack = cpuid(Self.stackInterfaceLeaf).eax == Self.stackInterface
    self = .isolated(
      IsolatedMachine(
        kind: kind, hasParavisor: configuration.eax & Self.paravisorBit != 0,
        offersConfidentialVMBus: hasStack
          && cpuid(Self.stackPropertiesLeaf).eax & Self.confidentialVMBusBit != 0))
  }
}

extension IsolatedMachine {
  /// What CPUID says in such a machine: the opposite of `Isolation.init`.
  ///
  /// - Parameter boundaryBit: the address bit of host-visible memory (vTOM), or 0 for none.
  public func leaves(boundaryBit: UInt8) -> [UInt32: CPUIDLeaf] {
    var type: UInt32 =
      switch kind {
      case .vbs: 1
      case .sevSNP: 2
      case .tdx: 3
      case .other(let number): UInt32(number) & Isolation.kindMask
      }
    if boundaryBit != 0 { type |= Isolation.boundaryActiveBit | UInt32(boundaryBit & 0x3F) << 6 }
    var leaves = Hypervisor.leaves(last: Isolation.configurationLeaf)
    leaves[Isolation.featuresLeaf] = CPUIDLeaf(ebx: Isolation.isolationBit)
    leaves[Isolation.configurationLeaf] = CPUIDLeaf(
      eax: hasParavisor ? Isolation.paravisorBit : 0, ebx: type)
    if offersConfidentialVMBus {
      leaves[Isolation.stackInterfaceLeaf] = CPUIDLeaf(eax: Isolation.stackInterface)
      leaves[Isolation.stackPropertiesLeaf] = CPUIDLeaf(eax: Isolation.confidentialVMBusBit)
    }
    return leaves
  }
}

extension Isolation: CustomStringConvertible {
  public var description: String {
    switch self {
    case .none(.notHyperV): "not isolated (not a guest of Hyper-V)"
    case .none(.hypervisorTooOld(let leaf)):
      "not isolated (the hypervisor's leaves end at 0x\(String(leaf, radix: 16)))"
    case .none(.conventional): "not isolated"
    case .isolated(let machine): "\(machine)"
    case .unknown: "unknown (the processor does not tell a program)"
    }
  }
}

extension IsolatedMachine: CustomStringConvertible {
  public var description: String {
    let name =
      switch kind {
      case .vbs: "VBS"
      case .sevSNP: "SEV-SNP"
      case .tdx: "TDX"
      case .other(let number): "kind \(number)"
      }
    return "isolated (\(name), \(hasParavisor ? "with" : "without") paravisor, "
      + "\(offersConfidentialVMBus ? "with" : "without") confidential VMBus)"
  }
}
