// SPDX-License-Identifier: Apache-2.0

import BlockStorage
import NVMeProtocol
import TestSupport
import Testing

@testable import NVMe
@testable import VSC

/// How a queue tells the controller where data lies.
@Suite struct NVMeQueueTests {
  /// The command that the queue puts in for a write of so many bytes.
  ///
  /// - Parameters:
  ///   - gap: pages are missing in the device's addresses before this page of the data.
  ///   - withList: the list that it names, if it names one.
  private func command(
    _ byteCount: Int, takesDescriptors: Bool, gap: Int? = nil,
    withList: (NVMeCommand, [UInt64]) throws -> Void
  ) throws {
    let function = HostileFunction()
    let memory = try QueueMemory(function, depth: 4, pageCount: 16)
    let pages = GuardedMemory(byteCount: 65536)
    for index in 0..<16 { unsafe pages.numbers[index] = 0x1000 + UInt64(index) }
    if let gap { for index in gap..<16 { unsafe pages.numbers[index] += 7 } }
    var pool = unsafe DMAPool<HostVisible>(
      DMAPages(
        start: pages.start, byteCount: 65536, pageNumbers: pages.numbers, isScrubbed: false,
        owner: pages), bufferByteCount: 65536)
    var disk = DiskInformation()
    disk.geometry.blockCount = 1 << 20
    disk.geometry.maximumTransferByteCount = 65536
    var queue = NVMeQueue(
      try QueuePair(1, memory, function.registers(ofBAR: 0), stride: 4), namespace: 1, disk,
      depth: 4, timeout: .max, takesDescriptors: takesDescriptors, state: ChannelState())
    var buffer: DMABuffer<HostVisible>? = try unwrap(pool.take(65536))
    try queue.write(at: 0, blockCount: byteCount / 512, from: &buffer, tag: 1)
    let bytes = unsafe [UInt8](
      UnsafeRawBufferPointer(start: memory.submissions.start, count: NVMeCommand.byteCount))
    let lists = try #require(memory.lists)
    let list = (0..<15).map {
      unsafe lists.start.load(fromByteOffset: $0 * 8, as: UInt64.self)
    }
    try withList(try NVMeCommand(parsing: bytes), list)
    // The controller is over: what was lent comes back.
    queue.suspend()
    queue.restart { _ in }
  }

  @Test(arguments: [12288, 12800, 65536])
  func oneStretchIsOneDescriptor(byteCount: Int) throws {
    try command(byteCount, takesDescriptors: true) { command, _ in
      #expect(
        command.descriptor == NVMeDescriptor(address: 0x100_0000, length: UInt32(byteCount)))
    }
  }

  /// Two pages need no list anyway.
  @Test(arguments: [(512, 0), (4096, 0), (4608, 0x100_1000), (8192, 0x100_1000)])
  func aPageOrTwoAreNamed(byteCount: Int, second: UInt64) throws {
    try command(byteCount, takesDescriptors: true) { command, _ in
      #expect(command.flags == 0 && command.data1 == 0x100_0000 && command.data2 == second)
    }
  }

  /// With a gap before the pages that are used, or behind them.
  @Test func scatteredPagesAreAList() throws {
    for gap in 1..<4 {
      try command(16384, takesDescriptors: true, gap: gap) { command, list in
        #expect(command.flags == 0 && command.data1 == 0x100_0000)
        let pages = (1..<4).map { UInt64(0x1000 + $0 + ($0 < gap ? 0 : 7)) << 12 }
        #expect(Array(list.prefix(3)) == pages)
      }
    }
    try command(16384, takesDescriptors: true, gap: 4) { command, _ in
      #expect(command.descriptor?.length == 16384)
    }
  }

  @Test func aControllerWithoutDescriptorsGetsAList() throws {
    try command(16384, takesDescriptors: false) { command, list in
      #expect(command.flags == 0 && command.data1 == 0x100_0000)
      #expect(Array(list.prefix(3)) == [0x100_1000, 0x100_2000, 0x100_3000])
    }
  }
}
