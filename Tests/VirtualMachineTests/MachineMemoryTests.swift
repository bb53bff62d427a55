// SPDX-License-Identifier: Apache-2.0

import SimulatedLink
import Testing

@testable import VirtualMachine

@Suite struct MachineMemoryTests {
  static func error(_ byteCount: Int) -> MachineError? {
    do throws(MachineError) {
      _ = try MachineMemory(byteCount: byteCount)
      return nil
    } catch {
      return error
    }
  }

  @Test func sizesHaveLimits() {
    #expect(Self.error(0) == .badMemorySize(0))
    #expect(Self.error((64 << 20) + 1) == .badMemorySize((64 << 20) + 1))
    #expect(Self.error(.max & ~4095) == .badMemorySize(.max & ~4095))
    #expect(Self.error(64 << 20) == nil)
  }

  // It takes room only as it is used.
  @Test func moreThan3GiBHasAHole() throws {
    let memory = try MachineMemory(byteCount: 5 << 30)
    #expect(memory.regions.map(\.firstPage) == [0, 0x10_0000])
    #expect(memory.regions.map(\.pageCount) == [0xC_0000, 0x8_0000])
    #expect(memory.regions.map(\.fileOffset) == [0, 3 << 30])
    #expect(memory.write(4 << 30, [7]))
    #expect(memory.read(4 << 30, count: 1) == [7])
    #expect(memory.read(3 << 30, count: 1) == nil)
    #expect(memory.read((3 << 30) - 1, count: 2) == nil)
    #expect(memory.read((4 << 30) - 1, count: 2) == nil)
    #expect(memory.read((6 << 30) - 1, count: 1) == [0])
    #expect(memory.read((6 << 30) - 1, count: 2) == nil)
  }

  @Test(arguments: [64 << 20, .max, .max - 255, 1 << 63, 0xFEE0_0000] as [UInt64])
  func outsideIsNothing(_ address: UInt64) throws {
    let memory = try MachineMemory(byteCount: 64 << 20)
    #expect(memory.read(address, count: 256) == nil)
    #expect(!memory.write(address, [1]))
    #expect(memory.word(address & ~3) == nil)
  }

  @Test func wordsAreAligned() throws {
    let memory = try MachineMemory(byteCount: 64 << 20)
    #expect(memory.write(8, [1, 2, 3, 4]))
    #expect(memory.word(8) == 0x0403_0201)
    #expect(memory.word(9) == nil)
  }
}
