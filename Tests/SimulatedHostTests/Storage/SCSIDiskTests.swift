// SPDX-License-Identifier: Apache-2.0

import SimulatedHost
import StorageProtocol
import Testing

@Suite struct SCSIDiskTests {
  static func read16(_ address: UInt64, _ count: UInt32, code: UInt8 = 0x88) -> [UInt8] {
    [code, 0] + (0..<8).map { UInt8(truncatingIfNeeded: address >> (56 - 8 * $0)) }
      + (0..<4).map { UInt8(truncatingIfNeeded: count >> (24 - 8 * $0)) } + [0, 0]
  }

  static func write16(_ address: UInt64, _ count: UInt32) -> [UInt8] {
    read16(address, count, code: 0x8A)
  }

  @Test(arguments: DiskBlockSize.allCases)
  func whatIsWrittenIsReadByEveryForm(_ blockSize: DiskBlockSize) throws {
    let bench = try StorageBench(blockSize: blockSize)
    let size = blockSize.rawValue
    let forms: [([UInt8], [UInt8])] = [
      ([0x0A, 0, 0, 3, 2, 0], [0x08, 0, 0, 3, 2, 0]),
      ([0x2A, 0, 0, 0, 0, 3, 0, 0, 2, 0], [0x28, 0, 0, 0, 0, 3, 0, 0, 2, 0]),
      ([0xAA, 0, 0, 0, 0, 3, 0, 0, 0, 2, 0, 0], [0xA8, 0, 0, 0, 0, 3, 0, 0, 0, 2, 0, 0]),
      (Self.write16(3, 2), Self.read16(3, 2)),
    ]
    for (index, (write, _)) in forms.enumerated() {
      let data = pattern(2 * size, seed: UInt8(index))
      var command = Command(write, writing: data)
      command.pieceSize = 100 + index
      let answer = command.run(on: bench)
      #expect(answer.isGood && answer.request.transferLength == UInt32(2 * size))
      for (_, read) in forms {
        var command = Command(read, room: 2 * size)
        command.pieceSize = 333
        #expect(command.run(on: bench).data == data)
      }
    }
    // The blocks around are untouched.
    let around = Command(Self.read16(2, 4), room: 4 * size).run(on: bench).data
    #expect(
      around.prefix(size).allSatisfy { $0 == 0 } && around.suffix(size).allSatisfy { $0 == 0 })
  }

  @Test func completionHasItsFixedFields() throws {
    let answer = Command(Self.read16(0, 1), room: 600).run(on: try StorageBench())
    #expect(answer.request.length == 52)
    #expect(answer.request.commandLength == 16)
    #expect(answer.request.senseLength == 20)
    #expect(answer.request.transferLength == 512)
    #expect(answer.payload.allSatisfy { $0 == 0 })
    // Memory past the transfer is not touched.
    #expect(answer.memory[512...].allSatisfy { $0 == 0xEE })
  }

  @Test(
    arguments: [
      (64, 1), (63, 2), (65, 0), (0, 65), (.max, 1), (.max, .max), (1 << 55, 1), (0, .max),
      (64, .max),
    ] as [(UInt64, UInt32)])
  func blocksPastTheEndAreOutOfRange(_ extent: (UInt64, UInt32)) throws {
    let bench = try StorageBench(maximumTransferBytes: .max)
    for code in [0x88, 0x8A, 0x91] as [UInt8] {
      let cdb = Self.read16(extent.0, extent.1, code: code)
      let answer = Command(cdb, room: 2048).run(on: bench)
      #expect(answer.sense == .addressOutOfRange)
      #expect(answer.memory.allSatisfy { $0 == 0xEE })
    }
  }

  @Test func outOfRangeIsToldInEighteenBytes() throws {
    let answer = Command(Self.read16(64, 1), room: 512).run(on: try StorageBench())
    #expect(
      answer.payload == [0x70, 0, 5, 0, 0, 0, 0, 10, 0, 0, 0, 0, 0x21, 0, 0, 0, 0, 0, 0, 0])
  }

  @Test func noBlocksAreNoError() throws {
    let bench = try StorageBench()
    for address in [0, 64] as [UInt64] {
      let answer = Command(Self.read16(address, 0)).run(on: bench)
      #expect(answer.isGood && answer.request.transferLength == 0)
    }
    // In the form of six bytes zero stands for 256, which this disk does not have.
    #expect(
      Command([0x08, 0, 0, 0, 0, 0], room: 512).run(on: bench).sense == .addressOutOfRange)
  }

  @Test func moreBlocksThanDataMovesNothing() throws {
    let bench = try StorageBench()
    var lying = Command(Self.write16(0, 2), writing: pattern(1024))
    lying.transferLength = 1023
    let answer = lying.run(on: bench)
    #expect(answer.request.srbStatus == .invalidRequest)
    #expect(answer.request.transferLength == 0)
    lying.transferLength = .max
    lying.data = pattern(512)
    #expect(lying.run(on: bench).request.srbStatus == .invalidRequest)
    lying.data = []
    #expect(lying.run(on: bench).request.srbStatus == .invalidRequest)
    #expect(
      Command(Self.read16(0, 2), room: 1024).run(on: bench).data.allSatisfy { $0 == 0 })
  }

  @Test func moreThanTheTransferLimitIsRefused() throws {
    let bench = try StorageBench(maximumTransferBytes: 1024)
    #expect(Command(Self.read16(0, 2), room: 4096).run(on: bench).isGood)
    #expect(Command(Self.read16(0, 3), room: 4096).run(on: bench).sense == .invalidField)
  }

  @Test func memoryThatTheGuestHidesEndsTheCommand() throws {
    let bench = try StorageBench()
    for cdb in [Self.read16(0, 16), Self.write16(0, 16)] {
      var command = Command(cdb, room: 8192)
      command.hole = 4096
      let answer = command.run(on: bench)
      #expect(answer.request.srbStatus == .invalidRequest)
      #expect(answer.request.transferLength == 0)
    }
    var inquiry = Command([0x12, 0, 0, 0, 36, 0], room: 36)
    inquiry.hole = 0
    #expect(inquiry.run(on: bench).request.srbStatus == .invalidRequest)
  }

  @Test func protectionIsRefused() throws {
    var cdb = Self.read16(0, 1)
    cdb[1] = 0x20
    #expect(Command(cdb, room: 512).run(on: try StorageBench()).sense == .invalidField)
  }

  @Test func readOnlyDiskRefusesWrites() throws {
    let bench = try StorageBench(readOnly: true)
    #expect(Command(Self.write16(0, 1), room: 512).run(on: bench).sense == .writeProtected)
    #expect(Command(Self.write16(64, 1), room: 512).run(on: bench).sense == .addressOutOfRange)
    #expect(Command(Self.read16(0, 1), room: 512).run(on: bench).isGood)
    #expect(Command([0x35, 0, 0, 0, 0, 0, 0, 0, 0, 0]).run(on: bench).isGood)
    let mode = Command([0x1A, 0, 0x3F, 0, 4, 0], room: 4).run(on: bench)
    #expect(mode.data == [35, 0, 0x90, 0])
  }

  /// FORMAT UNIT, RESERVE and RELEASE, LOG SELECT and LOG SENSE, PERSISTENT RESERVE, and others.
  @Test func unknownCommandsAreRefused() throws {
    let bench = try StorageBench()
    for code in [
      0x01, 0x04, 0x16, 0x17, 0x4C, 0x4D, 0x56, 0x57, 0x5E, 0x5F, 0x7F, 0x89, 0xFF,
    ] as [UInt8] {
      let answer = Command([code] + [UInt8](repeating: 0, count: 15), room: 64).run(on: bench)
      #expect(answer.sense == .unknownCommand)
    }
    // A service action that is not known is a field of a command that is.
    let action = Command([0x9E, 0x13] + [UInt8](repeating: 0, count: 14), room: 64)
    #expect(action.run(on: bench).sense == .invalidField)
    #expect(action.run(on: bench).payload[15..<18] == [0xCC, 0, 1])
  }

  @Test(arguments: [0, 15, 17, 20, 255] as [UInt8])
  func commandLengthsThatLieAreInvalidRequests(_ length: UInt8) throws {
    var command = Command(Self.read16(0, 1), room: 512)
    command.length = length
    let answer = command.run(on: try StorageBench())
    #expect(answer.request.srbStatus == .invalidRequest)
    #expect(answer.memory.allSatisfy { $0 == 0xEE })
  }

  @Test func commandsWithoutDataSucceed() throws {
    let bench = try StorageBench()
    let commands: [[UInt8]] = [
      [0, 0, 0, 0, 0, 0], [0x1B, 0, 0, 0, 1, 0], [0x35, 0, 0, 0, 0, 0, 0, 0, 0, 0],
      Self.read16(1, 2, code: 0x91),
    ]
    for cdb in commands {
      let answer = Command(cdb).run(on: bench)
      #expect(answer.isGood && answer.request.transferLength == 0)
    }
  }
}
