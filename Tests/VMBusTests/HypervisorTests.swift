// SPDX-License-Identifier: Apache-2.0

import Testing

@testable import VMBus

@Suite struct HypervisorTests {
  /// A processor that says just these leaves.
  private func cpuid(_ leaves: [UInt32: CPUIDLeaf]) -> CPUIDSource {
    { leaves[$0] ?? CPUIDLeaf() }
  }

  @Test func withoutTheBitThereIsNone() {
    let leaves: [UInt32: CPUIDLeaf] = [
      1: CPUIDLeaf(ecx: 0x7FFF_FFFF),
      0x4000_0000: CPUIDLeaf(ebx: 0x7263_694D, ecx: 0x666F_736F, edx: 0x7648_2074),
    ]
    #expect(Hypervisor(cpuid(leaves)) == .none)
  }

  /// "Micr" "osof" "t Hv", least significant byte first.
  @Test func hyperV() {
    let leaves: [UInt32: CPUIDLeaf] = [
      1: CPUIDLeaf(ecx: 0x8000_0000),
      0x4000_0000: CPUIDLeaf(
        eax: 0x4000_000B, ebx: 0x7263_694D, ecx: 0x666F_736F, edx: 0x7648_2074),
    ]
    #expect(Hypervisor(cpuid(leaves)) == .hyperV)
  }

  /// "KVMK" "VMKV" "M\0\0\0".
  @Test func another() {
    let leaves: [UInt32: CPUIDLeaf] = [
      1: CPUIDLeaf(ecx: 0x8000_0000),
      0x4000_0000: CPUIDLeaf(
        eax: 0x4000_0001, ebx: 0x4B4D_564B, ecx: 0x564B_4D56, edx: 0x0000_004D),
    ]
    #expect(Hypervisor(cpuid(leaves)) == .other(vendor: "KVMKVMKVM"))
  }
}
