// SPDX-License-Identifier: Apache-2.0

import CKVM
import Testing

@testable import VirtualMachine

@Suite struct KernelLoaderTests {
  static func word(_ memory: MachineMemory, _ address: UInt64) -> UInt64 {
    let bytes = memory.read(address, count: 8) ?? []
    return bytes.reversed().reduce(0) { $0 << 8 | UInt64($1) }
  }

  static func configuration(
    change: (inout [UInt8]) -> Void = { _ in }
  ) throws -> VirtualMachine.Configuration {
    VirtualMachine.Configuration(kernel: try BootImage(kernelFile(change: change)))
  }

  @Test func everythingLiesWhereTheKernelLooks() throws {
    let memory = try MachineMemory(byteCount: 64 << 20)
    var configuration = try Self.configuration()
    configuration.initrd = [0x30, 0x37]
    configuration.commandLine = "quiet"
    let start = try KernelLoader.load(configuration, memory)
    #expect(start.instruction == 0x100_0200 && start.argument == 0x10000)
    #expect(memory.read(0x100_0000, count: 2) == [0xDE, 0xAD])
    #expect(memory.read(0x100_0200, count: 1) == [0xF4])
    #expect(memory.read(0x20000, count: 6) == Array("quiet".utf8) + [0])
    // The zero page: initrd in the last page, the command line, ACPI's pointer.
    #expect(memory.read(0x10218, count: 8) == [0, 0xF0, 0xFF, 3, 2, 0, 0, 0])
    #expect(memory.read(0x3FF_F000, count: 2) == [0x30, 0x37])
    #expect(memory.read(0x10228, count: 4) == [0, 0, 2, 0])
    #expect(memory.read(0x10070, count: 8) == [0, 0, 0x0E, 0, 0, 0, 0, 0])
    #expect(memory.read(0x10202, count: 4) == Array("HdrS".utf8))
    #expect(memory.read(0x10210, count: 2) == [0xFF, 0x81])
    #expect(memory.read(0xE0000, count: 8) == Array("RSD PTR ".utf8))
  }

  @Test func memoryIsTold() throws {
    let memory = try MachineMemory(byteCount: 64 << 20)
    _ = try KernelLoader.load(try Self.configuration(), memory)
    #expect(memory.read(0x101E8, count: 1) == [3])
    let entries = memory.read(0x102D0, count: 60)
    #expect(
      entries == [0, 0, 0, 0, 0, 0, 0, 0, 0x00, 0xFC, 0x09, 0, 0, 0, 0, 0, 1, 0, 0, 0]
        + [0, 0, 0x0E, 0, 0, 0, 0, 0, 0, 0, 0x02, 0, 0, 0, 0, 0, 3, 0, 0, 0]
        + [0, 0, 0x10, 0, 0, 0, 0, 0, 0, 0, 0xF0, 0x03, 0, 0, 0, 0, 1, 0, 0, 0])
  }

  @Test func whatDoesNotFitBelowTheDevicesLiesAt4GiB() {
    let map = MemoryRange.map(lowByteCount: 3 << 30, highByteCount: 1 << 30)
    #expect(map.last == MemoryRange(start: 4 << 30, byteCount: 1 << 30, kind: .usable))
    #expect(map.count == 4)
  }

  @Test func pageTablesMapTheLowest4GiBToThemselves() throws {
    let memory = try MachineMemory(byteCount: 64 << 20)
    let start = try KernelLoader.load(try Self.configuration(), memory)
    for address: UInt64 in [0, 0x1234_5678, 0xFFFF_FFFF] {
      let top = Self.word(memory, start.page_table + 8 * (address >> 39)) & ~0xFFF
      let second = Self.word(memory, top + 8 * (address >> 30 & 0x1FF)) & ~0xFFF
      let entry = Self.word(memory, second + 8 * (address >> 21 & 0x1FF))
      // Present, writable, large.
      #expect(entry & 0x83 == 0x83)
      #expect(entry & ~0x1F_FFFF == address & ~0x1F_FFFF)
    }
  }

  @Test func whatDoesNotFitIsRefused() throws {
    let memory = try MachineMemory(byteCount: 64 << 20)
    func error(_ configuration: VirtualMachine.Configuration) -> MachineError? {
      do throws(MachineError) {
        _ = try KernelLoader.load(configuration, memory)
        return nil
      } catch {
        return error
      }
    }
    // It unpacks itself into more than there is; it wants to lie at the end of the address space.
    #expect(
      error(try Self.configuration { $0[0x263] = 0x10 })
        == .doesNotFit("the kernel", byteCount: 1024))
    #expect(
      error(
        try Self.configuration {
          $0.replaceSubrange(0x258..<0x260, with: [UInt8](repeating: 0xFF, count: 8))
        }) == .doesNotFit("the kernel", byteCount: 1024))
    var configuration = try Self.configuration()
    configuration.initrd = [UInt8](repeating: 0, count: 48 << 20)
    #expect(error(configuration) == .doesNotFit("the initial file system", byteCount: 48 << 20))
    configuration = try Self.configuration()
    configuration.commandLine = String(repeating: "x", count: 2048)
    #expect(error(configuration) == .commandLineTooLong(byteCount: 2048, maximum: 2047))
  }
}
