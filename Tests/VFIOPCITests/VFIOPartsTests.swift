// SPDX-License-Identifier: Apache-2.0

import PCIFunction
import Platform
import TestSupport
import Testing
import VSC

@testable import VFIOPCI

@Suite struct AddressAllocatorTests {
  @Test func addressesAreHandedOutOnceAndNotTheLowestOnes() {
    var free = AddressAllocator([0...0x20_1FFF])
    #expect(free.take(4096) == 0x10_0000)
    #expect(free.take(8192) == 0x10_1000)
    #expect(free.take(0x10_0000 - 0x1000) == 0x10_3000)
    #expect(free.take(4096) == nil)
    #expect(free.take(0) == nil)
  }

  @Test func largeStretchesLieOnMultiplesOf2MiB() {
    var free = AddressAllocator([0x10_1000...0xFFFF_FFFF])
    #expect(free.take(2 << 20) == 0x20_0000)
    #expect(free.take(3 << 20) == 0x40_0000)
  }

  @Test func aHoleIsLeftOut() {
    // Where x86 has its interrupts.
    var free = AddressAllocator([0xFEDF_F000...0xFEDF_FFFF, 0xFEF0_0000...0xFEFF_FFFF])
    #expect(free.take(8192) == 0xFEF0_0000)
    #expect(free.take(4096) == 0xFEDF_F000)
    #expect(free.take(4096) == 0xFEF0_2000)
  }

  @Test func theEndOfAllAddressesIsNoTrap() {
    var free = AddressAllocator([UInt64.max - 4095...UInt64.max])
    #expect(free.take(2 << 20) == nil)
    #expect(free.take(4096) == UInt64.max - 4095)
    #expect(free.take(4096) == nil)
  }
}

/// A configuration space in a file, behind something else.
@Suite struct PCIConfigurationTests {
  private static let offset = 4096
  private let file = makeRingFile(byteCount: 4096 + 256)

  private var space: PCIConfiguration {
    PCIConfiguration(descriptor: file, offset: UInt64(Self.offset), byteCount: 256)
  }

  @Test func registersAreLittleEndianAndChecked() throws {
    defer { closeFile(file) }
    try space.write(0x1B36, at: 0, width: 2)
    try space.write(0x10, at: 2, width: 1)
    #expect(try space.read(at: 0, width: 4) == 0x10_1B36)
    #expect(try space.read(at: 1, width: 1) == 0x1B)
    for (place, width) in [(-4, 4), (256, 1), (253, 4), (254, 4), (2, 4), (1, 2), (0, 3), (0, 8)] {
      #expect(throws: PCIError.badAccess(offset: place, byteCount: width, limit: 256)) {
        try space.read(at: place, width: width)
      }
    }
  }

  @Test func busMasteringIsTheThirdBitAlone() throws {
    defer { closeFile(file) }
    try space.write(0x0403, at: 4, width: 2)
    try space.setBusMastering(true)
    #expect(try space.read(at: 4, width: 2) == 0x0407)
    try space.setBusMastering(false)
    #expect(try space.read(at: 4, width: 2) == 0x0403)
  }

  @Test func nobodysAnswerIsTheEnd() throws {
    defer { closeFile(file) }
    #expect(!space.isGone)
    try space.write(0xFFFF_FFFF, at: 8, width: 4)
    try space.write(0xFFFF, at: 4, width: 2)
    #expect(space.isGone)
    // A file keeps what is written; a bus would not.
    #expect(throws: PCIError.self) {
      try PCIConfiguration(descriptor: -1, offset: 0, byteCount: 256).setBusMastering(false)
    }
  }

  @Test func transfersThatDoNotEndAreAnError() throws {
    defer { closeFile(file) }
    // A list of capabilities: one that is not it, then PCI Express at 0x60.
    try space.write(0x0010, at: 6, width: 2)
    try space.write(0x40, at: 0x34, width: 1)
    try space.write(0x6005, at: 0x40, width: 2)
    try space.write(0x0010, at: 0x60, width: 2)
    try space.setBusMastering(false)
    try space.write(1 << 5, at: 0x6A, width: 2)
    #expect(throws: PCIError.transport(.timedOut("end of the function's transfers"))) {
      try space.setBusMastering(false)
    }
  }

  @Test func aListOfCapabilitiesInACircleEnds() throws {
    defer { closeFile(file) }
    try space.write(0x0010, at: 6, width: 2)
    try space.write(0x40, at: 0x34, width: 1)
    try space.write(0x4005, at: 0x40, width: 2)
    try space.setBusMastering(false)
  }
}

/// Registers in a file that can be cut off, as a kernel takes a BAR away.
@Suite(.serialized) struct MappedBARTests {
  private let file = makeRingFile(byteCount: 8192)

  @Test func registersThatAreTakenAwayReadAsAllOnes() throws {
    defer { closeFile(file) }
    let bar = try MappedBAR(file, offset: 0, byteCount: 8192, reason: .rescinded)
    let registers = bar.registers
    try registers.write32(0x0102_0304, at: 4096)
    #expect(try registers.read8(at: 4099) == 1 && bar.end == nil)
    cutOff(file)
    #expect(try registers.read32(at: 4096) == .max)
    #expect(bar.end == .rescinded)
    // Writing harms nobody.
    try registers.write64(0, at: 8)
    #expect(try registers.read32(at: 16) == .max)
  }

  @Test func registersCanBeTakenAwayOnPurpose() throws {
    defer { closeFile(file) }
    let bar = try MappedBAR(file, offset: 4096, byteCount: 4096, reason: .rescinded)
    let registers = bar.registers
    #expect(try registers.read32(at: 0) == 0)
    bar.revoke()
    bar.revoke()
    #expect(try registers.read64(at: 0) == .max && bar.end == .rescinded)
  }

  @Test func manyThreadsMayTouchThemMeanwhile() async throws {
    defer { closeFile(file) }
    let bar = try MappedBAR(file, offset: 0, byteCount: 8192, reason: .rescinded)
    let registers = bar.registers
    cutOff(file)
    await withTaskGroup(of: Bool.self) { group in
      for index in 0..<8 {
        group.addTask { (try? registers.read32(at: index * 1024)) == .max }
      }
      for await isAllOnes in group { #expect(isAllOnes) }
    }
  }
}
