// SPDX-License-Identifier: Apache-2.0

import SimulatedHost
import StorageProtocol
import Testing

@Suite struct StorageFaultsTests {
  static func read(_ address: UInt64, _ count: UInt32 = 1) -> Command {
    Command(SCSIDiskTests.read16(address, count), room: 4096)
  }

  static func inject(_ fault: StorageFault, into bench: StorageBench) {
    bench.controller.withFaults(lun: 0) { $0.inject(fault) }
  }

  @Test func faultHitsTheNextCommands() throws {
    let bench = try StorageBench()
    Self.inject(StorageFault(.sense(.unrecoveredRead), count: 2), into: bench)
    #expect(Self.read(0).run(on: bench).sense == .unrecoveredRead)
    #expect(Command([0, 0, 0, 0, 0, 0]).run(on: bench).sense == .unrecoveredRead)
    #expect(Self.read(0).run(on: bench).isGood)
  }

  @Test func faultHitsItsBlocksAndKinds() throws {
    let bench = try StorageBench()
    Self.inject(
      StorageFault(.sense(.writeError), commands: [.write, .flush], blocks: 8...9),
      into: bench)
    #expect(Self.read(8).run(on: bench).isGood)
    for (address, count, hit) in [(7, 1, false), (7, 2, true), (9, 1, true), (10, 1, false)]
      as [(UInt64, UInt32, Bool)]
    {
      let answer = Command(SCSIDiskTests.write16(address, count), room: 4096).run(on: bench)
      #expect((answer.sense == .writeError) == hit)
    }
    #expect(Command([0x35, 0, 0, 0, 0, 0, 0, 0, 0, 0]).run(on: bench).sense == .writeError)
    #expect(Command(SCSIDiskTests.read16(10, 0, code: 0x91)).run(on: bench).isGood)
    // An address at the end of the numbers must not overflow the comparison.
    let far = Command(SCSIDiskTests.write16(.max, .max), room: 512).run(on: bench)
    #expect(far.sense == .addressOutOfRange)
    Self.inject(StorageFault(.sense(.none), blocks: .max - 1 ... .max, count: 1), into: bench)
    let last = Command(SCSIDiskTests.write16(.max, .max), room: 512).run(on: bench)
    #expect(last.sense == SCSISense.none)
    bench.controller.withFaults(lun: 0) { $0.clear() }
    #expect(Command(SCSIDiskTests.write16(8, 1), room: 512).run(on: bench).isGood)
  }

  @Test func faultsOfTheRequestAndOfTheDevice() throws {
    let bench = try StorageBench()
    Self.inject(StorageFault(.request(.timeout), count: 1), into: bench)
    Self.inject(StorageFault(.device(.busy), count: 1), into: bench)
    let timeout = Self.read(0).run(on: bench).request
    #expect(timeout.srbStatus == .timeout && timeout.srbStatus.packetStatus == .ioTimeout)
    let busy = Self.read(0).run(on: bench).request
    #expect(busy.srbStatus == .error && busy.scsiStatus == .busy && busy.sense == nil)
    #expect(Self.read(0).run(on: bench).isGood)
    bench.controller.withFaults(lun: 64) { _ in Issue.record("there is no such disk") }
  }
}
