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
      Self.inquiry(0).run(on: bench).data == [0, 0x00, 0, 4, 0x00, 0x80, 0x83, 0xB0])
    // The identity's bytes as they lie on the wire.
    #expect(
      Self.inquiry(0x80).run(on: bench).data
        == [0, 0x80, 0, 32] + Array("67452301ab89efcd0011223344556677".utf8))
    // 67 45 23 01 ab 89 ef cd folded with 00 11 22 33 44 55 66 77 below the digit 3.
    let designator: [UInt8] = [0x37, 0x54, 0x01, 0x32, 0xEF, 0xDC, 0x89, 0xBA]
    let identification: [UInt8] = [0, 0x83, 0, 12, 0x01, 0x03, 0, 8] + designator
    #expect(Self.inquiry(0x83).run(on: bench).data == identification)
    let limits: [UInt8] =
      [0, 0xB0, 0, 0x3C, 0, 0, 0, 8, 0, 0, 2, 0, 0, 0, 2, 0]
      + [UInt8](repeating: 0, count: 48)
    #expect(Self.inquiry(0xB0).run(on: bench).data == limits)
  }

  @Test func otherPagesAreInvalidFields() throws {
    let bench = try StorageBench()
    #expect(Self.inquiry(0xB1).run(on: bench).sense == .invalidField)
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
        == [0, 0, 0, 0, 0, 0, 1, 1, 0, 0, 0x10, 0] + [UInt8](repeating: 0, count: 20))
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

  @Test func modeSenseTellsTheWriteCache() throws {
    let bench = try StorageBench()
    for page in [0x08, 0x3F] as [UInt8] {
      #expect(
        Command([0x1A, 0, page, 0, 255, 0], room: 255).run(on: bench).data
          == [23, 0, 0x10, 0] + Self.caching)
      #expect(
        Command([0x5A, 0, page, 0, 0, 0, 0, 0, 255, 0], room: 255).run(on: bench).data
          == [0, 26, 0, 0x10, 0, 0, 0, 0] + Self.caching)
    }
    // Nothing is changeable, nothing is saved, and there is no other page.
    #expect(
      Command([0x1A, 0, 0x48, 0, 255, 0], room: 255).run(on: bench).data
        == [23, 0, 0x10, 0, 0x08, 0x12, 0] + [UInt8](repeating: 0, count: 17))
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
      Command([0x03, 1, 0, 0, 252, 0], room: 252).run(on: bench).sense == .invalidField)
  }
}
