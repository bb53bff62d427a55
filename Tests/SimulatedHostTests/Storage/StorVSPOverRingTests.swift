// SPDX-License-Identifier: Apache-2.0

import Platform
import SimulatedHost
import StorageProtocol
import SystemPackage
import Testing
import VMBus

/// The storage device behind real rings and messages: subchannels, disks that come and go.
@Suite(.serialized, .timeLimit(.minutes(10))) struct StorVSPOverRingTests {
  final class Bed {
    let host: SimulatedHost
    let vsp: StorVSP
    let guest: SmallGuest

    init(
      workers: Int = 1, newestVersion: StorageVersion = .windows81, subchannels: UInt16 = 0,
      faults: [FaultPlan] = [], image: consuming DiskImage? = nil
    ) throws {
      var configuration = SimulatedHost.Configuration()
      configuration.workers = (0..<workers).map { .init(name: "vsp-\($0)", spinRounds: 0) }
      host = try SimulatedHost(
        path: "/tmp/vmbus-test-storvsp-\(UInt32.random(in: 0 ... .max)).sock", configuration)
      var controller = SCSIController()
      let disk = try image ?? DiskImage.inMemory(byteCount: 1 << 20)
      let isAttached = controller.attach(try SCSIDisk(disk, identity: testIdentity), lun: 0)
      #expect(isAttached)
      vsp = StorVSP(
        controller, instance: testIdentity, newestVersion: newestVersion,
        maximumSubchannels: subchannels)
      host.add(vsp, faults: faults)
      guest = try SmallGuest(host)
    }

    func openPrimary() throws -> SmallChannel {
      try guest.open(try #require(guest.offers.first { $0.subchannelIndex == 0 }).channelID)
    }

    deinit { host.stop() }
  }

  static func packet(_ operation: UInt8, _ body: [UInt8] = []) -> [UInt8] {
    StorVSPSessionTests.packet(operation, body)
  }

  static func begin(_ channel: inout SmallChannel, version: [UInt8] = [0, 6]) throws {
    for packet in [packet(7), packet(9, version), packet(10), packet(8)] {
      #expect(try Self.status(channel.ask(packet)) == 0)
    }
  }

  static func status(_ completion: [UInt8]) -> UInt32 {
    completion[8..<12].reversed().reduce(0) { $0 << 8 | UInt32($1) }
  }

  static func request(
    _ cdb: [UInt8], lun: UInt8 = 0, transfer: UInt32 = 0
  ) -> [UInt8] {
    var body: [UInt8] = [52, 0, 0, 0, 0, 0, 0, lun, UInt8(cdb.count), 20, 1, 0]
    body.append(little: transfer)
    return packet(3, body + cdb)
  }

  /// The status bytes of a request's completion: SRB, SCSI, and key, code, qualifier of the sense.
  struct Ended: Equatable {
    var srb: UInt8 = 1
    var scsi: UInt8 = 0
    var sense: [UInt8] = []
    static let good = Ended()
    static let powerOn = Ended(srb: 0x84, scsi: 2, sense: [6, 0x29, 0])
    static let gone = Ended(srb: 0x20, scsi: 2, sense: [])
  }

  static func ended(_ completion: [UInt8]) -> Ended {
    let hasSense = completion[14] & 0x80 != 0
    return Ended(
      srb: completion[14], scsi: completion[15],
      sense: hasSense ? [completion[30] & 0xF, completion[40], completion[41]] : [])
  }

  static let ready: [UInt8] = [0, 0, 0, 0, 0, 0]

  @Test func powerOnIsToldOnceToEachGuest() throws {
    let bed = try Bed()
    var channel = try bed.openPrimary()
    try Self.begin(&channel)
    // INQUIRY does not take it.
    let inquiry = Self.request([0x12, 0, 0, 0, 36, 0], transfer: 36)
    #expect(Self.ended(try channel.ask(inquiry, dataByteCount: 36)) == .good)
    let test = Self.request(Self.ready)
    #expect(Self.ended(try channel.ask(test)) == .powerOn)
    #expect(Self.ended(try channel.ask(test)) == .good)
    let second = try SmallGuest(bed.host)
    var other = try second.open(try #require(second.offers.first).channelID)
    try Self.begin(&other)
    #expect(Self.ended(try other.ask(test)) == .powerOn)
    #expect(Self.ended(try channel.ask(test)) == .good)
    // A reset is told to both.
    #expect(Self.status(try other.ask(Self.packet(6))) == 0)
    let reset = Ended(srb: 0x84, scsi: 2, sense: [6, 0x29, 2])
    #expect(Self.ended(try channel.ask(test)) == reset)
    #expect(Self.ended(try other.ask(test)) == reset)
    #expect(Self.ended(try other.ask(test)) == .good)
  }

  @Test func whatIsHeldEndsWithAReset() throws {
    let bed = try Bed(workers: 2, subchannels: 1)
    var channel = try bed.openPrimary()
    try Self.begin(&channel)
    #expect(Self.status(try channel.ask(Self.packet(13, [1, 0]))) == 0)
    try bed.guest.wait("has a subchannel") { $0.offers.count == 2 }
    var subchannel = try bed.guest.open(bed.guest.offers[1].channelID)
    let test = Self.request(Self.ready)
    #expect(Self.ended(try channel.ask(test)) == .powerOn)
    let hold = StorageFault(.hold, count: 1)
    // A later request is answered, so the one before it is held and not just slow.
    bed.vsp.withFaults(lun: 0) { $0.inject(hold) }
    let first = try channel.send(test)
    #expect(Self.ended(try channel.ask(test)) == .good)
    bed.vsp.withFaults(lun: 0) { $0.inject(hold) }
    let second = try subchannel.send(test)
    #expect(Self.ended(try subchannel.ask(test)) == .good)
    #expect(Self.status(try channel.ask(Self.packet(6))) == 0)
    for (held, id) in [(try channel.receive(), first), (try subchannel.receive(), second)] {
      let held = try #require(held)
      #expect(held.id == id)
      // BUS_RESET, and nothing moved.
      #expect(Self.ended(held.payload) == Ended(srb: 0x0E, scsi: 0))
      #expect(held.payload[24..<28].allSatisfy { $0 == 0 })
    }
    let reset = Ended(srb: 0x84, scsi: 2, sense: [6, 0x29, 2])
    #expect(Self.ended(try channel.ask(test)) == reset)
    #expect(Self.ended(try channel.ask(test)) == .good)
  }

  @Test func disksComeAndGoWhileAGuestUsesThem() throws {
    let bed = try Bed()
    var channel = try bed.openPrimary()
    try Self.begin(&channel)
    let test = Self.request(Self.ready)
    _ = try channel.ask(test)
    let second = Self.request(Self.ready, lun: 7)
    #expect(Self.ended(try channel.ask(second)) == .gone)
    #expect(
      bed.vsp.attach(try SCSIDisk(.inMemory(byteCount: 512), identity: testIdentity), lun: 7))
    // ENUMERATE_BUS comes by itself, and nobody answers it.
    let notice = try #require(try channel.receive())
    #expect(notice.type == .inBand)
    #expect(notice.payload == [11] + [UInt8](repeating: 0, count: 63))
    #expect(Self.ended(try channel.ask(second)) == .powerOn)
    #expect(Self.ended(try channel.ask(second)) == .good)
    let inventory = Ended(srb: 0x84, scsi: 2, sense: [6, 0x3F, 0x0E])
    #expect(Self.ended(try channel.ask(test)) == inventory)
    #expect(bed.vsp.units.map(\.lun) == [0, 7])
    #expect(bed.vsp.detach(lun: 7))
    #expect(!bed.vsp.detach(lun: 7))
    #expect(try channel.receive()?.payload.first == 11)
    #expect(Self.ended(try channel.ask(second)) == .gone)
    // REPORT LUNS tells it as well, and takes the attention.
    let report = Self.request([0xA0, 0, 0, 0, 0, 0, 0, 0, 0, 16, 0, 0], transfer: 16)
    #expect(Self.ended(try channel.ask(report, dataByteCount: 16)) == .good)
    #expect(Self.ended(try channel.ask(test)) == .good)
  }

  @Test func versionsBefore42AreNotNotified() throws {
    let bed = try Bed()
    var channel = try bed.openPrimary()
    try Self.begin(&channel, version: [0, 2])
    bed.vsp.attach(try SCSIDisk(.inMemory(byteCount: 512), identity: testIdentity), lun: 1)
    var request = Self.request(Self.ready, lun: 1)
    request.removeLast(16)
    #expect(Self.ended(try channel.ask(request)) == .powerOn)
    #expect(Self.ended(try channel.ask(request)) == .good)
  }

  @Test func aFileThatGrowsIsTold() throws {
    let directory = TemporaryDirectory()
    let path = directory.disk([UInt8](repeating: 0, count: 8192))
    let bed = try Bed(image: .open(path: path))
    var channel = try bed.openPrimary()
    try Self.begin(&channel)
    let test = Self.request(Self.ready)
    _ = try channel.ask(test)
    #expect(!bed.vsp.rescan())
    directory.resize(16384)
    #expect(bed.vsp.rescan())
    #expect(try channel.receive()?.payload.first == 11)
    #expect(
      Self.ended(try channel.ask(test)) == Ended(srb: 0x84, scsi: 2, sense: [6, 0x2A, 9]))
    let last = Self.request(SCSIDiskTests.read16(31, 1), transfer: 512)
    #expect(Self.ended(try channel.ask(last, dataByteCount: 512)) == .good)
    // Nothing that is no whole disk.
    directory.resize(16385)
    #expect(!bed.vsp.rescan())
  }

  @Test func subchannelsAreOfferedServedAndGone() throws {
    let bed = try Bed(workers: 3, subchannels: 2)
    var channel = try bed.openPrimary()
    try Self.begin(&channel)
    let other = try SmallGuest(bed.host)
    #expect(Self.status(try channel.ask(Self.packet(13, [3, 0]))) == 0xC000_000D)
    #expect(Self.status(try channel.ask(Self.packet(13, [2, 0]))) == 0)
    #expect(Self.status(try channel.ask(Self.packet(13, [2, 0]))) == 0xC000_0184)
    try bed.guest.wait("has subchannels") { $0.offers.count == 3 }
    let primary = try #require(bed.guest.offers.first)
    let offers = Array(bed.guest.offers.dropFirst())
    #expect(offers.map(\.subchannelIndex) == [1, 2])
    #expect(Set(bed.guest.offers.map(\.channelID)).count == 3)
    #expect(Set(bed.guest.offers.map(\.connectionID)).count == 3)
    for offer in offers {
      #expect(offer.instanceID == primary.instanceID && offer.interfaceID == primary.interfaceID)
    }
    // Nobody else sees them.
    #expect(other.offers.count == 1)
    var first = try bed.guest.open(offers[0].channelID)
    var second = try bed.guest.open(offers[1].channelID)
    // Nothing but requests.
    #expect(Self.status(try first.ask(Self.packet(7))) == 0xC000_0184)
    let test = Self.request(Self.ready)
    // One guest, so one of its channels is told.
    #expect(Self.ended(try first.ask(test)) == .powerOn)
    #expect(Self.ended(try second.ask(test)) == .good)
    #expect(Self.ended(try channel.ask(test)) == .good)
    // Each is served on a thread of its own.
    let before = bed.host.accounts.map(\.unitsOfWork)
    for _ in 0..<50 {
      _ = try first.ask(test)
      _ = try second.ask(test)
      _ = try channel.ask(test)
    }
    try bed.guest.wait("has three busy workers") { _ in
      zip(bed.host.accounts.map(\.unitsOfWork), before).allSatisfy { $0 >= $1 + 40 }
    }
    // A change of the disks is told on each channel.
    bed.vsp.detach(lun: 0)
    #expect(try channel.receive()?.payload.first == 11)
    #expect(try first.receive()?.payload.first == 11)
    #expect(try second.receive()?.payload.first == 11)
    // With the primary channel they go.
    try bed.guest.close(channel)
    try bed.guest.wait("has lost its subchannels") { $0.offers.count == 1 }
    #expect(Set(bed.guest.rescinded) == Set(offers.map(\.channelID)))
    for id in bed.guest.rescinded { try bed.guest.release(id) }
    // And come again.
    var again = try bed.openPrimary()
    try Self.begin(&again)
    #expect(Self.status(try again.ask(Self.packet(13, [1, 0]))) == 0)
    try bed.guest.wait("has a subchannel again") { $0.offers.count == 2 }
    #expect(bed.guest.refused.isEmpty && bed.host.refusals == 0)
  }

  @Test func aSubchannelWaitsForItsPrimary() throws {
    let bed = try Bed(subchannels: 1)
    var channel = try bed.openPrimary()
    for packet in [Self.packet(7), Self.packet(9, [0, 6]), Self.packet(10)] {
      #expect(Self.status(try channel.ask(packet)) == 0)
    }
    #expect(Self.status(try channel.ask(Self.packet(13, [1, 0]))) == 0)
    try bed.guest.wait("has a subchannel") { $0.offers.count == 2 }
    var subchannel = try bed.guest.open(bed.guest.offers[1].channelID)
    let test = Self.request(Self.ready)
    #expect(Self.status(try subchannel.ask(test)) == 0xC000_0184)
    #expect(Self.status(try channel.ask(Self.packet(8))) == 0)
    #expect(Self.ended(try subchannel.ask(test)) == .powerOn)
  }

  @Test func aDeviceWithSubchannelsIsTakenBack() throws {
    let bed = try Bed(subchannels: 1)
    let device = bed.host.add(
      StorVSP(
        SCSIController(), instance: "01234567-89ab-cdef-0011-223344556678",
        maximumSubchannels: 1))
    try bed.guest.wait("has two devices") { $0.offers.count == 2 }
    let id = bed.guest.offers[1].channelID
    var channel = try bed.guest.open(id)
    try Self.begin(&channel)
    _ = try channel.ask(Self.packet(13, [1, 0]))
    try bed.guest.wait("has a subchannel") { $0.offers.count == 3 }
    let subchannel = try bed.guest.open(bed.guest.offers[2].channelID)
    bed.host.revoke(device)
    try bed.guest.wait("has lost both") { $0.offers.count == 1 }
    // The subchannel goes first.
    #expect(bed.guest.rescinded == [subchannel.id, id])
    #expect(bed.guest.refused.isEmpty)
  }

  @Test(arguments: [
    ("twice", [64, 64]), ("long", [512]), ("short", [8]), ("stall:ms=30", [64]),
    ("delay:ms=30", [64]),
  ])
  func faultsOfCompletions(_ pair: (String, [Int])) throws {
    let plan = try #require(FaultPlan(pair.0 + ":after=4"))
    let bed = try Bed(faults: [plan])
    var channel = try bed.openPrimary()
    try Self.begin(&channel)
    _ = try channel.send(Self.request(Self.ready))
    for count in pair.1 { #expect(try channel.receive()?.payload.count == count) }
    // And on it goes.
    #expect(Self.ended(try channel.ask(Self.request(Self.ready))) == .good)
  }
}
