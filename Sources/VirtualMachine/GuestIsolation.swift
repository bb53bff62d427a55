// SPDX-License-Identifier: Apache-2.0

import VMBus

/// What a machine hides from its host. A simulation: the same memory, CPUID and calls, without a
/// processor that encrypts.
public enum GuestIsolation: String, Sendable, CaseIterable {
  case off
  /// By the hypervisor (VBS), and the bus is the host's.
  case vbs
  /// VBS with a paravisor, which has a confidential VMBus.
  case vbsConfidential = "vbs-confidential"
  /// AMD's SNP with a paravisor, which has a confidential VMBus: the guest reaches its host past the
  /// paravisor by GHCB. The kernel must lie where it is linked to lie (nokaslr), since its instructions
  /// for that are replaced (`GHCBInstructions`).
  case snpConfidential = "snp-confidential"

  var isIsolated: Bool { self != .off }
  var hasParavisor: Bool { self == .vbsConfidential || hasGHCB }
  var hasGHCB: Bool { self == .snpConfidential }

  /// What CPUID says of it; none of a machine that is not isolated.
  var leaves: [UInt32: CPUIDLeaf] {
    guard isIsolated else { return [:] }
    return IsolatedMachine(
      kind: hasGHCB ? .sevSNP : .vbs, hasParavisor: hasParavisor,
      offersConfidentialVMBus: hasParavisor
    ).leaves(boundaryBit: MachineLayout.boundaryBit)
  }
}
