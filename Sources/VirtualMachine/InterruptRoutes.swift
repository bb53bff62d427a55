// SPDX-License-Identifier: Apache-2.0

import CKVM
import VMBus

/// Where each interrupt goes. KVM takes the whole table at once, so that its own is said again here.
enum InterruptRoutes {
  static func table(processorCount: Int) -> [vmbus_kvm_route] {
    var routes: [vmbus_kvm_route] = []
    for line in 0..<MachineLayout.pins where line != 2 {
      // 16 lines go to the two PICs, 8 each; the second one hangs on line 2 of the first.
      if line < 16 {
        routes.append(
          vmbus_kvm_route(
            gsi: line, is_sint: false, target: line < 8 ? 0 : 1, line: line & 7))
      }
      // The timer's line 0 is pin 2 of the IOAPIC.
      routes.append(
        vmbus_kvm_route(gsi: line, is_sint: false, target: 2, line: line == 0 ? 2 : line))
    }
    for processor in 0..<processorCount {
      routes.append(
        vmbus_kvm_route(
          gsi: MachineLayout.interrupt(ofProcessor: processor), is_sint: true,
          target: UInt32(processor), line: UInt32(SynIC.vmbusSINT)))
    }
    return routes
  }
}
