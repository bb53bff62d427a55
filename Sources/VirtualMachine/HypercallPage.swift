// SPDX-License-Identifier: Apache-2.0

import VMBus

/// The page that a guest calls for its hypercalls. KVM fills it, and answers the visibility call as
/// unknown without asking anybody: so that call goes to a port instead, which stops the processor.
enum HypercallPage {
  /// The register by which the guest says where it wants the page.
  static let register: UInt32 = 0x4000_0001

  /// The page's address; nil when the guest has turned it off.
  static func address(_ register: UInt64) -> UInt64? {
    register & 1 != 0 ? register & ~4095 : nil
  }

  /// The code to lay over KVM's.
  ///
  /// - Parameter page: what KVM has put there.
  /// - Returns: nil when that is something else than VMCALL or VMMCALL, and RET.
  static func code(over page: [UInt8]) -> [UInt8]? {
    let call = page.prefix(4)
    guard call == [0x0F, 0x01, 0xC1, 0xC3] || call == [0x0F, 0x01, 0xD9, 0xC3] else { return nil }
    let code = UInt8(truncatingIfNeeded: VisibilityHypercall.code)
    let port = UInt8(truncatingIfNeeded: MachineLayout.visibilityPort)
    // cmp cx, CODE; je PORT
    let test: [UInt8] = [0x66, 0x81, 0xF9, code, 0, 0x74, UInt8(call.count)]
    // PORT: out port, eax; ret
    return test + call + [0xE7, port, 0xC3]
  }
}

extension MachineMemory {
  /// The guest has written the register, and KVM has put its code where that says.
  ///
  /// - Returns: false when it is no code that is known.
  func placeHypercallPage(_ register: UInt64) -> Bool {
    guard let address = HypercallPage.address(register) else { return true }
    guard let page = read(address, count: 4), let code = HypercallPage.code(over: page) else {
      return false
    }
    return write(address, code)
  }
}
