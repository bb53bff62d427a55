// SPDX-License-Identifier: Apache-2.0

import SimulatedHost
import StorageProtocol
import Testing

/// Each answer against bytes written by hand from the SCSI standards (SPC-4, SBC-3).
@Suite struct SCSIAnswerTests {
  static func inquiry(_ page: UInt8?, room: UInt8 = 255) -> Command {
    Command([0x12, page == nil ? 0 : 1, page ?? 0, 0, room, 0], room: Int(room))
  }

  @Test func inquiryNamesAVirtualDisk() throws {
    let answer = Self.inquiry(nil).run(on: try StorageBench())
    let expected: [UInt8] =
      [0x00, 0x00, 0x06, 0x02, 31, 0x00, 0x00, 0x02]
      + Array("Msft    Virtual Disk    1.0 ".utf8)
    #expect(answer.isGood)
    #expect(answer.data == expected)
    #expect(answer.memory[36...].allSatisfy { $0 == 0xEE })
  }

  @Test func answersAreCutToTheAllocationLengthAndToTheData() throws {
    let bench = try StorageBench()
    let short = Command([0x12, 0, 0, 0, 5, 0], room: 36).run(on: bench)
    #expect(short.data == [0, 0, 6, 2, 31])
    #expect(short.memory[5...].allSatisfy { $0 == 0xEE })
    let small = Command([0x12, 0, 0, 0, 36, 0], room: 5).run(on: bench)
    #expect(small.isGood && small.data == [0, 0, 6, 2, 31])
    var none = Command([0x12, 0, 0, 0, 36, 0])
    none.transferLength = .max
    #expect(none.run(on: bench).isGood)
    #expect(none.run(on: bench).request.transferLength == 0)
  }

  @Test func vitalProductDataPages() throws {
    let bench = try StorageBench()
    #expect(
      Self.inquiry(0).run(on: bench).data
        == [0, 0x00, 0, 6, 0x00, 0x80, 0x83, 0xB0, 0xB1, 0xB2])
    // The identity's bytes as they lie on the wire.
    #expect(
      Self.inquiry(0x80).run(on: bench).data
        == [0, 0x80, 0, 32] + Array("67452301ab89efcd0011223344556677".utf8))
    // 67 45 23 01 ab 89 ef cd folded with 00 11 22 33 44 55 66 77 below the digit 3.
    let designator: [UInt8] = [0x37, 0x54, 0x01, 0x32, 0xEF, 0xDC, 0x89, 0xBA]
    let vendor: [UInt8] =
      [0x02, 0x01, 0, 40] + Array("Msft    67452301ab89efcd0011223344556677".utf8)
    let identification: [UInt8] = [0, 0x83, 0, 56, 0x01, 0x03, 0, 8] + designator + vendor
    #expect(Self.inquiry(0x83).run(on: bench).data == identification)
    let limits: [UInt8] =
      [0, 0xB0, 0, 0x3C, 1, 0, 0, 8, 0, 0, 2, 0, 0, 0, 2, 0]
      // No prefetch; 1 GiB of UNMAP in 256 descriptors, by 4 KiB from the start; 32 MiB of
      // WRITE SAME.
      + [0, 0, 0, 0, 0, 0x20, 0, 0, 0, 0, 1, 0, 0, 0, 0, 8, 0x80, 0, 0, 0]
      + [0, 0, 0, 0, 0, 1, 0, 0] + [UInt8](repeating: 0, count: 20)
    #expect(Self.inquiry(0xB0).run(on: bench).data == limits)
    // Does not rotate.
    let characteristics: [UInt8] = [0, 0xB1, 0, 0x3C, 0, 1] + [UInt8](repeating: 0, count: 58)
    #expect(Self.inquiry(0xB1).run(on: bench).data == characteristics)
    // UNMAP, WRITE SAME(16), WRITE SAME(10), zeros; thin.
    #expect(Self.inquiry(0xB2).run(on: bench).data == [0, 0xB2, 0, 4, 0, 0xE4, 2, 0])
  }

  @Test func aDiskThatCanNotBeWrittenIsNotThin() throws {
    let bench = try StorageBench(readOnly: true)
    #expect(Self.inquiry(0xB2).run(on: bench).data == [0, 0xB2, 0, 4, 0, 0, 0, 0])
    #expect(Self.inquiry(0xB0).run(on: bench).data[20..<36].allSatisfy { $0 == 0 })
    let capacity = Command(
      [0x9E, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 32, 0, 0], room: 32)
    #expect(capacity.run(on: bench).data[14] == 0)
  }

  @Test func otherPagesAreInvalidFields() throws {
    let bench = try StorageBench()
    #expect(Self.inquiry(0xB3).run(on: bench).sense == .invalidField)
    #expect(
      Command([0x12, 0, 0x80, 0, 36, 0], room: 36).run(on: bench).sense == .invalidField)
  }

  @Test func capacityIsTheLastBlock() throws {
    let small = try StorageBench(blocks: 0x102, blockSize: .bytes4096)
    let ten = Command([0x25, 0, 0, 0, 0, 0, 0, 0, 0, 0], room: 8)
    #expect(ten.run(on: small).data == [0, 0, 1, 1, 0, 0, 0x10, 0])
    let sixteen = Command(
      [0x9E, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 32, 0, 0], room: 32)
    #expect(
      sixteen.run(on: small).data
        == [0, 0, 0, 0, 0, 0, 1, 1, 0, 0, 0x10, 0, 0, 0, 0xC0]
        + [UInt8](repeating: 0, count: 17))
    let emulated = StorageBench(
      try Self.controller(
        SCSIDisk(
          .inMemory(byteCount: 8192), physicalBlockSize: 4096, identity: testIdentity)))
    #expect(sixteen.run(on: emulated).data[12..<16] == [0, 3, 0xC0, 0])
  }

  static func controller(_ disk: consuming SCSIDisk) -> SCSIController {
    var controller = SCSIController()
    let isAttached = controller.attach(disk, lun: 0)
    #expect(isAttached)
    return controller
  }

  @Test func capacityThatNeedsMoreThan32Bits() throws {
    // Address space only: no block of it is ever written.
    let large = try StorageBench(blocks: 0x1_0000_0001)
    let ten = Command([0x25, 0, 0, 0, 0, 0, 0, 0, 0, 0], room: 8)
    #expect(ten.run(on: large).data == [0xFF, 0xFF, 0xFF, 0xFF, 0, 0, 2, 0])
    let sixteen = Command(
      [0x9E, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 12, 0, 0], room: 32)
    #expect(sixteen.run(on: large).data == [0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 2, 0])
    #expect(
      Command(SCSIDiskTests.read16(0x1_0000_0000, 1), room: 512).run(on: large).isGood)
    #expect(
      Command(SCSIDiskTests.read16(0x1_0000_0001, 1), room: 512).run(on: large).sense
        == .addressOutOfRange)
  }

  static let caching: [UInt8] = [0x08, 0x12, 0x04] + [UInt8](repeating: 0, count: 17)

  static let control: [UInt8] = [0x0A, 0x0A, 0, 0x10, 0, 0, 0, 0, 0xFF, 0xFF, 0, 0]

  @Test func modeSenseTellsThePages() throws {
    let bench = try StorageBench()
    for (page, bytes) in [
      (0x08, Self.caching), (0x0A, Self.control), (0x3F, Self.caching + Self.control),
    ] as [(UInt8, [UInt8])] {
      let count = UInt8(bytes.count)
      #expect(
        Command([0x1A, 0, page, 0, 255, 0], room: 255).run(on: bench).data
          == [count + 3, 0, 0x10, 0] + bytes)
      #expect(
        Command([0x5A, 0, page, 0, 0, 0, 0, 0, 255, 0], room: 255).run(on: bench).data
          == [0, count + 6, 0, 0x10, 0, 0, 0, 0] + bytes)
      // The default values are those of the start.
      #expect(
        Command([0x1A, 8, page | 0x80, 0, 255, 0], room: 255).run(on: bench).data
          == [count + 3, 0, 0x10, 0] + bytes)
    }
    // The write cache and the sense format are changeable, and nothing is saved.
    #expect(
      Command([0x1A, 0, 0x7F, 0, 255, 0], room: 255).run(on: bench).data
        == [35, 0, 0x10, 0, 0x08, 0x12, 4] + [UInt8](repeating: 0, count: 17)
        + [0x0A, 0x0A, 4] + [UInt8](repeating: 0, count: 9))
    #expect(
      Command([0x1A, 0, 0xC8, 0, 255, 0], room: 255).run(on: bench).sense
        == .savingUnsupported)
    #expect(
      Command([0x1A, 0, 0x1C, 0, 255, 0], room: 255).run(on: bench).sense == .invalidField)
    #expect(
      Command([0x1A, 0, 0x08, 1, 255, 0], room: 255).run(on: bench).sense == .invalidField)
  }

  @Test func requestSenseHasNothingToTell() throws {
    let bench = try StorageBench()
    #expect(
      Command([0x03, 0, 0, 0, 252, 0], room: 252).run(on: bench).data
        == [0x70, 0, 0, 0, 0, 0, 0, 10] + [UInt8](repeating: 0, count: 10))
    #expect(
      Command([0x03, 1, 0, 0, 252, 0], room: 252).run(on: bench).data
        == [0x72, 0, 0, 0, 0, 0, 0, 0])
  }
}
