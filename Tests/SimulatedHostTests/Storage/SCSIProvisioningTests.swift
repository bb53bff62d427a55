// SPDX-License-Identifier: Apache-2.0

import SimulatedHost
import StorageProtocol
import Testing

/// UNMAP, WRITE SAME and GET LBA STATUS, byte by byte (SBC-3).
@Suite struct SCSIProvisioningTests {
  static func big(_ value: UInt64, _ count: Int) -> [UInt8] {
    (0..<count).map { UInt8(truncatingIfNeeded: value >> UInt64(8 * (count - 1 - $0))) }
  }

  /// A parameter list of UNMAP, whose lengths can lie.
  static func list(
    _ extents: [(UInt64, UInt32)], total: Int? = nil, described: Int? = nil
  ) -> [UInt8] {
    var bytes: [UInt8] = []
    for (address, count) in extents {
      bytes += big(address, 8) + big(UInt64(count), 4) + big(0, 4)
    }
    let lengths = big(UInt64(total ?? bytes.count + 6), 2)
    return lengths + big(UInt64(described ?? bytes.count), 2) + big(0, 4) + bytes
  }

  static func unmap(_ list: [UInt8], length: Int? = nil) -> Command {
    Command([0x42, 0, 0, 0, 0, 0, 0] + big(UInt64(length ?? list.count), 2) + [0], writing: list)
  }

  static func fill(_ bench: StorageBench, _ blocks: Int = 64) {
    let data = pattern(512 * blocks, seed: 3)
    #expect(
      Command(SCSIDiskTests.write16(0, UInt32(blocks)), writing: data).run(on: bench).isGood)
  }

  /// Which of the 64 blocks are zero.
  static func zeros(_ bench: StorageBench) -> [Int] {
    let data = Command(SCSIDiskTests.read16(0, 64), room: 512 * 64).run(on: bench).data
    return (0..<64).filter { data[($0 * 512)..<($0 * 512 + 512)].allSatisfy { $0 == 0 } }
  }

  static let information: SCSISense = .init(key: .illegalRequest, code: 0x26)
  static let listLength: SCSISense = .init(key: .illegalRequest, code: 0x1A)

  @Test func unmappedBlocksReadAsZeros() throws { try Self.checkUnmap() }

  static func checkUnmap() throws {
    let bench = try StorageBench()
    fill(bench)
    let answer = unmap(list([(3, 2), (60, 4), (9, 0), (64, 0)])).run(on: bench)
    #expect(answer.isGood)
    #expect(zeros(bench) == [3, 4, 60, 61, 62, 63])
    // Nothing to do.
    #expect(unmap([], length: 0).run(on: bench).isGood)
    #expect(unmap(list([])).run(on: bench).isGood)
    // A last descriptor that is not whole is left out.
    #expect(unmap(list([(0, 1), (1, 1)], described: 31)).run(on: bench).isGood)
    #expect(zeros(bench) == [0, 3, 4, 60, 61, 62, 63])
  }

  @Test func aListThatIsWrongUnmapsNothing() throws {
    let bench = try StorageBench(blocks: 64)
    Self.fill(bench)
    let refused: [([UInt8], Int?, SCSISense)] = [
      // Shorter than its header, and than what the header counts.
      ([0, 6, 0, 0, 0, 0, 0], nil, Self.listLength),
      (Self.list([(1, 1)], total: 38, described: 32), nil, Self.listLength),
      (Self.list([(1, 1)]), 23, Self.listLength),
      (Self.list([(1, 1)], total: 21), nil, Self.information),
      // One wrong descriptor among good ones.
      (Self.list([(1, 1), (64, 1)]), nil, .addressOutOfRange),
      (Self.list([(1, 1), (63, 2)]), nil, .addressOutOfRange),
      (Self.list([(1, 1), (.max, 1)]), nil, .addressOutOfRange),
      (Self.list([(1, 1), (.max, .max)]), nil, .addressOutOfRange),
      // More descriptors than page 0xB0 allows.
      (Self.list((0...256).map { _ in (1, 1) }), nil, Self.information),
    ]
    for (list, length, sense) in refused {
      #expect(Self.unmap(list, length: length).run(on: bench).sense == sense, "\(list)")
    }
    // Less data than the command says.
    var short = Self.unmap(Self.list([(1, 1)]))
    short.transferLength = 23
    #expect(short.run(on: bench).request.srbStatus == .invalidRequest)
    #expect(Self.zeros(bench) == [])
    #expect(Self.unmap(Self.list((0...255).map { _ in (1, 1) })).run(on: bench).isGood)
    #expect(Self.zeros(bench) == [1])
  }

  @Test func moreBlocksThanTheLimitAreRefused() throws {
    // 1 GiB and a block, of a disk that has them; address space only.
    let bench = try StorageBench(blocks: 0x40_0000)
    #expect(Self.unmap(Self.list([(0, 0x20_0000)])).run(on: bench).isGood)
    #expect(
      Self.unmap(Self.list([(0, 0x20_0000), (0, 1)])).run(on: bench).sense == Self.information)
  }

  @Test func readOnlyDiskKeepsItsBlocks() throws {
    let bench = try StorageBench(readOnly: true)
    #expect(Self.unmap(Self.list([(0, 1)])).run(on: bench).sense == .writeProtected)
    #expect(Self.same(0, 1, [0x09], data: []).run(on: bench).sense == .writeProtected)
  }

  /// WRITE SAME(16), or (10) with a short option byte.
  static func same(
    _ address: UInt64, _ count: UInt32, _ options: [UInt8] = [0], long: Bool = true,
    data: [UInt8]
  ) -> Command {
    let cdb =
      long
      ? [0x93, options[0]] + big(address, 8) + big(UInt64(count), 4) + [0, 0]
      : [0x41, options[0]] + big(address, 4) + [0] + big(UInt64(count), 2) + [0]
    return Command(cdb, writing: data)
  }

  @Test(arguments: [false, true])
  func oneBlockIsWrittenToMany(_ long: Bool) throws { try Self.checkWriteSame(long: long) }

  static func checkWriteSame(long: Bool) throws {
    let bench = try StorageBench()
    let block = pattern(512, seed: 8)
    #expect(same(5, 3, long: long, data: block).run(on: bench).isGood)
    for index in 5..<8 {
      #expect(
        Command(SCSIDiskTests.read16(UInt64(index), 1), room: 512).run(on: bench).data == block)
    }
    #expect(zeros(bench).count == 61)
    // With UNMAP a block of zeros is given back, and another is written.
    let zero = [UInt8](repeating: 0, count: 512)
    #expect(same(5, 1, [0x08], long: long, data: zero).run(on: bench).isGood)
    #expect(same(20, 1, [0x08], long: long, data: block).run(on: bench).isGood)
    #expect(Set(0..<64).subtracting(zeros(bench)) == [6, 7, 20])
    // Zero blocks do not mean the rest of the disk (WSNZ), and too many are refused.
    #expect(same(0, 0, long: long, data: block).run(on: bench).sense == .invalidField)
    let tooMany: UInt32 = long ? 0x1_0001 : 65
    #expect(
      same(0, tooMany, long: long, data: block).run(on: bench).sense
        == (long ? .invalidField : .addressOutOfRange))
    #expect(same(64, 1, long: long, data: block).run(on: bench).sense == .addressOutOfRange)
    #expect(
      same(0, 1, long: long, data: Array(block.prefix(511))).run(on: bench).request.srbStatus
        == .invalidRequest)
    // An anchor is what this disk does not have.
    #expect(same(0, 1, [0x10], long: long, data: block).run(on: bench).sense == .invalidField)
    if long {
      // Without data: zeros.
      #expect(same(6, 1, [0x01], data: []).run(on: bench).isGood)
      #expect(same(7, 1, [0x09], data: []).run(on: bench).isGood)
      #expect(Set(0..<64).subtracting(zeros(bench)) == [20])
    }
  }

  static func status(_ address: UInt64, _ allocation: UInt8 = 255) -> Command {
    Command(
      [0x9E, 0x12] + big(address, 8) + [0, 0, 0, allocation, 0, 0], room: Int(allocation))
  }

  /// Holes in a file, as the file system has them.
  @Test func holesAreGivenBackAndReported() throws {
    let directory = TemporaryDirectory()
    let path = directory.disk([UInt8](repeating: 7, count: 65536))
    let bench = try StorageBench(.open(path: path))
    let before = directory.allocatedBytes
    #expect(before >= 65536)
    // 32 KiB from 16 KiB on.
    #expect(Self.unmap(Self.list([(32, 64)])).run(on: bench).isGood)
    #expect(directory.allocatedBytes == before - 32768)
    let mapped: [UInt8] = Self.big(0, 8) + Self.big(32, 4) + [0, 0, 0, 0]
    let hole: [UInt8] = Self.big(32, 8) + Self.big(64, 4) + [1, 0, 0, 0]
    let rest: [UInt8] = Self.big(96, 8) + Self.big(32, 4) + [0, 0, 0, 0]
    let head: (UInt8) -> [UInt8] = { [0, 0, 0, $0, 0, 0, 0, 0] }
    #expect(Self.status(0).run(on: bench).data == head(52) + mapped + hole + rest)
    let middle: [UInt8] = Self.big(40, 8) + Self.big(56, 4) + [1, 0, 0, 0]
    #expect(Self.status(40, 24).run(on: bench).data == head(20) + middle)
    #expect(Self.status(128).run(on: bench).sense == .addressOutOfRange)
    // Parts of a file system's block are written as zeros.
    #expect(Self.unmap(Self.list([(1, 1)])).run(on: bench).isGood)
    let data = Command(SCSIDiskTests.read16(0, 3), room: 1536).run(on: bench).data
    #expect(data[0..<512].allSatisfy { $0 == 7 } && data[512..<1024].allSatisfy { $0 == 0 })
    #expect(data[1024...].allSatisfy { $0 == 7 })
  }

  @Test func memoryIsAllMapped() throws { try Self.checkStatus() }

  static func checkStatus() throws {
    let bench = try StorageBench()
    let all: [UInt8] = big(3, 8) + big(61, 4) + [0, 0, 0, 0]
    #expect(status(3).run(on: bench).data == [0, 0, 0, 20, 0, 0, 0, 0] + all)
  }

  @Test func memoryDiskOfWholePages() throws {
    let bench = try StorageBench(blocks: 64)
    Self.fill(bench)
    // From the middle of a page to the middle of another.
    #expect(Self.unmap(Self.list([(7, 34)])).run(on: bench).isGood)
    #expect(Self.zeros(bench) == Array(7..<41))
  }
}
