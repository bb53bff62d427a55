// SPDX-License-Identifier: Apache-2.0

/// The tables by which the kernel learns of processors, interrupts, power and the VMBus.
enum ACPITables {
  /// Where each of them lies within the firmware's memory.
  private enum Offset {
    static let rootPointer = 0
    static let facs = 0x40
    static let xsdt = 0x100
    static let fadt = 0x200
    static let madt = 0x400
    static let dsdt = 0x600
    static let end = 0x800
  }

  static let rootPointer = MachineLayout.firmware

  /// All tables as they lie from `MachineLayout.firmware` on.
  static func memory(processorCount: Int) -> [UInt8] {
    var memory = TableBytes(count: Offset.end)
    memory.set(Offset.rootPointer, pointer)
    memory.set(Offset.facs, facs)
    memory.set(Offset.xsdt, xsdt)
    memory.set(Offset.fadt, fadt)
    memory.set(Offset.madt, madt(processorCount: processorCount))
    memory.set(Offset.dsdt, dsdt)
    return memory.bytes
  }

  private static func address(_ offset: Int) -> UInt64 { MachineLayout.firmware + UInt64(offset) }

  /// A table with its header of 36 bytes.
  private static func table(_ signature: String, revision: UInt8, _ content: [UInt8]) -> [UInt8] {
    var table = TableBytes(count: 36 + content.count)
    table.set(0, signature)
    table.set(4, UInt32(36 + content.count))
    table.set(8, revision)
    table.set(10, "SWIFT ")
    table.set(16, "VMBUS-VM")
    table.set(24, UInt32(1))
    table.set(28, "SWFT")
    table.set(32, UInt32(1))
    table.set(36, content)
    table.setChecksum(9, count: 36 + content.count)
    return table.bytes
  }

  static var pointer: [UInt8] {
    var pointer = TableBytes(count: 36)
    pointer.set(0, "RSD PTR ")
    pointer.set(9, "SWIFT ")
    pointer.set(15, UInt8(2))
    pointer.set(20, UInt32(36))
    pointer.set(24, address(Offset.xsdt))
    // The first 20 bytes are a pointer of ACPI 1.0, with a sum of their own.
    pointer.setChecksum(8, count: 20)
    pointer.setChecksum(32, count: 36)
    return pointer.bytes
  }

  private static var facs: [UInt8] {
    var facs = TableBytes(count: 64)
    facs.set(0, "FACS")
    facs.set(4, UInt32(64))
    facs.set(32, UInt8(2))
    return facs.bytes
  }

  private static var xsdt: [UInt8] {
    var content = TableBytes(count: 16)
    content.set(0, address(Offset.fadt))
    content.set(8, address(Offset.madt))
    return table("XSDT", revision: 1, content.bytes)
  }

  /// Offsets are the specification's, less the header's 36 bytes.
  static var fadt: [UInt8] {
    var fadt = TableBytes(count: 276 - 36)
    func at(_ offset: Int) -> Int { offset - 36 }
    fadt.set(at(36), UInt32(truncatingIfNeeded: address(Offset.facs)))
    fadt.set(at(40), UInt32(truncatingIfNeeded: address(Offset.dsdt)))
    fadt.set(at(46), UInt16(MachineLayout.powerLine))
    fadt.set(at(56), UInt32(MachineLayout.powerEvents))
    fadt.set(at(64), UInt32(MachineLayout.powerControl))
    fadt.set(at(88), UInt8(4))
    fadt.set(at(89), UInt8(2))
    // Latencies that mean: there is no C2 and no C3.
    fadt.set(at(96), UInt16(101))
    fadt.set(at(98), UInt16(1001))
    fadt.set(at(108), RealTimeClock.century)
    // It has devices at their old ports, and no VGA.
    fadt.set(at(109), UInt16(0x05))
    // WBINVD, C1, no buttons at fixed places, and a reset register.
    fadt.set(at(112), 0x435 as UInt32)
    // The reset register: a port, 8 bits wide, one byte at a time; and what to write there.
    fadt.set(at(116), [1, 8, 0, 1] as [UInt8])
    fadt.set(at(120), UInt64(MachineLayout.resetControl))
    fadt.set(at(128), UInt8(6))
    fadt.set(at(132), address(Offset.facs))
    fadt.set(at(140), address(Offset.dsdt))
    return table("FACP", revision: 6, fadt.bytes)
  }

  static func madt(processorCount: Int) -> [UInt8] {
    var content = TableBytes(count: 8)
    content.set(0, UInt32(truncatingIfNeeded: MachineLayout.localInterruptController))
    // There are PICs as well.
    content.set(4, UInt32(1))
    var bytes = content.bytes
    for number in 0..<processorCount {
      let id = UInt8(truncatingIfNeeded: number)
      bytes += [0, 8, id, id, 1, 0, 0, 0]
    }
    var ioapic = TableBytes(count: 12)
    ioapic.set(0, [1, 12, UInt8(truncatingIfNeeded: processorCount)])
    ioapic.set(4, UInt32(truncatingIfNeeded: MachineLayout.interruptController))
    bytes += ioapic.bytes
    // The timer's line 0 is pin 2; the power line is level-triggered, active high.
    bytes += [2, 10, 0, 0, 2, 0, 0, 0, 0, 0]
    bytes += [2, 10, 0, MachineLayout.powerLine, MachineLayout.powerLine, 0, 0, 0, 0x0D, 0]
    return table("APIC", revision: 3, bytes)
  }

  static var dsdt: [UInt8] {
    // Power-off is sleep state 5.
    let off = AML.name("_S5", AML.package([5, 0, 0, 0].map(AML.integer)))
    // Linux 6.12 finds no bus without resources, whatever they are: here a line without flags.
    let resources = AML.buffer([0x22, 0x80, 0x00, 0x79, 0x00])
    let bus = AML.device(
      "VMBS",
      [
        AML.name("_HID", AML.string("VMBUS")), AML.name("_UID", AML.integer(0)),
        AML.name("_STA", AML.integer(0x0F)), AML.name("_CRS", resources),
      ])
    return table("DSDT", revision: 2, off + AML.scope("_SB", [bus]))
  }
}
