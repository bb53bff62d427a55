// SPDX-License-Identifier: Apache-2.0

import SimulatedHost
import StorageProtocol
import Testing

@Suite struct DiskImageTests {
  static func refusal(_ path: String, readOnly: Bool = false) -> DiskImageError? {
    do throws(DiskImageError) {
      _ = try DiskImage.open(path: path, readOnly: readOnly)
      return nil
    } catch {
      return error
    }
  }

  @Test func imagesThatCannotServeAreRefusedInOneLine() {
    let directory = TemporaryDirectory()
    #expect(
      Self.refusal("\(directory.path)/disk")?.description
        == "\(directory.path)/disk: no such file")
    #expect(Self.refusal(directory.path)?.description == "\(directory.path): is a directory")
    #expect(Self.refusal(directory.path, readOnly: true)?.reason == .directory)
    let empty = directory.disk([])
    #expect(Self.refusal(empty)?.description == "\(empty): is empty")
    let odd = directory.disk(pattern(513))
    #expect(
      Self.refusal(odd)?.description == "\(odd): has 513 bytes, which is not a multiple of 512")
    #expect(Self.refusal("\(odd)/below")?.reason == .missing)
    let fifo = "\(directory.path)/fifo"
    directory.makeFIFO()
    #expect(Self.refusal(fifo)?.reason == .notADisk)
    #expect(Self.refusal(fifo, readOnly: true)?.reason == .notADisk)
    #expect(Self.refusal("/dev/null")?.reason == .notADisk)
  }

  @Test(.disabled(if: TemporaryDirectory.isRoot, "root may open every file"))
  func missingPermissionIsNamed() {
    let directory = TemporaryDirectory()
    let path = directory.disk(pattern(512))
    directory.setMode(0o400)
    #expect(Self.refusal(path)?.reason == .noPermission(readOnly: false))
    #expect(Self.refusal(path, readOnly: true) == nil)
    directory.setMode(0)
    #expect(Self.refusal(path, readOnly: true)?.reason == .noPermission(readOnly: true))
  }

  @Test(
    arguments: [
      (2, false, "no such file"), (20, false, "no such file"), (21, false, "is a directory"),
      (13, true, "no permission to read it"),
      (13, false, "no permission to read and write it (a read-only disk needs less)"),
      (30, false, "lies on a read-only file system (serve it as a read-only disk)"),
      (24, false, "open: Too many open files"),
    ] as [(Int32, Bool, String)])
  func eachFailedOpenHasItsText(_ failure: (Int32, Bool, String)) {
    let error = DiskImageError(name: "disk.img", opening: failure.0, readOnly: failure.1)
    #expect(error.description == "disk.img: \(failure.2)")
  }

  @Test func severalWorkersUseOneDisk() async throws {
    let bench = try StorageBench(blocks: 256)
    await withTaskGroup(of: Bool.self) { group in
      for worker in 0..<4 {
        group.addTask { bench.ownsBlocks(worker * 64..<worker * 64 + 64, seed: UInt8(worker)) }
      }
      for await isIntact in group { #expect(isIntact) }
    }
  }

  @Test func fileKeepsWhatIsWritten() throws {
    let directory = TemporaryDirectory()
    let path = directory.disk([UInt8](repeating: 0, count: 8192))
    do {
      let disk = try StorageBench(.open(path: path))
      var write = Command(SCSIDiskTests.write16(4, 3), writing: pattern(1536))
      write.pieceSize = 700
      #expect(write.run(on: disk).isGood)
      // Forced unit access.
      var forced = SCSIDiskTests.write16(8, 1)
      forced[1] = 0x08
      #expect(Command(forced, writing: pattern(512, seed: 9)).run(on: disk).isGood)
      #expect(Command([0x35, 0, 0, 0, 0, 0, 0, 0, 0, 0]).run(on: disk).isGood)
    }
    let disk = try StorageBench(.open(path: path, readOnly: true))
    var read = Command(SCSIDiskTests.read16(3, 6), room: 3072)
    read.pieceSize = 1000
    let zero = [UInt8](repeating: 0, count: 512)
    #expect(
      read.run(on: disk).data == zero + pattern(1536) + zero + pattern(512, seed: 9))
    #expect(
      Command(SCSIDiskTests.write16(0, 1), room: 512).run(on: disk).sense == .writeProtected)
  }

  @Test func sparseFileReadsAsZeros() throws {
    let directory = TemporaryDirectory()
    let path = directory.disk(pattern(512))
    directory.resize(1 << 40)
    let disk = try StorageBench(.open(path: path))
    let last = (UInt64(1) << 31) - 1
    #expect(
      Command(SCSIDiskTests.read16(last, 1), room: 512).run(on: disk).data.allSatisfy { $0 == 0 })
    #expect(Command(SCSIDiskTests.read16(0, 1), room: 512).run(on: disk).data == pattern(512))
    #expect(
      Command(SCSIDiskTests.read16(last + 1, 1), room: 512).run(on: disk).sense
        == .addressOutOfRange)
  }

  @Test func fileThatShrankIsAMediumError() throws {
    let directory = TemporaryDirectory()
    let path = directory.disk(pattern(4096))
    let disk = try StorageBench(.open(path: path))
    directory.resize(1000)
    #expect(Command(SCSIDiskTests.read16(0, 1), room: 512).run(on: disk).isGood)
    for address in [1, 4] as [UInt64] {
      #expect(
        Command(SCSIDiskTests.read16(address, 1), room: 512).run(on: disk).sense
          == .unrecoveredRead)
    }
  }

  @Test func backendChecksItsOwnBounds() throws {
    let directory = TemporaryDirectory()
    let path = directory.disk(pattern(1024))
    try Self.checkBounds(.open(path: path))
    try Self.checkBounds(.inMemory(byteCount: 1024))
  }

  static func checkBounds(_ image: consuming DiskImage) throws {
    for (offset, count) in [(1024, 1), (1023, 2), (.max, 1), (UInt64.max - 1, 512), (0, 1025)]
      as [(UInt64, Int)]
    {
      var bytes = [UInt8](repeating: 0xEE, count: count)
      var thrown = 0
      do throws(BlockError) {
        let source = bytes.span
        try image.write(at: offset, from: unsafe source.bytes)
      } catch {
        #expect(error == .outOfRange)
        thrown += 1
      }
      var span = bytes.mutableSpan
      var target = unsafe span.mutableBytes
      do throws(BlockError) {
        try image.read(at: offset, into: &target)
      } catch {
        #expect(error == .outOfRange)
        thrown += 1
      }
      #expect(thrown == 2)
    }
  }

  @Test func memoryDiskNeedsASize() {
    for (byteCount, reason) in [
      (0, .empty), (100, .notAMultiple(byteCount: 100, blockSize: 512)),
    ] as [(UInt64, DiskImageError.Reason)] {
      #expect(throws: DiskImageError.self) { _ = try DiskMemory(byteCount: byteCount) }
      do throws(DiskImageError) {
        _ = try DiskMemory(byteCount: byteCount)
      } catch {
        #expect(error.reason == reason)
      }
    }
    #expect(throws: DiskImageError.self) { _ = try DiskMemory(byteCount: .max - 511) }
  }
}
