// SPDX-License-Identifier: Apache-2.0

import Testing

@testable import VirtualMachine

@Suite struct HostVisibleMemoryTests {
  static let boundary: UInt64 = 1 << 38

  @Test func anOrdinaryMachineHasNone() throws {
    let memory = try MachineMemory(byteCount: 64 << 20)
    #expect(memory.hostVisible == nil && memory.isVisible(1) == nil)
    #expect(memory.read(Self.boundary, count: 1) == nil)
  }

  /// By its visibility, whether an address has the bit or not.
  @Test func aPageIsTheMemoryOfItsVisibility() throws {
    let memory = try MachineMemory(byteCount: 64 << 20, isIsolated: true)
    #expect(memory.isVisible(5) == false)
    #expect(memory.write(0x5000, [1, 2, 3, 4]))
    #expect(memory.read(Self.boundary | 0x5000, count: 4) == [1, 2, 3, 4])
    memory.setVisible(5, true)
    #expect(memory.isVisible(5) == true && memory.isVisible(4) == false)
    #expect(memory.isVisible(6) == false)
    #expect(memory.read(0x5000, count: 4) == [0, 0, 0, 0])
    #expect(memory.write(Self.boundary | 0x5000, [5, 6, 7, 8]))
    #expect(memory.word(0x5000) == 0x0807_0605)
    #expect(memory.setBits(0x5000, 0x80))
    #expect(memory.word(Self.boundary | 0x5000) == 0x0807_0685)
  }

  @Test func nothingStaysWhereItWas() throws {
    let memory = try MachineMemory(byteCount: 64 << 20, isIsolated: true)
    let visible = try #require(memory.hostVisible)
    #expect(memory.write(0x5FFF, [1, 9]))
    for isVisible in [true, false, true] {
      memory.setVisible(5, isVisible)
      #expect(memory.read(0x5000, count: 4096)?.allSatisfy { $0 == 0 } == true)
      #expect(memory.write(0x5000, [7]))
    }
    memory.setVisible(5, false)
    #expect(unsafe visible.start(at: 0x5000).load(as: UInt8.self) == 0)
    // The page behind it has what it had.
    #expect(memory.read(0x6000, count: 1) == [9])
  }

  @Test func aStretchOfBothKindsIsNone() throws {
    let memory = try MachineMemory(byteCount: 64 << 20, isIsolated: true)
    memory.setVisible(6, true)
    #expect(memory.read(0x5FFF, count: 1) != nil && memory.read(0x6000, count: 1) != nil)
    #expect(memory.read(0x5FFF, count: 2) == nil && !memory.write(0x5FFF, [1, 2]))
    #expect(memory.read(0x6FFF, count: 2) == nil)
    memory.setVisible(7, true)
    #expect(memory.read(0x6FFF, count: 2) == [0, 0])
  }

  @Test(arguments: [64 << 20, 1 << 37, 1 << 39, .max, 1 << 38 | 64 << 20] as [UInt64])
  func outsideIsNothing(_ address: UInt64) throws {
    let memory = try MachineMemory(byteCount: 64 << 20, isIsolated: true)
    #expect(memory.read(address, count: 1) == nil && !memory.setBits(address & ~3, 1))
    #expect(memory.isVisible(address / 4096) == nil)
    memory.setVisible(address / 4096, true)
    #expect(memory.isVisible(.max) == nil)
  }

  /// Behind the hole of the devices too.
  @Test func highMemoryHasItsBits() throws {
    let memory = try MachineMemory(byteCount: 4 << 30, isIsolated: true)
    memory.setVisible(0x10_0000, true)
    #expect(memory.isVisible(0x10_0000) == true)
    #expect(memory.isVisible(0xBFFFF) == false && memory.isVisible(0xC0000) == nil)
    #expect(memory.write(4 << 30, [3]))
    #expect(memory.read(Self.boundary | 4 << 30, count: 1) == [3])
  }
}
