// SPDX-License-Identifier: Apache-2.0

import SimulatedHost
import StorageProtocol
import Testing

/// VERIFY, MODE SELECT, START STOP UNIT, and the sense that goes with them.
@Suite struct SCSIStateTests {
  static let stop: [UInt8] = [0x1B, 0, 0, 0, 0, 0]
  static let start: [UInt8] = [0x1B, 0, 0, 0, 1, 0]
  static let notReady = SCSISense(key: .notReady, code: 0x04, qualifier: 0x02)
  static let miscompare = SCSISense(key: SCSISenseKey(rawValue: 0x0E), code: 0x1D)

  @Test func aStoppedDiskIsNotReady() throws { try Self.checkStartStop() }

  static func checkStartStop() throws {
    let bench = try StorageBench()
    #expect(Command(stop).run(on: bench).isGood)
    for cdb in [
      [0, 0, 0, 0, 0, 0], SCSIDiskTests.read16(0, 0), SCSIDiskTests.write16(0, 0),
      [0x25, 0, 0, 0, 0, 0, 0, 0, 0, 0], [0x35, 0, 0, 0, 0, 0, 0, 0, 0, 0],
    ] as [[UInt8]] {
      #expect(Command(cdb, room: 512).run(on: bench).sense == notReady)
    }
    // It can still be asked who it is, and why it is not ready.
    #expect(Command([0x12, 0, 0, 0, 36, 0], room: 36).run(on: bench).isGood)
    let sense = Command([0x03, 0, 0, 0, 18, 0], room: 18).run(on: bench).data
    #expect(sense[0] == 0x70 && sense[2] == 2 && sense[12] == 4 && sense[13] == 2)
    let descriptors = Command([0x03, 1, 0, 0, 18, 0], room: 18).run(on: bench).data
    #expect(descriptors == [0x72, 2, 4, 2, 0, 0, 0, 0])
    #expect(Command(start).run(on: bench).isGood)
    #expect(Command([0, 0, 0, 0, 0, 0]).run(on: bench).isGood)
    // Nothing to eject, and no other states of power.
    #expect(Command([0x1B, 0, 0, 0, 2, 0]).run(on: bench).sense == .invalidField)
    #expect(Command([0x1B, 0, 0, 0, 0x30, 0]).run(on: bench).sense == .invalidField)
    // IMMED, and NO_FLUSH.
    #expect(Command([0x1B, 1, 0, 0, 4, 0]).run(on: bench).isGood)
    #expect(Command(start).run(on: bench).isGood)
  }

  /// VERIFY in its forms: the code, the bytes of the address, where the count ends.
  static func verify(
    _ code: UInt8, _ options: UInt8, _ address: UInt8, _ count: UInt8, data: [UInt8] = []
  ) -> Command {
    switch code {
    case 0x2F, 0x2E:
      Command([code, options, 0, 0, 0, address, 0, 0, count, 0], writing: data)
    case 0xAF, 0xAE:
      Command([code, options, 0, 0, 0, address, 0, 0, 0, count, 0, 0], writing: data)
    default:
      Command(
        [code, options, 0, 0, 0, 0, 0, 0, 0, address, 0, 0, 0, count, 0, 0], writing: data)
    }
  }

  @Test(arguments: [0x2F, 0xAF, 0x8F] as [UInt8])
  func blocksAreCompared(_ code: UInt8) throws { try Self.checkVerify(code) }

  static func checkVerify(_ code: UInt8) throws {
    let bench = try StorageBench()
    let data = pattern(1024, seed: 4)
    #expect(Command(SCSIDiskTests.write16(2, 2), writing: data).run(on: bench).isGood)
    #expect(verify(code, 0, 0, 64).run(on: bench).isGood)
    #expect(verify(code, 0, 63, 2).run(on: bench).sense == .addressOutOfRange)
    let same = verify(code, 2, 2, 2, data: data).run(on: bench)
    #expect(same.isGood && same.request.transferLength == 1024)
    var other = data
    other[700] ^= 1
    let different = verify(code, 2, 2, 2, data: other).run(on: bench)
    #expect(different.sense == miscompare)
    // Where it differs: 700.
    #expect(different.payload[0] == 0xF0 && different.payload[3...6] == [0, 0, 2, 0xBC])
    let few = verify(code, 2, 2, 2, data: Array(data.prefix(512))).run(on: bench)
    #expect(few.request.srbStatus == .invalidRequest)
    // One block for all.
    #expect(verify(code, 6, 10, 5, data: [UInt8](repeating: 0, count: 512)).run(on: bench).isGood)
    #expect(verify(code, 6, 2, 2, data: Array(data.prefix(512))).run(on: bench).sense == miscompare)
    // BYTCHK 2 is reserved.
    #expect(verify(code, 4, 2, 2, data: data).run(on: bench).sense == .invalidField)
  }

  @Test(arguments: [0x2E, 0xAE, 0x8E] as [UInt8])
  func blocksAreWrittenAndCompared(_ code: UInt8) throws { try Self.checkWriteAndVerify(code) }

  static func checkWriteAndVerify(_ code: UInt8) throws {
    let bench = try StorageBench()
    for options: UInt8 in [0, 2] {
      let data = pattern(1024, seed: options)
      let answer = verify(code, options, 62, 2, data: data).run(on: bench)
      #expect(answer.isGood && answer.request.transferLength == 1024)
      #expect(
        Command(SCSIDiskTests.read16(62, 2), room: 1024).run(on: bench).data == data)
    }
    #expect(verify(code, 0, 63, 2, data: pattern(1024)).run(on: bench).sense == .addressOutOfRange)
    #expect(verify(code, 4, 0, 1, data: pattern(512)).run(on: bench).sense == .invalidField)
  }

  static let caching: [UInt8] = [0x08, 0x12, 0] + [UInt8](repeating: 0, count: 17)
  static let control: [UInt8] = [0x0A, 0x0A, 4, 0x10, 0, 0, 0, 0, 0xFF, 0xFF, 0, 0]

  static func select(
    _ pages: [UInt8], long: Bool = false, options: UInt8 = 0x10, length: Int? = nil
  ) -> Command {
    let list = [UInt8](repeating: 0, count: long ? 8 : 4) + pages
    let count = UInt8(length ?? list.count)
    return Command(
      long ? [0x55, options, 0, 0, 0, 0, 0, 0, count, 0] : [0x15, options, 0, 0, count, 0],
      writing: list)
  }

  static func sensed(_ bench: StorageBench) -> [UInt8] {
    let data = Command([0x1A, 0, 0x3F, 0, 255, 0], room: 255).run(on: bench).data
    return [data[6], data[26]]
  }

  @Test(arguments: [false, true])
  func cacheAndSenseFormatAreChosen(_ long: Bool) throws { try Self.checkModeSelect(long: long) }

  static func checkModeSelect(long: Bool) throws {
    let bench = try StorageBench()
    #expect(sensed(bench) == [4, 0])
    #expect(select(caching, long: long).run(on: bench).isGood)
    #expect(sensed(bench) == [0, 0])
    // What is written is on stable storage then, and nothing else changes.
    #expect(Command(SCSIDiskTests.write16(0, 1), writing: pattern(512)).run(on: bench).isGood)
    #expect(select(control, long: long).run(on: bench).isGood)
    #expect(sensed(bench) == [0, 4])
    // Sense data has descriptors: the field pointer says byte 1, bit 7.
    var protected = SCSIDiskTests.read16(0, 1)
    protected[1] = 0x80
    let answer = Command(protected, room: 512).run(on: bench)
    #expect(
      answer.payload
        == [0x72, 5, 0x24, 0, 0, 0, 0, 8, 0x02, 0x06, 0, 0, 0xCF, 0, 1, 0, 0, 0, 0, 0])
    // Both at once, back to the start.
    var first = caching
    first[2] = 4
    var second = control
    second[2] = 0
    #expect(select(first + second, long: long).run(on: bench).isGood)
    #expect(sensed(bench) == [4, 0])
    #expect(select([], long: long, length: 0).run(on: bench).isGood)
    #expect(select([], long: long).run(on: bench).isGood)
  }

  @Test(arguments: [false, true])
  func parametersThatCanNotBeChosenChangeNothing(_ long: Bool) throws {
    let bench = try StorageBench()
    let parameter = SCSISense(key: .illegalRequest, code: 0x26)
    let length = SCSISense(key: .illegalRequest, code: 0x1A)
    var unchangeable = Self.caching
    unchangeable[2] = 1
    var wrongLength = Self.caching
    wrongLength[1] = 0x11
    for (pages, sense) in [
      (unchangeable, parameter), (wrongLength, parameter), ([0x1C, 0x0A], parameter),
      (Array(Self.caching.dropLast()), length), ([0x08], length),
      // Good pages before a bad one do not count.
      (Self.caching + [0x01, 0x0A], parameter),
      ([UInt8](repeating: 0, count: 70), length),
    ] as [([UInt8], SCSISense)] {
      #expect(Self.select(pages, long: long).run(on: bench).sense == sense, "\(pages)")
    }
    // Saved pages, and pages in no format, are fields of the command.
    #expect(
      Self.select(Self.caching, long: long, options: 0x11).run(on: bench).sense == .invalidField)
    #expect(Self.select(Self.caching, long: long, options: 0).run(on: bench).sense == .invalidField)
    // A block descriptor would choose the capacity.
    var described = Self.select([UInt8](repeating: 0, count: 8), long: long)
    described.data[long ? 7 : 3] = 8
    #expect(described.run(on: bench).sense == parameter)
    // Less than the header.
    #expect(Self.select([], long: long, length: 3).run(on: bench).sense == length)
    #expect(Self.sensed(bench) == [4, 0])
  }

  @Test func otherGuestsAreToldOfAnotherMode() throws {
    let bench = try StorageBench()
    let (first, second) = (SCSINexus(), SCSINexus())
    #expect(bench.run(Command([0, 0, 0, 0, 0, 0]), as: first).isGood)
    bench.join(first)
    bench.join(second)
    // Power on, once each.
    for nexus in [first, second] {
      #expect(
        bench.run(Command([0, 0, 0, 0, 0, 0]), as: nexus).sense
          == SCSISense(key: .unitAttention, code: 0x29))
    }
    #expect(bench.run(Self.select(Self.caching), as: first).isGood)
    #expect(bench.run(Command([0, 0, 0, 0, 0, 0]), as: first).isGood)
    // REQUEST SENSE takes it, and tells it as data.
    let sense = bench.run(Command([0x03, 0, 0, 0, 18, 0], room: 18), as: second).data
    #expect(sense[2] == 6 && sense[12] == 0x2A && sense[13] == 0x01)
    #expect(bench.run(Command([0, 0, 0, 0, 0, 0]), as: second).isGood)
  }

  @Test func mediumErrorNamesItsBlock() throws {
    let bench = try StorageBench()
    bench.controller.withFaults(lun: 0) {
      $0.inject(StorageFault(.sense(.unrecoveredRead), commands: .read, blocks: 9...9))
    }
    let answer = Command(SCSIDiskTests.read16(4, 8), room: 4096).run(on: bench)
    #expect(answer.sense == .unrecoveredRead)
    #expect(answer.payload[0] == 0xF0 && answer.payload[3...6] == [0, 0, 0, 9])
    #expect(Command(SCSIDiskTests.read16(4, 5), room: 4096).run(on: bench).isGood)
  }
}
