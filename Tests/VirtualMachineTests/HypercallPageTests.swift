// SPDX-License-Identifier: Apache-2.0

import Testing

@testable import VirtualMachine

@Suite struct HypercallPageTests {
  // KVM's, on AMD and Intel: VMMCALL or VMCALL, and RET.
  @Test(arguments: [0xD9, 0xC1] as [UInt8])
  func oneCallGoesToAPort(_ instruction: UInt8) {
    #expect(
      HypercallPage.code(over: [0x0F, 0x01, instruction, 0xC3]) == [
        0x66, 0x81, 0xF9, 0xDB, 0x00,  // cmp cx, 0xdb
        0x74, 0x04,  // je over the next two
        0x0F, 0x01, instruction,
        0xC3,  // ret
        0xE7, 0xE9,  // out 0xe9, eax
        0xC3,  // ret
      ])
  }

  @Test(
    arguments: [
      [], [0x0F, 0x01, 0xD9], [0, 0, 0, 0], [0x0F, 0x01, 0xC2, 0xC3], [0xF3, 0x0F, 0x1E, 0xFA],
      [0x0D, 0, 0, 0, 0x80, 0x0F, 0x01, 0xD9, 0xC3],
    ] as [[UInt8]])
  func otherCodeIsLeftAlone(_ page: [UInt8]) { #expect(HypercallPage.code(over: page) == nil) }

  @Test func theRegisterTellsWhere() throws {
    #expect(HypercallPage.address(0x1234_5001) == 0x1234_5000)
    #expect(HypercallPage.address(0x1234_5000) == nil)
    let memory = try MachineMemory(byteCount: 64 << 20, isIsolated: true)
    #expect(memory.placeHypercallPage(0x3000))
    // No code of KVM's there, and no memory.
    #expect(!memory.placeHypercallPage(0x3001))
    #expect(!memory.placeHypercallPage(1 << 40 | 1))
    #expect(memory.write(0x3000, [0x0F, 0x01, 0xD9, 0xC3]))
    #expect(memory.placeHypercallPage(0x3001))
    #expect(memory.read(0x3000, count: 7) == [0x66, 0x81, 0xF9, 0xDB, 0, 0x74, 4])
  }
}
