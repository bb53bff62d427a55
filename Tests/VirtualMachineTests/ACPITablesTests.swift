// SPDX-License-Identifier: Apache-2.0

import Testing

@testable import VirtualMachine

@Suite struct ACPITablesTests {
  static func sum(_ bytes: some Sequence<UInt8>) -> UInt8 { bytes.reduce(0, &+) }

  static func word(_ bytes: [UInt8], _ offset: Int, count: Int = 4) -> Int {
    bytes[offset..<offset + count].reversed().reduce(0) { $0 << 8 | Int($1) }
  }

  /// The table that lies at a physical address.
  static func table(_ memory: [UInt8], at address: Int) -> [UInt8] {
    let start = address - 0xE0000
    return Array(memory[start..<start + word(memory, start + 4)])
  }

  @Test func theRootPointerHasTwoSums() {
    let pointer = ACPITables.pointer
    #expect(pointer.prefix(8) == Array("RSD PTR ".utf8)[...])
    #expect(pointer[15] == 2)
    #expect(Self.sum(pointer.prefix(20)) == 0 && Self.sum(pointer) == 0)
    #expect(Self.word(pointer, 24, count: 8) == 0xE0100)
  }

  @Test(arguments: [1, 2, 16]) func everyTableIsFoundAndAddsUp(_ processors: Int) {
    let memory = ACPITables.memory(processorCount: processors)
    #expect(memory.count <= 0x20000)
    let xsdt = Self.table(memory, at: 0xE0100)
    #expect(Self.sum(xsdt) == 0 && xsdt.count == 36 + 2 * 8)
    let fadt = Self.table(memory, at: Self.word(xsdt, 36, count: 8))
    let madt = Self.table(memory, at: Self.word(xsdt, 44, count: 8))
    #expect(fadt.prefix(4) == Array("FACP".utf8)[...] && Self.sum(fadt) == 0)
    #expect(madt.prefix(4) == Array("APIC".utf8)[...] && Self.sum(madt) == 0)
    let dsdt = Self.table(memory, at: Self.word(fadt, 40))
    #expect(Self.word(fadt, 140, count: 8) == Self.word(fadt, 40))
    #expect(dsdt.prefix(4) == Array("DSDT".utf8)[...] && Self.sum(dsdt) == 0)
    let facs = Self.word(fadt, 36) - 0xE0000
    #expect(Array(memory[facs..<facs + 4]) == Array("FACS".utf8))
    // One local controller each.
    let ids = (0..<processors).map { Array(madt[44 + 8 * $0..<52 + 8 * $0]) }
    #expect(ids == (0..<processors).map { [0, 8, UInt8($0), UInt8($0), 1, 0, 0, 0] })
  }

  // Offsets by ACPI 6.5, table 5.9.
  @Test func powerIsWhereTheKernelLooks() {
    let fadt = ACPITables.fadt
    #expect(fadt.count == 276)
    #expect(Self.word(fadt, 46, count: 2) == 9)
    #expect(Self.word(fadt, 56) == 0x600 && Self.word(fadt, 64) == 0x604)
    #expect(fadt[88] == 4 && fadt[89] == 2)
    #expect(fadt[108] == 0x32)
    #expect(fadt[116...119] == [1, 8, 0, 1] && Self.word(fadt, 120, count: 8) == 0xCF9)
    #expect(fadt[128] == 6)
  }

  // By hand from ACPI 6.5, chapter 20.
  @Test func theBusIsADevice() {
    let content: [UInt8] = [
      0x08, 0x5F, 0x53, 0x35, 0x5F, 0x12, 0x07, 0x04, 0x0A, 0x05, 0x00, 0x00, 0x00,
      0x10, 0x33, 0x5F, 0x53, 0x42, 0x5F,
      0x5B, 0x82, 0x2C, 0x56, 0x4D, 0x42, 0x53,
      0x08, 0x5F, 0x48, 0x49, 0x44, 0x0D, 0x56, 0x4D, 0x42, 0x55, 0x53, 0x00,
      0x08, 0x5F, 0x55, 0x49, 0x44, 0x00,
      0x08, 0x5F, 0x53, 0x54, 0x41, 0x0A, 0x0F,
      0x08, 0x5F, 0x43, 0x52, 0x53, 0x11, 0x08, 0x0A, 0x05, 0x22, 0x80, 0x00, 0x79, 0x00,
    ]
    #expect(Array(ACPITables.dsdt.dropFirst(36)) == content)
  }

  @Test func longPackagesHaveTwoLengthBytes() {
    // With one byte of length 0x3F is the most: that byte, 2 of size, 60.
    #expect(AML.buffer([UInt8](repeating: 0, count: 60)).prefix(4) == [0x11, 0x3F, 0x0A, 60])
    // 2 bytes of length, 2 of size, 61: 0x41, whose low four bits come first.
    let buffer = AML.buffer([UInt8](repeating: 0, count: 61))
    #expect(buffer.prefix(5) == [0x11, 0x41, 0x04, 0x0A, 61])
  }
}
