// SPDX-License-Identifier: Apache-2.0

import CLinux
public import VMBus

// What the processor says that this runs on.

extension Hypervisor {
  package static var current: Hypervisor {
    vmbus_has_cpuid() ? Hypervisor(processorCPUID) : .unknown
  }
}

extension Isolation {
  public static var current: Isolation {
    Hypervisor.current == .unknown ? .unknown : Isolation(processorCPUID)
  }
}

private func processorCPUID(_ leaf: UInt32) -> CPUIDLeaf {
  let answer = vmbus_cpuid(leaf)
  return CPUIDLeaf(eax: answer.eax, ebx: answer.ebx, ecx: answer.ecx, edx: answer.edx)
}
