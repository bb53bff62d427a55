// SPDX-License-Identifier: Apache-2.0

import CKVM
import Testing
import VMBus

@testable import VirtualMachine

@Suite struct GuestIsolationTests {
  /// What KVM says of Hyper-V, with leaves of its debugger that lie where a paravisor's do.
  static let hyperV = [
    CPUIDLeavesTests.leaf(0x4000_0000, 0, 0x4000_0082, 0x756E_694C, 0x564B_2078, 0x7648_204D),
    CPUIDLeavesTests.leaf(0x4000_0001, 0, 0x3123_7648),
    CPUIDLeavesTests.leaf(0x4000_0003, 0, 0x0AFF, 0x30, 0, 0x0400),
    CPUIDLeavesTests.leaf(0x4000_0004, 0, 0x2C),
    CPUIDLeavesTests.leaf(0x4000_0080, 0, 0x4000_0082),
    CPUIDLeavesTests.leaf(0x4000_0081, 0, 0x3123_5356),
    CPUIDLeavesTests.leaf(0x4000_0082, 0, 2),
  ]

  static func leaves(_ isolation: GuestIsolation) -> [UInt32: [UInt32]] {
    let leaves = CPUIDLeaves.leaves(
      supported: [CPUIDLeavesTests.leaf(1)], hyperV: hyperV, processor: 0, count: 1,
      isolation: isolation)
    return Dictionary(
      leaves.map { ($0.function, [$0.eax, $0.ebx, $0.ecx, $0.edx]) },
      uniquingKeysWith: { _, _ in [] })
  }

  static let vendor: [UInt32] = [0x7263_694D, 0x666F_736F, 0x7648_2074]

  @Test func anOrdinaryMachineSaysWhatKVMSays() {
    let leaves = Self.leaves(.off)
    #expect(leaves.count == 8)
    #expect(leaves[0x4000_0000] == [0x4000_0082] + Self.vendor)
    #expect(leaves[0x4000_0003] == [0x0AFF, 0x30, 0, 0x0400])
    #expect(leaves[0x4000_000C] == nil)
    #expect(leaves[0x4000_0082] == [2, 0, 0, 0])
  }

  // VBS is 1, the boundary is active (bit 5), and it is bit 38 (from bit 6 on).
  @Test func anIsolatedMachineSaysSo() {
    let leaves = Self.leaves(.vbs)
    #expect(leaves[0x4000_0000] == [0x4000_0082] + Self.vendor)
    #expect(leaves[0x4000_0003] == [0x0AFF, 0x0040_0030, 0, 0x0400])
    #expect(leaves[0x4000_000C] == [0, 0x9A1, 0, 0])
    for number: UInt32 in 0x4000_0080...0x4000_0082 { #expect(leaves[number] == nil) }
  }

  @Test func aConfidentialMachineHasAParavisorsLeaves() {
    let leaves = Self.leaves(.vbsConfidential)
    #expect(leaves[0x4000_0003] == [0x0AFF, 0x0040_0030, 0, 0x0400])
    #expect(leaves[0x4000_000C] == [1, 0x9A1, 0, 0])
    // "Microsoft VS"
    #expect(leaves[0x4000_0080] == [0x4000_0082, 0x7263_694D, 0x666F_736F, 0x5356_2074])
    #expect(leaves[0x4000_0081] == [0x3123_5356, 0, 0, 0])
    #expect(leaves[0x4000_0082] == [8, 0, 0, 0])
  }

  /// KVM's last leaf may lie below those that tell of isolation.
  @Test func theLastLeafIsFarEnough() {
    let leaves = CPUIDLeaves.leaves(
      supported: [], hyperV: [CPUIDLeavesTests.leaf(0x4000_0000, 0, 0x4000_000A)], processor: 0,
      count: 1, isolation: .vbs)
    #expect(leaves.first?.eax == 0x4000_000C)
    #expect(leaves.map(\.function) == [0x4000_0000, 0x4000_0003, 0x4000_000C])
  }

  @Test(arguments: GuestIsolation.allCases)
  func driversReadTheSame(_ isolation: GuestIsolation) {
    let leaves = Self.leaves(isolation)
    let told = Isolation { number in
      let leaf = leaves[number] ?? [0, 0, 0, 0]
      return CPUIDLeaf(eax: leaf[0], ebx: leaf[1], ecx: leaf[2], edx: leaf[3])
    }
    switch isolation {
    case .off: #expect(told == .none(.conventional))
    case .vbs:
      #expect(
        told
          == .isolated(
            IsolatedMachine(kind: .vbs, hasParavisor: false, offersConfidentialVMBus: false)))
    case .vbsConfidential:
      #expect(
        told
          == .isolated(
            IsolatedMachine(kind: .vbs, hasParavisor: true, offersConfidentialVMBus: true)))
    case .snpConfidential:
      #expect(
        told
          == .isolated(
            IsolatedMachine(kind: .sevSNP, hasParavisor: true, offersConfidentialVMBus: true)))
    }
  }
}
