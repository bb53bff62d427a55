// SPDX-License-Identifier: Apache-2.0

import SimulatedHost
import StorageProtocol
import Testing

/// Holds the host and the table of what it knows together.
@Suite struct SCSICoverageTests {
  static func report(
    options: UInt8 = 0, code: UInt8 = 0, action: UInt8 = 0, room: Int = 2048
  ) -> Command {
    let length = SCSIProvisioningTests.big(UInt64(room), 4)
    return Command([0xA3, 0x0C, options, code, 0, action] + length + [0, 0], room: room)
  }

  @Test(arguments: SCSICoverage.table) func eachCommandDoesWhatItShould(_ row: SCSICoverage) throws
  {
    try row.check()
  }

  @Test func whatIsReportedIsInTheTable() throws {
    let data = Self.report().run(on: try StorageBench()).data
    #expect(data[0..<4] == SCSIProvisioningTests.big(UInt64(data.count - 4), 4)[...])
    let reported = stride(from: 4, to: data.count, by: 8).map { Array(data[$0..<($0 + 8)]) }
    let expected = SCSICoverage.table.map { row -> [UInt8] in
      [
        row.code, 0, 0, row.action ?? 0, 0, row.action == nil ? 0 : 1, 0, UInt8(row.bytes.count),
      ]
    }
    #expect(reported == expected)
  }

  @Test(arguments: SCSICoverage.table)
  func oneCommandIsReportedWithItsBits(_ row: SCSICoverage) throws {
    let bench = try StorageBench()
    let expected: [UInt8] = [0, 3, 0, UInt8(row.bytes.count)] + row.bytes
    let options: UInt8 = row.action == nil ? 1 : 2
    for options in [options, 3] {
      #expect(
        Self.report(options: options, code: row.code, action: row.action ?? 0).run(on: bench)
          .data == expected)
    }
    // In the form for the other kind of code it is an error.
    #expect(
      Self.report(options: 3 - options, code: row.code, action: row.action ?? 0)
        .run(on: bench).sense == .invalidField)
    // With timeouts, which there are none of.
    let timed = Self.report(options: 0x83, code: row.code, action: row.action ?? 0)
      .run(on: bench).data
    #expect(timed[1] == 0x83)
    #expect(timed.suffix(12) == [0, 10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0])
  }

  @Test(arguments: SCSICoverage.table) func theGoodCommandIsGood(_ row: SCSICoverage) throws {
    let bench = try StorageBench()
    #expect(row.good.cdb.count == row.bytes.count && row.good.cdb[0] == row.code)
    #expect(row.good.run(on: bench).isGood)
    // It uses no bit that the table does not name.
    for (byte, mask) in zip(row.good.cdb, row.bytes).dropFirst(row.action == nil ? 1 : 2) {
      #expect(byte & ~mask == 0)
    }
    // One byte less is no command.
    var short = row.good
    short.length = UInt8(row.good.cdb.count - 1)
    #expect(short.run(on: bench).request.srbStatus == .invalidRequest)
  }

  /// Each bit that is not used is refused, and named.
  @Test(arguments: SCSICoverage.table) func noOtherBitMayBeSet(_ row: SCSICoverage) throws {
    let bench = try StorageBench()
    for index in 1..<row.bytes.count {
      for bit in 0..<8 where row.bytes[index] & 1 << bit == 0 {
        // Another service action is another command.
        if row.action != nil, index == 1, bit < 5 { continue }
        var command = row.good
        command.cdb[index] |= 1 << bit
        let answer = command.run(on: bench)
        #expect(answer.sense == .invalidField, "byte \(index), bit \(bit)")
        #expect(answer.payload[15..<18] == [0xC8 | UInt8(bit), 0, UInt8(index)])
      }
    }
  }

  /// What is not in the table is not known.
  @Test func allOtherCodesAreUnknown() throws {
    let bench = try StorageBench()
    let known = Set(SCSICoverage.table.map(\.code))
    for code in UInt8.min...UInt8.max where !known.contains(code) {
      let answer = Command([code] + [UInt8](repeating: 0, count: 15), room: 512).run(on: bench)
      #expect(answer.sense == .unknownCommand)
      let report = Self.report(options: 1, code: code).run(on: bench).data
      #expect(report == [0, 1, 0, 0])
    }
    for action in 0..<32 as Range<UInt8> where ![0x10, 0x12].contains(action) {
      let answer = Command([0x9E, action] + [UInt8](repeating: 0, count: 14), room: 64)
      #expect(answer.run(on: bench).sense == .invalidField)
      #expect(
        Self.report(options: 3, code: 0x9E, action: action).run(on: bench).data == [0, 1, 0, 0])
    }
  }

  static func checkReport() throws {
    let bench = try StorageBench()
    // With timeouts each command takes twenty bytes; what does not fit is cut.
    let timed = report(options: 0x80).run(on: bench).data
    #expect(timed.count == 4 + 20 * SCSICoverage.table.count)
    #expect(timed[9] == 2 && timed[12..<24] == [0, 10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0])
    #expect(report(room: 21).run(on: bench).data.count == 21)
    for options: UInt8 in 4...7 {
      #expect(report(options: options).run(on: bench).sense == .invalidField)
    }
  }

  /// Every form of moving blocks, with FUA where there is one, and flushes.
  static func checkMoves() throws {
    let bench = try StorageBench()
    let forms: [(write: [UInt8], read: [UInt8])] = [
      ([0x0A, 0, 0, 5, 1, 0], [0x08, 0, 0, 5, 1, 0]),
      ([0x2A, 0x18, 0, 0, 0, 5, 0, 0, 1, 0], [0x28, 0x18, 0, 0, 0, 5, 0, 0, 1, 0]),
      ([0xAA, 0x18, 0, 0, 0, 5, 0, 0, 0, 1, 0, 0], [0xA8, 0x18, 0, 0, 0, 5, 0, 0, 0, 1, 0, 0]),
      (
        [0x8A, 0x18, 0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 1, 0, 0],
        [0x88, 0x18, 0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 1, 0, 0]
      ),
    ]
    for (index, form) in forms.enumerated() {
      let data = pattern(512, seed: UInt8(40 + index))
      #expect(Command(form.write, writing: data).run(on: bench).isGood)
      #expect(Command(form.read, room: 512).run(on: bench).data == data)
    }
    for flush in [
      [0x35, 0, 0, 0, 0, 63, 0, 0, 1, 0], SCSIDiskTests.read16(0, 64, code: 0x91),
    ] as [[UInt8]] {
      #expect(Command(flush).run(on: bench).isGood)
    }
    #expect(
      Command([0x35, 0, 0, 0, 0, 64, 0, 0, 1, 0]).run(on: bench).sense == .addressOutOfRange)
  }

  static func checkCapacity() throws {
    let bench = try StorageBench(blocks: 3, blockSize: .bytes4096)
    #expect(
      Command([0x25, 0, 0, 0, 0, 0, 0, 0, 0, 0], room: 8).run(on: bench).data
        == [0, 0, 0, 2, 0, 0, 0x10, 0])
    let sixteen = Command(
      [0x9E, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 16, 0, 0], room: 16)
    #expect(
      sixteen.run(on: bench).data == [0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0x10, 0, 0, 0, 0xC0, 0])
  }

  static func checkLUNs() throws {
    let answer = SCSIControllerTests.reportLUNs(64).run(on: try StorageBench())
    #expect(answer.data == [0, 0, 0, 8] + [UInt8](repeating: 0, count: 12))
  }

  /// Page 0 lists exactly the pages that are there.
  static func checkPages() throws {
    let bench = try StorageBench()
    let listed = SCSIAnswerTests.inquiry(0).run(on: bench).data.dropFirst(4)
    #expect(Array(listed) == [0x00, 0x80, 0x83, 0xB0, 0xB1, 0xB2])
    for page in UInt8.min...UInt8.max {
      let answer = SCSIAnswerTests.inquiry(page).run(on: bench)
      guard listed.contains(page) else {
        #expect(answer.sense == .invalidField)
        continue
      }
      #expect(answer.isGood && answer.data[0] == 0 && answer.data[1] == page)
      // The length is that of what follows.
      #expect(Int(answer.data[2]) << 8 | Int(answer.data[3]) == answer.data.count - 4)
    }
  }
}
