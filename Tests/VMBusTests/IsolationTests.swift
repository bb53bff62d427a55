// SPDX-License-Identifier: Apache-2.0

import Testing

@testable import VMBus

/// Values of the leaves as Linux defines them (arch/x86/include/asm/hyperv-tlfs.h and its successors).
@Suite struct IsolationTests {
  /// "Microsoft Hv" with a last leaf, on a processor with the hypervisor bit.
  private func hyperV(lastLeaf: UInt32, _ more: [UInt32: CPUIDLeaf]) -> CPUIDSource {
    let leaves: [UInt32: CPUIDLeaf] = [
      1: CPUIDLeaf(ecx: 0x8000_0000),
      0x4000_0000: CPUIDLeaf(eax: lastLeaf, ebx: 0x7263_694D, ecx: 0x666F_736F, edx: 0x7648_2074),
    ].merging(more) { $1 }
    return { leaves[$0] ?? CPUIDLeaf() }
  }

  private static let isolated = CPUIDLeaf(ebx: 0x0040_0000)
  private static let stack = CPUIDLeaf(eax: 0x3123_5356)

  @Test func notHyperV() {
    #expect(Isolation { _ in CPUIDLeaf() } == .none(.notHyperV))
  }

  /// The other privileges set, that one not.
  @Test func conventional() {
    let cpuid = hyperV(lastLeaf: 0x4000_000C, [0x4000_0003: CPUIDLeaf(ebx: 0xFFBF_FFFF)])
    #expect(Isolation(cpuid) == .none(.conventional))
  }

  @Test func theLeavesEndTooEarly() {
    let before = hyperV(lastLeaf: 0x4000_0002, [0x4000_0003: Self.isolated])
    #expect(Isolation(before) == .none(.hypervisorTooOld(lastLeaf: 0x4000_0002)))
    // It says that the machine is isolated; what it answers to a leaf that it does not have, does not
    // count.
    let unfinished = hyperV(
      lastLeaf: 0x4000_0005,
      [
        0x4000_0003: Self.isolated, 0x4000_000C: CPUIDLeaf(eax: 1, ebx: 2),
      ])
    #expect(Isolation(unfinished) == .unknown)
  }

  @Test func vbsWithoutParavisor() {
    let cpuid = hyperV(
      lastLeaf: 0x4000_000C, [0x4000_0003: Self.isolated, 0x4000_000C: CPUIDLeaf(ebx: 0x1)])
    #expect(
      Isolation(cpuid)
        == .isolated(
          IsolatedMachine(kind: .vbs, hasParavisor: false, offersConfidentialVMBus: false)))
  }

  /// Shared boundary at bit 46 (active), type 2; the stack's properties with bits 2 and 3.
  @Test func snpWithParavisor() {
    let cpuid = hyperV(
      lastLeaf: 0x4000_000C,
      [
        0x4000_0003: Self.isolated, 0x4000_000C: CPUIDLeaf(eax: 0x1, ebx: 0xBA2),
        0x4000_0081: Self.stack, 0x4000_0082: CPUIDLeaf(eax: 0xC),
      ])
    #expect(
      Isolation(cpuid)
        == .isolated(
          IsolatedMachine(kind: .sevSNP, hasParavisor: true, offersConfidentialVMBus: true)))
  }

  @Test func tdxWithoutConfidentialVMBus() {
    let cpuid = hyperV(
      lastLeaf: 0x4000_000C,
      [
        0x4000_0003: Self.isolated, 0x4000_000C: CPUIDLeaf(eax: 0x1, ebx: 0x3),
        0x4000_0081: Self.stack, 0x4000_0082: CPUIDLeaf(eax: 0x7),
      ])
    #expect(
      Isolation(cpuid)
        == .isolated(
          IsolatedMachine(kind: .tdx, hasParavisor: true, offersConfidentialVMBus: false)))
  }

  /// A processor without those leaves answers with the last one that it has.
  @Test func withoutTheSignatureTheBitMeansNothing() {
    let cpuid = hyperV(
      lastLeaf: 0x4000_000C,
      [
        0x4000_0003: Self.isolated, 0x4000_000C: CPUIDLeaf(ebx: 0x2),
        0x4000_0081: CPUIDLeaf(eax: 0xFF), 0x4000_0082: CPUIDLeaf(eax: 0xFF),
      ])
    #expect(
      Isolation(cpuid)
        == .isolated(
          IsolatedMachine(kind: .sevSNP, hasParavisor: false, offersConfidentialVMBus: false)))
  }

  @Test func aKindThatIsNotKnown() {
    let cpuid = hyperV(
      lastLeaf: 0x4000_000C, [0x4000_0003: Self.isolated, 0x4000_000C: CPUIDLeaf(ebx: 0xF4)])
    #expect(
      Isolation(cpuid)
        == .isolated(
          IsolatedMachine(kind: .other(4), hasParavisor: false, offersConfidentialVMBus: false)))
  }

  @Test func isolatedOfNoKindIsNotIsolated() {
    let cpuid = hyperV(
      lastLeaf: 0x4000_000C, [0x4000_0003: Self.isolated, 0x4000_000C: CPUIDLeaf(ebx: 0xF0)])
    #expect(Isolation(cpuid) == .none(.conventional))
  }
}
