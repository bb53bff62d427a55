// SPDX-License-Identifier: Apache-2.0

import CKVM
import Testing

@testable import VirtualMachine

@Suite struct CPUIDLeavesTests {
  static func leaf(
    _ function: UInt32, _ index: UInt32 = 0, _ eax: UInt32 = 0, _ ebx: UInt32 = 0,
    _ ecx: UInt32 = 0, _ edx: UInt32 = 0
  ) -> vmbus_kvm_cpuid {
    vmbus_kvm_cpuid(
      function: function, index: index, flags: 0, eax: eax, ebx: ebx, ecx: ecx, edx: edx)
  }

  static func leaves(
    _ supported: [vmbus_kvm_cpuid], processor: Int = 0, count: Int = 1
  ) -> [vmbus_kvm_cpuid] {
    // "Linux KVM Hv", as KVM calls itself.
    let hyperV = [
      leaf(0x4000_0000, 0, 0x4000_000A, 0x756E_694C, 0x564B_2078, 0x7648_204D),
      leaf(0x4000_0003, 0, 0xAAFF),
    ]
    return CPUIDLeaves.leaves(
      supported: supported, hyperV: hyperV, processor: processor, count: count)
  }

  @Test func theHypervisorIsMicrosofts() {
    let leaves = Self.leaves([Self.leaf(0x4000_0000, 0, 0x4000_0001), Self.leaf(0x4000_0001)])
    #expect(leaves.map(\.function) == [0x4000_0000, 0x4000_0003])
    let names = [leaves[0].ebx, leaves[0].ecx, leaves[0].edx]
    let text = names.flatMap { name in (0..<4).map { UInt8(truncatingIfNeeded: name >> (8 * $0)) } }
    #expect(String(decoding: text, as: UTF8.self) == "Microsoft Hv")
    #expect(leaves[0].eax == 0x4000_000A && leaves[1].eax == 0xAAFF)
  }

  @Test func aProcessorKnowsItsNumberAndThatItIsAGuests() {
    let leaves = Self.leaves([Self.leaf(1, 0, 0, 0xFF20_0801)], processor: 3, count: 4)
    #expect(leaves[0].ebx == 0x0304_0801)
    #expect(leaves[0].ecx == 1 << 31 && leaves[0].edx == 1 << 28)
    let alone = Self.leaves([Self.leaf(1, 0, 0, 0, 0, .max)])
    #expect(alone[0].ebx == 0x0001_0000 && alone[0].edx == ~(1 << 28))
  }

  @Test(arguments: [(1, 0), (2, 1), (3, 2), (4, 2), (5, 3), (16, 4)] as [(Int, UInt32)])
  func theTopologyIsThisMachines(_ count: Int, _ bits: UInt32) {
    let host = [0, 1, 2].map { Self.leaf(0xB, $0, 7, 99, 0, 42) }
    let leaves = Self.leaves(
      host + [Self.leaf(0x1F, 0, 1), Self.leaf(0x8000_0026, 0, 1)], processor: count - 1,
      count: count
    ).filter { $0.function < 0x4000_0000 || $0.function > 0x4000_FFFF }
    #expect(leaves.map(\.function) == [0xB, 0xB, 0xB])
    #expect(leaves.map(\.index) == [0, 1, 2])
    #expect(leaves.map(\.eax) == [0, bits, 0])
    #expect(leaves.map(\.ebx) == [1, UInt32(count), 0])
    #expect(leaves.map(\.ecx) == [0x100, 0x201, 2])
    #expect(leaves.allSatisfy { $0.edx == UInt32(count - 1) })
  }

  @Test func cachesAreShared() {
    // Levels 1 and 3 of Intel, as of a machine with 64 threads.
    let host = [Self.leaf(4, 0, 0xFC00_4121), Self.leaf(4, 1, 0xFC0F_C163), Self.leaf(4, 2, 0)]
    let leaves = Self.leaves(host, count: 4)
    #expect(leaves[0].eax == 0x0C00_0121)
    #expect(leaves[1].eax == 0x0C00_C163)
    #expect(leaves[2].eax == 0)
    let amd = Self.leaves([Self.leaf(0x8000_0008, 0, 0, 0, 0x0003_703F)], count: 4)
    #expect(amd[0].ecx == 0x0003_2003)
  }
}
