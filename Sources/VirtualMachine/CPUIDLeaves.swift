// SPDX-License-Identifier: Apache-2.0

import CKVM
import VMBus

/// What CPUID tells the guest: the processor as KVM can give it, in this machine's topology, on
/// Microsoft's hypervisor.
enum CPUIDLeaves {
  static let hypervisorLeaves: Range<UInt32> = 0x4000_0000..<0x4001_0000
  /// "Microsoft Hv": Linux looks for exactly this.
  static let vendor: (ebx: UInt32, ecx: UInt32, edx: UInt32) = (
    0x7263_694D, 0x666F_736F, 0x7648_2074
  )

  /// - Parameters:
  ///   - supported: what KVM can give.
  ///   - hyperV: its Hyper-V leaves.
  ///   - processor: which of `count` processors it is.
  ///   - isolation: what the machine hides from its host.
  static func leaves(
    supported: [vmbus_kvm_cpuid], hyperV: [vmbus_kvm_cpuid], processor: Int, count: Int,
    isolation: GuestIsolation = .off
  ) -> [vmbus_kvm_cpuid] {
    var leaves: [vmbus_kvm_cpuid] = []
    for leaf in supported where !hypervisorLeaves.contains(leaf.function) {
      var leaf = leaf
      switch leaf.function {
      // Topologies of the machine that we run on; leaf 0xB has this machine's.
      case 0xB, 0x1F, 0x8000_0026: continue
      case 1: setFeatures(&leaf, processor, count)
      case 4: setSharing(&leaf, count)
      case 0x8000_0008: leaf.ecx = leaf.ecx & ~0xF0FF | idBits(count) << 12 | UInt32(count - 1)
      case 0x8000_001E:
        leaf.eax = UInt32(processor)
        leaf.ebx = UInt32(processor)
        leaf.ecx = 0
      default: break
      }
      leaves.append(leaf)
    }
    if supported.contains(where: { $0.function == 0xB }) {
      leaves += topology(processor, count)
    }
    for var leaf in hyperV {
      if leaf.function == 0x4000_0000 {
        (leaf.ebx, leaf.ecx, leaf.edx) = vendor
      }
      leaves.append(leaf)
    }
    if isolation.isIsolated { isolate(&leaves, isolation) }
    return leaves
  }

  /// The leaves of the virtualisation stack, which are the paravisor's. KVM has some there for its
  /// debugger.
  private static let stackLeaves: ClosedRange<UInt32> = 0x4000_0080...0x4000_0082

  private static func isolate(_ leaves: inout [vmbus_kvm_cpuid], _ isolation: GuestIsolation) {
    leaves.removeAll { stackLeaves.contains($0.function) }
    for (number, told) in isolation.leaves.sorted(by: { $0.key < $1.key })
    where hypervisorLeaves.contains(number) {
      let index =
        leaves.firstIndex { $0.function == number } ?? leaves.endIndex
      if index == leaves.endIndex {
        leaves.append(
          vmbus_kvm_cpuid(function: number, index: 0, flags: 0, eax: 0, ebx: 0, ecx: 0, edx: 0))
      }
      if number == hypervisorLeaves.lowerBound {
        leaves[index].eax = max(leaves[index].eax, told.eax)
      } else {
        // Beside what KVM says there.
        leaves[index].eax |= told.eax
        leaves[index].ebx |= told.ebx
      }
    }
    if isolation.hasParavisor {
      // "Microsoft VS", and the last of its leaves.
      leaves.append(
        vmbus_kvm_cpuid(
          function: stackLeaves.lowerBound, index: 0, flags: 0, eax: stackLeaves.upperBound,
          ebx: vendor.ebx, ecx: vendor.ecx, edx: 0x5356_2074))
    }
  }

  /// Leaf 1: there is a hypervisor; the number of this processor, and how many there are.
  private static func setFeatures(
    _ leaf: inout vmbus_kvm_cpuid, _ processor: Int, _ count: Int
  ) {
    leaf.ecx |= 1 << 31
    leaf.ebx = leaf.ebx & 0xFFFF | UInt32(count) << 16 | UInt32(processor) << 24
    leaf.edx = count > 1 ? leaf.edx | 1 << 28 : leaf.edx & ~(1 << 28)
  }

  /// Leaf 4 (Intel): each processor is a core of one package, and has its own caches but the third.
  private static func setSharing(_ leaf: inout vmbus_kvm_cpuid, _ count: Int) {
    guard leaf.eax & 0x1F != 0 else { return }
    let sharing = (leaf.eax >> 5) & 7 == 3 ? UInt32(count - 1) : 0
    leaf.eax = leaf.eax & 0x3FFF | sharing << 14 | UInt32(count - 1) << 26
  }

  /// Leaf 0xB: one thread for each core, and all cores in one package.
  private static func topology(_ processor: Int, _ count: Int) -> [vmbus_kvm_cpuid] {
    let levels: [(eax: UInt32, ebx: UInt32, type: UInt32)] = [
      (0, 1, 1), (idBits(count), UInt32(count), 2), (0, 0, 0),
    ]
    return levels.enumerated().map { index, level in
      vmbus_kvm_cpuid(
        function: 0xB, index: UInt32(index), flags: UInt32(KVM_CPUID_FLAG_SIGNIFCANT_INDEX),
        eax: level.eax, ebx: level.ebx, ecx: UInt32(index) | level.type << 8,
        edx: UInt32(processor))
    }
  }

  /// How many bits a processor's number has.
  private static func idBits(_ count: Int) -> UInt32 {
    UInt32(Int.bitWidth - (count - 1).leadingZeroBitCount)
  }
}
