// SPDX-License-Identifier: Apache-2.0

import NetworkProtocol
import SimulatedHost
import Testing
import VMBus

/// RNDIS control: objects, the link, and what is said unasked.
@Suite(.serialized, .timeLimit(.minutes(2))) struct NetVSPControlTests {
  @Test func theObjectsThatGuestsAskFor() throws {
    var configuration = AdapterConfiguration()
    configuration.linkSpeed = 100_000_000
    let bed = try NetworkTestBed(LoopbackBackend(), configuration)
    var client = try bed.open()
    try client.start()
    let expected: [(UInt32, [UInt8])] = [
      (0x0001_0102, Wire.words(0)), (0x0001_0103, Wire.words(0)), (0x0001_0104, Wire.words(0)),
      (0x0001_0106, Wire.words(1500)), (0x0001_0107, Wire.words(100_000_000)),
      (0x0001_0111, Wire.words(1514)), (0x0001_010C, Wire.words(0x155D)),
      (0x0001_010E, Wire.words(0xB)), (0x0001_0114, Wire.words(0)),
      (0x0101_0101, [0x00, 0x15, 0x5D, 1, 2, 3]), (0x0101_0102, [0x00, 0x15, 0x5D, 1, 2, 3]),
      (0x0101_0104, Wire.words(32)), (0x0001_0202, Wire.words(0)),
      // 10 Gbit/s in bits: connected, full duplex.
      (
        0x0001_0207,
        [0x80, 1, 40, 0] + Wire.words(1, 2, 0, 0x540B_E400, 2, 0x540B_E400, 2, 0, 0)
      ),
      (0x0001_0206, Wire.words(0x540B_E400, 2, 0x540B_E400, 2)),
      (0x0002_0216, Array("N\0e\0t\0w\0o\0r\0k\0 \0A\0d\0a\0p\0t\0e\0r\0\0\0".utf8)),
    ]
    for (oid, value) in expected {
      #expect(try client.query(oid) == value, "OID \(String(oid, radix: 16))")
    }
    let list = try #require(try client.query(0x0001_0101))
    for offset in stride(from: 0, to: list.count, by: 4) {
      let oid = Wire.word(list, offset)
      // Each can be asked for but those that are only set.
      if ![0xFC01_020C, 0x0001_0112, 0x0001_021B, 0x0101_010A, 0x0001_0204].contains(oid) {
        #expect(try client.query(oid) != nil, "OID \(String(oid, radix: 16))")
      }
    }
    #expect(try client.query(0x7777_7777) == nil)
    #expect(try client.set(0x7777_7777, [1, 2, 3, 4]) == 0xC000_00BB)
    // Statistics count what has passed.
    #expect(try client.sendRNDIS(Wire.packet(Wire.frame())) == 1)
    _ = try client.receiveFrames()
    #expect(try client.query(0x0002_0101) == Wire.words(1, 0))
    #expect(try client.query(0x0002_0102) == Wire.words(1, 0))
  }

  @Test func setsThatAreTooShortOrTooLong() throws {
    let bed = try NetworkTestBed()
    var client = try bed.open()
    try client.start()
    for oid in [0x0001_010E, 0x0001_010F, 0x0001_0204, 0xFC01_020C, 0x0001_021B] as [UInt32] {
      #expect(try client.set(oid, [1, 2, 3]) == 0xC001_0014)
      #expect(try client.set(oid, []) == 0xC001_0014)
    }
    #expect(try client.set(0x0101_0103, [1, 2, 3, 4, 5]) == 0xC001_0014)
    #expect(try client.set(0x0101_0103, [1, 0, 0x5E, 0, 0, 1]) == 0)
    #expect(try client.query(0x0101_0103) == [1, 0, 0x5E, 0, 0, 1])
    #expect(try client.set(0x0101_0103, [UInt8](repeating: 1, count: 33 * 6)) == 0xC001_0009)
    // 22 bytes are what NDIS before 6.30 has.
    #expect(try client.set(0xFC01_020C, [0x80, 1, 22, 0] + [UInt8](repeating: 4, count: 18)) == 0)
  }

  @Test func linuxSetsAnAddress() throws {
    let bed = try NetworkTestBed()
    var client = try bed.open()
    try client.start()
    func utf16(_ text: String) -> [UInt8] { text.utf8.flatMap { [$0, 0] } }
    func parameter(_ name: String, _ value: String, type: UInt32 = 2) -> [UInt8] {
      Wire.words(
        20, UInt32(2 * name.utf8.count), type, UInt32(20 + 2 * name.utf8.count),
        UInt32(2 * value.utf8.count)) + utf16(name) + utf16(value)
    }
    #expect(try client.set(0x0001_021B, parameter("NetworkAddress", "0215AABBCCDD")) == 0)
    #expect(try client.query(0x0101_0102) == [2, 0x15, 0xAA, 0xBB, 0xCC, 0xDD])
    #expect(try client.query(0x0101_0101) == NetworkTestBed.address.wireBytes)
    #expect(try client.set(0x0001_021B, parameter("NetworkAddress", "0115AABBCCDD")) == 0xC001_0015)
    #expect(try client.set(0x0001_021B, parameter("NetworkAddress", "02")) == 0xC001_0015)
    #expect(try client.set(0x0001_021B, parameter("Speed", "1")) == 0xC000_00BB)
    var wrong = parameter("NetworkAddress", "0215AABBCCDD")
    (wrong[0], wrong[1]) = (0xFF, 0xFF)
    #expect(try client.set(0x0001_021B, wrong) == 0xC001_0014)
  }

  @Test func theLinkGoesDownAndUp() throws {
    let bed = try NetworkTestBed()
    var client = try bed.open()
    try client.start()
    bed.vsp.setLinkUp(false)
    // INDICATE_STATUS, MEDIA_DISCONNECT, without a buffer.
    #expect(try client.answer() == Wire.words(7, 20, 0x4001_000C, 0, 0))
    #expect(try client.query(0x0001_0114) == Wire.words(1))
    #expect(try client.query(0x0001_0207).map { Wire.word($0, 4) } == 2)
    // What is sent is completed, and goes nowhere.
    #expect(try client.sendRNDIS(Wire.packet(Wire.frame())) == 1)
    #expect(try client.isSilent())
    bed.vsp.setLinkUp(false)
    bed.vsp.setLinkUp(true)
    #expect(try client.answer() == Wire.words(7, 20, 0x4001_000B, 0, 0))
    #expect(try NetVSPBadInputTests.goesOn(&client))
    bed.vsp.announceNetworkChange()
    #expect(try client.answer() == Wire.words(7, 20, 0x4001_0018, 0, 0))
    // A guest that comes while it is down is not told, it asks.
    bed.vsp.setLinkUp(false)
    var other = try NetworkClient(try SmallGuest(bed.host))
    try other.start()
    #expect(try other.query(0x0001_0114) == Wire.words(1))
    #expect(try other.isSilent())
  }

  /// As the second guest of a TAP device.
  @Test func aGuestThatTheBackendHasNoPlaceForHasNoLink() throws {
    let bed = try NetworkTestBed(FullBackend())
    var client = try bed.open()
    try client.start()
    #expect(try client.query(0x0001_0114) == Wire.words(1))
    #expect(try client.sendRNDIS(Wire.packet(Wire.frame())) == 1)
    bed.vsp.setLinkUp(false)
    bed.vsp.setLinkUp(true)
    #expect(try client.isSilent())
    #expect(try client.query(0x0001_0114) == Wire.words(1))
    #expect(try bed.record().isLinkUp == false)
  }

  @Test func keepaliveResetAndHalt() throws {
    let bed = try NetworkTestBed()
    var client = try bed.open()
    try client.start()
    #expect(try client.control(Wire.rndis(8, Wire.words(77))) == Wire.words(0x8000_0008, 16, 77, 0))
    // After a reset the filter has to be set again.
    #expect(try client.control(Wire.rndis(6, Wire.words(0))) == Wire.words(0x8000_0006, 16, 0, 1))
    #expect(try client.sendRNDIS(Wire.packet(Wire.frame())) == 1)
    #expect(try client.isSilent())
    #expect(try client.setFilter(0xB) == 0)
    #expect(try NetVSPBadInputTests.goesOn(&client))
    // HALT is not answered, and nothing is received or sent after it.
    #expect(try client.sendRNDIS(Wire.rndis(3, Wire.words(1)), channelType: 1) == 1)
    #expect(try client.isSilent())
    #expect(try client.sendRNDIS(Wire.packet(Wire.frame())) == 5)
    #expect(Wire.word(try client.control(Wire.query(1, 0x0001_0106)), 12) == 0xC000_0001)
    // Until it initializes again.
    #expect(
      Wire.word(try client.control(Wire.rndis(2, Wire.words(1, 1, 0, 0x4000))), 12) == 0)
    #expect(try client.setFilter(0xB) == 0)
    #expect(try NetVSPBadInputTests.goesOn(&client))
  }

  @Test func aGeneratorSendsAndASinkTakes() throws {
    let bed = try NetworkTestBed(GeneratorBackend(byteCount: 60))
    var client = try bed.open()
    try client.start(filter: 0)
    #expect(try client.isSilent())
    #expect(try client.sendRNDIS(Wire.packet(Wire.frame())) == 1)
    // The frames come before the answer that says so.
    client.put(Wire.set(99, 0x0001_010E, Wire.words(1)), at: 0)
    _ = try client.send(ranges: [(0, 32)], channelType: 1)
    var frames: [[UInt8]] = []
    for _ in 0..<50 {
      let packet = try client.next()
      guard Wire.word(packet.payload, 4) == 0 else { continue }
      frames += try client.ranges(packet).map { try NetworkClient.frame($0).frame }
      try client.complete(packet)
      if frames.count > 200 { break }
    }
    #expect(frames.count > 200)
    for frame in frames {
      #expect(frame.count == 60 && Array(frame[0..<6]) == NetworkTestBed.address.wireBytes)
      #expect(NetworkSwitchTests.sum(Array(frame[14..<34])) == 0xFFFF)
    }
    // All differ.
    #expect(Set(frames).count == frames.count)
    #expect(try bed.record().queues[0].counters.framesFromGuest == 1)
  }

  @Test func aHostThatFlipsBitsDoesSoTheSameWayEachTime() throws {
    func run() throws -> [[UInt8]] {
      let bed = try NetworkTestBed()
      var client = try bed.open()
      try client.start()
      bed.vsp.setFlips(BitFlips(seed: 5, oneIn: 2))
      var seen: [[UInt8]] = []
      for index in 0..<20 {
        client.put(Wire.packet(Wire.frame(fill: UInt8(index))), at: 0)
        var ranges = Wire.words(0, 1, 108, 0)
        ranges.append(little: bed.guest.numbers(client.channel.data)[0])
        try client.channel.send(
          .gpaDirect, id: UInt64(index), ranges: ranges, Wire.nvsp(107, 0, .max))
        for _ in 0..<2 {
          let packet = try client.next()
          seen.append(packet.ranges + packet.payload)
        }
      }
      return seen
    }
    let first = try run()
    let plain = Set(first)
    #expect(plain.count > 10)
    #expect(try run() == first)
  }
}
