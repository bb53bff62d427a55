// SPDX-License-Identifier: Apache-2.0

import SimulatedHost
import StorageProtocol
import Testing

@Suite struct SCSIControllerTests {
  static func threeDisks() throws -> StorageBench {
    var controller = SCSIController()
    for lun in [0, 2, 63] {
      let disk = try SCSIDisk(
        .inMemory(byteCount: 4096 * UInt64(lun + 1)), blockSize: .bytes4096,
        identity: testIdentity)
      let isAttached = controller.attach(disk, lun: lun)
      #expect(isAttached)
    }
    return StorageBench(controller)
  }

  static func reportLUNs(_ allocation: UInt8, selection: UInt8 = 0, room: Int = 64) -> Command {
    Command([0xA0, 0, selection, 0, 0, 0, 0, 0, 0, allocation, 0, 0], room: room)
  }

  static let list: [UInt8] =
    [0, 0, 0, 24, 0, 0, 0, 0]
    + [0, 0, 0, 0, 0, 0, 0, 0] + [0, 2, 0, 0, 0, 0, 0, 0] + [0, 63, 0, 0, 0, 0, 0, 0]

  @Test func reportLUNsListsTheDisks() throws {
    let bench = try Self.threeDisks()
    var command = Self.reportLUNs(64)
    #expect(command.run(on: bench).data == Self.list)
    #expect(command.run(on: bench).memory[32...].allSatisfy { $0 == 0xEE })
    // The controller answers for units that are not there too.
    command.lun = 5
    command.pieceSize = 3
    #expect(command.run(on: bench).data == Self.list)
    // Linux 6.12 and 7.3 ask so at each target: an error there would be in their log.
    command.target = 1
    #expect(command.run(on: bench).isGood)
    #expect(command.run(on: bench).data == [UInt8](repeating: 0, count: 8))
  }

  @Test func reportLUNsIsCut() throws {
    let bench = try Self.threeDisks()
    for count in [0, 1, 8, 12, 31] {
      let byCommand = Self.reportLUNs(UInt8(count)).run(on: bench)
      #expect(byCommand.data == Array(Self.list.prefix(count)))
      #expect(byCommand.memory[count...].allSatisfy { $0 == 0xEE })
      let byRoom = Self.reportLUNs(64, room: count).run(on: bench)
      #expect(byRoom.isGood && byRoom.data == Array(Self.list.prefix(count)))
    }
  }

  @Test func reportLUNsOfWellKnownUnitsIsEmpty() throws {
    let bench = try Self.threeDisks()
    #expect(
      Self.reportLUNs(64, selection: 1).run(on: bench).data == [UInt8](repeating: 0, count: 8))
    #expect(Self.reportLUNs(64, selection: 3).run(on: bench).sense == .invalidField)
  }

  @Test func allSixtyFourAreListed() throws {
    var controller = SCSIController()
    for lun in 0..<64 {
      let disk = try SCSIDisk(.inMemory(byteCount: 512), identity: testIdentity)
      let isAttached = controller.attach(disk, lun: lun)
      #expect(isAttached)
    }
    let answer = Command([0xA0, 0, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0], room: 1024)
      .run(on: StorageBench(controller))
    #expect(answer.request.transferLength == 520)
    #expect(Array(answer.data.prefix(8)) == [0, 0, 2, 0, 0, 0, 0, 0])
    #expect(answer.data[512...] == [0, 63, 0, 0, 0, 0, 0, 0])
  }

  @Test(
    arguments: [(0, 0, 1), (0, 0, 64), (0, 0, 255), (0, 1, 0), (1, 0, 0)] as [(UInt8, UInt8, UInt8)]
  )
  func unitsThatAreNotThere(_ address: (UInt8, UInt8, UInt8)) throws {
    let bench = try Self.threeDisks()
    func run(_ cdb: [UInt8]) -> Answer {
      var command = Command(cdb, room: 64)
      (command.path, command.target, command.lun) = address
      return command.run(on: bench)
    }
    let inquiry = run([0x12, 0, 0, 0, 36, 0])
    #expect(inquiry.isGood)
    #expect(inquiry.data.count == 36 && inquiry.data[0] == 0x7F)
    for cdb in [[0, 0, 0, 0, 0, 0], [0xFF, 0, 0, 0, 0, 0], SCSIDiskTests.read16(0, 0)] {
      let other = run(cdb)
      #expect(other.request.srbStatus == .invalidLUN)
      #expect(other.request.scsiStatus == .checkCondition)
      #expect(other.request.sense == nil)
      #expect(other.request.srbStatus.packetStatus == .deviceDoesNotExist)
    }
  }

  @Test func disksAreApart() throws {
    let bench = try Self.threeDisks()
    var write = Command(SCSIDiskTests.write16(0, 1), writing: pattern(4096))
    write.lun = 63
    #expect(write.run(on: bench).isGood)
    var read = Command(SCSIDiskTests.read16(0, 1), room: 4096)
    read.lun = 2
    #expect(read.run(on: bench).data.allSatisfy { $0 == 0 })
    read.lun = 63
    #expect(read.run(on: bench).data == pattern(4096))
    let units = bench.controller.units
    #expect(units.map(\.lun) == [0, 2, 63])
    #expect(units[1].byteCount == 4096 * 3)
  }

  @Test func thereIsNoLUN64() throws {
    var controller = SCSIController()
    for lun in [-1, 64] {
      let disk = try SCSIDisk(.inMemory(byteCount: 512), identity: testIdentity)
      let isAttached = controller.attach(disk, lun: lun)
      #expect(!isAttached)
    }
    let units = controller.units
    #expect(units.isEmpty)
  }

  @Test func diskMustBeWholeBlocks() throws {
    #expect(throws: DiskImageError.self) {
      _ = try SCSIDisk(
        .inMemory(byteCount: 4096 + 512), blockSize: .bytes4096, identity: testIdentity)
    }
  }
}
