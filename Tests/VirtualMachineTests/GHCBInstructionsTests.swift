// SPDX-License-Identifier: Apache-2.0

import Testing

@testable import VirtualMachine

@Suite struct GHCBInstructionsTests {
  typealias Replacement = GHCBInstructions.Replacement

  /// As compilers make it of Linux's negotiation: mov ecx, 0xc0010130; rdmsr; mov rsi, rax; mov eax, 2;
  /// wrmsr; rep vmmcall; ret. Then the argument of a function: mov edi, 0xc0010130; call.
  static let text: [UInt8] = [
    0xB9, 0x30, 0x01, 0x01, 0xC0, 0x0F, 0x32, 0x48, 0x89, 0xC6, 0xB8, 2, 0, 0, 0, 0x0F, 0x30, 0xF3,
    0x0F, 0x01, 0xD9, 0xC3, 0xBF, 0x30, 0x01, 0x01, 0xC0, 0xE8, 0, 0, 0, 0,
  ]

  @Test func exitsAndTheRegisterAreReplaced() {
    #expect(
      GHCBInstructions.replacements(in: [0x90, 0xF3] + Self.text) == [
        Replacement(offset: 3, bytes: [0x30, 0x01, 0x00, 0x40]),
        Replacement(offset: 19, bytes: [0xE6, 0xEA, 0x90, 0x90]),
        Replacement(offset: 25, bytes: [0x30, 0x01, 0x00, 0x40]),
      ])
  }

  @Test(
    arguments: [
      [],
      // A plain VMMCALL, another register, the number without a move, and each cut off.
      [0x0F, 0x01, 0xD9, 0xC3],
      [0xB9, 0x31, 0x01, 0x01, 0xC0], [0x81, 0x30, 0x01, 0x01, 0xC0],
      [0xB9, 0x30, 0x01, 0x01], [0xF3, 0x0F, 0x01], [0xBF],
    ] as [[UInt8]])
  func othersAreLeftAlone(_ text: [UInt8]) {
    #expect(GHCBInstructions.replacements(in: text).isEmpty)
  }

  @Test func aKernelInMemoryIsReplaced() throws {
    let memory = try MachineMemory(byteCount: 64 << 20, isIsolated: true)
    #expect(memory.write(0x100_0000 + 100, Self.text))
    #expect(memory.replaceGHCBInstructions(at: 0x100_0000, byteCount: 4096))
    #expect(memory.read(0x100_0000 + 101, count: 4) == [0x30, 0x01, 0x00, 0x40])
    #expect(memory.read(0x100_0000 + 117, count: 4) == [0xE6, 0xEA, 0x90, 0x90])
    // Nothing is left to be replaced; and there is no memory.
    #expect(!memory.replaceGHCBInstructions(at: 0x100_0000, byteCount: 4096))
    #expect(!memory.replaceGHCBInstructions(at: 64 << 20, byteCount: 4096))
  }
}
