// SPDX-License-Identifier: Apache-2.0

import CKVM

/// Puts a kernel and what it needs to start into the machine's memory.
enum KernelLoader {
  /// - Returns: how the first processor begins.
  static func load(
    _ configuration: VirtualMachine.Configuration, _ memory: MachineMemory
  ) throws(MachineError) -> vmbus_kvm_start {
    let image = configuration.kernel
    var parameters = BootParameters()
    let load = max(image.preferredAddress, MachineLayout.highMemory)
    let (end, overflow) = load.addingReportingOverflow(
      max(UInt64(image.initialByteCount), UInt64(image.kernel.count)))
    guard !overflow, end <= memory.lowByteCount, memory.write(load, image.kernel) else {
      throw .doesNotFit("the kernel", byteCount: image.kernel.count)
    }
    parameters.loadAddress = UInt32(truncatingIfNeeded: load)
    try loadInitrd(configuration, memory, behind: end, &parameters)

    let commandLine = Array(configuration.commandLine.utf8)
    guard commandLine.count <= Int(image.maximumCommandLine) else {
      throw .commandLineTooLong(
        byteCount: commandLine.count, maximum: Int(image.maximumCommandLine))
    }
    try put("the command line", commandLine + [0], MachineLayout.commandLine, memory)
    parameters.commandLineAddress = UInt32(MachineLayout.commandLine)
    parameters.rootPointer = ACPITables.rootPointer
    parameters.memory = MemoryRange.map(
      lowByteCount: memory.lowByteCount, highByteCount: memory.highByteCount)
    try put("the boot parameters", parameters.page(image), MachineLayout.bootParameters, memory)
    try put(
      "ACPI's tables", ACPITables.memory(processorCount: configuration.processorCount),
      MachineLayout.firmware, memory)
    try put("the page tables", pageTables, MachineLayout.pageTables, memory)
    try put("the segments", segments, MachineLayout.descriptorTable, memory)

    var start = vmbus_kvm_start()
    start.instruction = load + BootImage.entryOffset
    start.argument = MachineLayout.bootParameters
    start.page_table = MachineLayout.pageTables
    start.descriptor_table = MachineLayout.descriptorTable
    start.descriptor_table_limit = UInt16(segments.count - 1)
    start.code_selector = MachineLayout.codeSelector
    start.data_selector = MachineLayout.dataSelector
    return start
  }

  private static func put(
    _ name: String, _ bytes: [UInt8], _ address: UInt64, _ memory: MachineMemory
  ) throws(MachineError) {
    guard memory.write(address, bytes) else { throw .doesNotFit(name, byteCount: bytes.count) }
  }

  /// As high as the kernel allows it, so that it can unpack itself below.
  private static func loadInitrd(
    _ configuration: VirtualMachine.Configuration, _ memory: MachineMemory, behind end: UInt64,
    _ parameters: inout BootParameters
  ) throws(MachineError) {
    let initrd = configuration.initrd
    guard !initrd.isEmpty else { return }
    let limit = min(memory.lowByteCount, UInt64(configuration.kernel.maximumInitrdAddress) + 1)
    guard UInt64(initrd.count) < limit else {
      throw .doesNotFit("the initial file system", byteCount: initrd.count)
    }
    let address = (limit - UInt64(initrd.count)) & ~4095
    guard address >= end, memory.write(address, initrd) else {
      throw .doesNotFit("the initial file system", byteCount: initrd.count)
    }
    parameters.initrdAddress = UInt32(truncatingIfNeeded: address)
    parameters.initrdByteCount = UInt32(truncatingIfNeeded: initrd.count)
  }

  /// The lowest 4 GiB, mapped to themselves in pages of 2 MiB.
  static var pageTables: [UInt8] {
    let presentAndWritable: UInt64 = 3
    let large: UInt64 = 1 << 7
    var tables = TableBytes(count: 6 * 4096)
    tables.set(0, (MachineLayout.pageTables + 4096) | presentAndWritable)
    for index in 0..<4 {
      let directory = MachineLayout.pageTables + 4096 * UInt64(2 + index)
      tables.set(4096 + 8 * index, directory | presentAndWritable)
    }
    for index in 0..<2048 {
      tables.set(2 * 4096 + 8 * index, UInt64(index) << 21 | large | presentAndWritable)
    }
    return tables.bytes
  }

  /// Flat segments for code (64-bit) and data, behind two empty ones.
  static var segments: [UInt8] {
    var table = TableBytes(count: 32)
    table.set(Int(MachineLayout.codeSelector), 0x00AF_9B00_0000_FFFF as UInt64)
    table.set(Int(MachineLayout.dataSelector), 0x00CF_9300_0000_FFFF as UInt64)
    return table.bytes
  }
}
