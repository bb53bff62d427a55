// SPDX-License-Identifier: Apache-2.0

/// A stretch of physical memory, as the firmware tells the kernel of it (E820).
struct MemoryRange: Equatable {
  enum Kind: UInt32 {
    case usable = 1
    /// ACPI's tables; the kernel may have the memory when it has read them.
    case tables = 3
  }

  var start: UInt64
  var byteCount: UInt64
  var kind: Kind

  /// All memory of a machine.
  static func map(lowByteCount: UInt64, highByteCount: UInt64) -> [MemoryRange] {
    var ranges = [
      MemoryRange(start: 0, byteCount: MachineLayout.lowMemoryEnd, kind: .usable),
      MemoryRange(
        start: MachineLayout.firmware,
        byteCount: MachineLayout.firmwareEnd - MachineLayout.firmware, kind: .tables),
      MemoryRange(
        start: MachineLayout.highMemory, byteCount: lowByteCount - MachineLayout.highMemory,
        kind: .usable),
    ]
    if highByteCount > 0 {
      ranges.append(
        MemoryRange(
          start: MachineLayout.deviceHoleEnd, byteCount: highByteCount, kind: .usable))
    }
    return ranges
  }
}

/// The page that a kernel is started with. (Linux's "zero page", boot protocol 2.12.)
struct BootParameters {
  var initrdAddress: UInt32 = 0
  var initrdByteCount: UInt32 = 0
  var loadAddress: UInt32 = 0
  var commandLineAddress: UInt32 = 0
  /// Where ACPI's root pointer lies.
  var rootPointer: UInt64 = 0
  var memory: [MemoryRange] = []

  /// The page, 4096 bytes.
  func page(_ image: BootImage) -> [UInt8] {
    var page = TableBytes(count: 4096)
    page.set(BootImage.headerOffset, image.setUpHeader)
    page.set(0x70, rootPointer)
    page.set(0x1E8, UInt8(truncatingIfNeeded: memory.count))
    // No known boot loader; the kernel was loaded high, and the heap's end counts.
    page.set(0x210, UInt8(0xFF))
    page.set(0x211, page.bytes[0x211] | 0x81)
    page.set(0x214, loadAddress)
    page.set(0x218, initrdAddress)
    page.set(0x21C, initrdByteCount)
    page.set(0x224, UInt16(0xFE00))
    page.set(0x228, commandLineAddress)
    for (index, range) in memory.enumerated() {
      let entry = 0x2D0 + 20 * index
      page.set(entry, range.start)
      page.set(entry + 8, range.byteCount)
      page.set(entry + 16, range.kind.rawValue)
    }
    return page.bytes
  }
}
