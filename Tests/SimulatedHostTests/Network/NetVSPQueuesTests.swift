// SPDX-License-Identifier: Apache-2.0

import NetworkProtocol
import SimulatedHost
import Testing
import VMBus

/// Subchannels, and how frames are spread over them.
@Suite(.serialized, .timeLimit(.minutes(2))) struct NetVSPQueuesTests {
  static func configuration(queues: Int) -> AdapterConfiguration {
    var configuration = AdapterConfiguration()
    configuration.maximumQueues = queues
    return configuration
  }

  /// RSS parameters in 44 bytes, as new guests have them; table and key follow.
  static func scaling(
    flags: UInt16 = 0, table: [UInt32], hash: UInt32 = 0x3301, key: [UInt8] = key
  ) -> [UInt8] {
    var bytes: [UInt8] = [0x89, 2, 44, 0, UInt8(flags), 0, 0, 0]
    bytes += Wire.words(
      hash, UInt32(table.count * 4), 44, UInt32(key.count), UInt32(44 + table.count * 4), 0, 0, 0,
      0)
    return bytes + Wire.words(table) + key
  }

  /// The key of Microsoft's verification suite.
  static let key: [UInt8] = [
    0x6d, 0x5a, 0x56, 0xda, 0x25, 0x5b, 0x0e, 0xc2, 0x41, 0x67, 0x25, 0x3d, 0x43, 0xa3, 0x8f,
    0xb0, 0xd0, 0xca, 0x2b, 0xcb, 0xae, 0x7b, 0x30, 0xb4, 0x77, 0xcb, 0x2d, 0xa3, 0x80, 0x30,
    0xf2, 0x0c, 0x6a, 0x42, 0xb7, 0x3b, 0xbe, 0xac, 0x01, 0xfa,
  ]

  /// A TCP segment over IPv4 from the suite's first row: 66.9.149.187:2794 to 161.142.100.80:port.
  static func tcp(port: UInt16 = 1766) -> [UInt8] {
    NetworkTestBed.address.wireBytes + [2, 0, 0, 0, 0, 9, 0x08, 0x00]
      + [0x45, 0, 0, 46, 0, 0, 0x40, 0, 64, 6, 0, 0, 66, 9, 149, 187, 161, 142, 100, 80]
      + [0x0A, 0xEA, UInt8(port >> 8), UInt8(port & 0xFF)]
      + [0, 0, 0, 1, 0, 0, 0, 2, 0x50, 0x10, 1, 0, 0, 0, 0, 0] + [1, 2, 3, 4, 5, 6]
  }

  /// Opens so many subchannels of a client that is ready.
  static func openSubchannels(
    _ count: Int, of client: inout NetworkClient, _ bed: NetworkTestBed
  ) throws -> [ChannelID] {
    #expect(try client.ask(Wire.nvsp(133, 1, UInt32(count))) == Wire.nvsp(133, 1, UInt32(count)))
    try bed.guest.wait("has subchannels") { $0.offers.count == count + 1 }
    return bed.guest.offers.filter { $0.subchannelIndex > 0 }
      .sorted { $0.subchannelIndex < $1.subchannelIndex }.map(\.channelID)
  }

  @Test func flowsStayOnTheirChannels() throws {
    let bed = try NetworkTestBed(LoopbackBackend(), Self.configuration(queues: 4), workers: 2)
    var client = try bed.open()
    try client.start()
    #expect(try client.query(0x0001_0203).map { Wire.word($0, 12) } == 4)
    let ids = try Self.openSubchannels(3, of: &client, bed)
    var first = try bed.guest.open(ids[0])
    var second = try bed.guest.open(ids[1])
    #expect(try client.isSilent())
    var third = try bed.guest.open(ids[2])
    // With the last one comes the table, 16 queues in turn, right behind its header.
    let table = try client.next()
    #expect(table.type == .inBand && table.payload.count == 80)
    #expect(
      Array(table.payload.prefix(76))
        == Wire.words(134, 16, 12) + Wire.words((0..<16).map { $0 % 4 }))
    // The flow of the suite has hash 0x51ccc178: entry 0x78 of 128.
    var entries = [UInt32](repeating: 0, count: 128)
    entries[0x78] = 2
    #expect(try client.set(0x0001_0204, Self.scaling(table: entries)) == 0)
    #expect(try client.sendRNDIS(Wire.packet(Self.tcp())) == 1)
    let packet = try #require(try second.receiveWhole())
    #expect(packet.type == .transferPages)
    let message = try #require(try client.ranges(packet).first)
    let received = try NetworkClient.frame(message)
    #expect(received.frame == Self.tcp() && received.info[8] == 0x51cc_c178)
    // Given back on the channel that it came by; not on another one.
    try first.send(.completion, id: packet.id, Wire.words(108, 1), completionRequested: false)
    try second.send(.completion, id: packet.id, Wire.words(108, 1), completionRequested: false)
    try bed.wait("has it back") { record in
      record.queues.count == 4 && record.queues[2].counters.buffersWithGuest == 0
        && record.queues[1].counters.unknownCompletions == 1
    }
    // Another frame of no flow goes to the primary channel; from any channel.
    let frame = Wire.frame()
    client.put(Wire.packet(frame), at: 0)
    var ranges = Wire.words(0, 1, 108, 0)
    ranges.append(little: bed.guest.numbers(client.channel.data)[0])
    try third.send(.gpaDirect, id: 5, ranges: ranges, Wire.nvsp(107, 0, .max, 0))
    #expect(try third.receiveWhole()?.payload == Wire.nvsp(108, 1))
    #expect(try client.receiveFrames().map(\.frame) == [frame])
    // Without scaling all goes there.
    #expect(
      try client.set(0x0001_0204, Self.scaling(flags: 0x10, table: [0], key: Self.key)) == 0)
    #expect(try client.sendRNDIS(Wire.packet(Self.tcp())) == 1)
    #expect(try client.receiveFrames().map(\.frame) == [Self.tcp()])
    #expect(try bed.record().errorCount == 1)
    _ = third.id
  }

  /// Only the primary channel is told how large frames may be. Linux sends TCP of less than two
  /// segments of 9000 bytes as one plain frame, by any channel.
  @Test func subchannelsTakeFramesAsLargeAsConfigured() throws {
    var configuration = Self.configuration(queues: 2)
    configuration.mtu = 9000
    let bed = try NetworkTestBed(LoopbackBackend(), configuration)
    var style = NetworkClient.Style.linux
    style.frameByteCount = 9014
    style.receivePages = 128
    var client = try bed.open(style: style)
    try client.start()
    let ids = try Self.openSubchannels(1, of: &client, bed)
    var subchannel = try bed.guest.open(ids[0])
    #expect(try client.next().payload.first == 134)
    let frame = Wire.frame(byteCount: 4398)
    let message = Wire.packet(frame)
    let section = unsafe bed.guest.bytes(client.sendPages)
    for (index, byte) in message.enumerated() { unsafe section[index] = byte }
    try subchannel.send(.inBand, id: 5, Wire.nvsp(107, 0, 0, UInt32(message.count)))
    #expect(try subchannel.receiveWhole()?.payload == Wire.nvsp(108, 1))
    #expect(try client.receiveFrames().map(\.frame) == [frame])
    #expect(try bed.record().errorCount == 0)
  }

  @Test func scalingThatCanNotBe() throws {
    let bed = try NetworkTestBed(LoopbackBackend(), Self.configuration(queues: 4))
    var client = try bed.open()
    try client.start()
    let invalid: UInt32 = 0xC001_0015
    // A queue that there is not; sizes that are no power of two, none, too large.
    #expect(try client.set(0x0001_0204, Self.scaling(table: [0, 4])) == invalid)
    #expect(try client.set(0x0001_0204, Self.scaling(table: [0, 1, 2])) == invalid)
    #expect(try client.set(0x0001_0204, Self.scaling(table: [])) == invalid)
    #expect(
      try client.set(0x0001_0204, Self.scaling(table: [UInt32](repeating: 0, count: 512)))
        == invalid)
    // A key of another length; table and key outside of the buffer.
    #expect(
      try client.set(0x0001_0204, Self.scaling(table: [0, 1], key: Array(Self.key.prefix(32))))
        == invalid)
    for (offset, value) in [(16, 0xFFFF_FFF0), (24, 0xFFFF_FFFF), (24, 53)] as [(Int, UInt32)] {
      var parameters = Self.scaling(table: [0, 1])
      for byte in 0..<4 {
        parameters[offset + byte] = UInt8(truncatingIfNeeded: value >> UInt32(8 * byte))
      }
      #expect(try client.set(0x0001_0204, parameters) == 0xC001_0014)
    }
    #expect(try client.set(0x0001_0204, [0x89, 2, 44, 0]) == 0xC001_0014)
    #expect(try client.set(0x0001_0204, Self.scaling(table: [0, 1, 2, 3])) == 0)
  }

  @Test func subchannelsComeAgainAtOnceWhenTheGuestDoes() throws {
    let bed = try NetworkTestBed(LoopbackBackend(), Self.configuration(queues: 3), workers: 3)
    for _ in 0..<5 {
      var client = try bed.open()
      try client.start()
      let ids = try Self.openSubchannels(2, of: &client, bed)
      let first = try bed.guest.open(ids[0])
      let second = try bed.guest.open(ids[1])
      #expect(try client.next().payload.first == 134)
      // The primary channel is closed and opened while its subchannels still go.
      try bed.guest.close(client.channel)
      _ = (first.id, second.id)
      try bed.guest.wait("has lost its subchannels") { $0.offers.count == 1 }
      for id in ids { try bed.guest.release(id) }
    }
    #expect(bed.host.refusals == 0)
  }

  @Test func subchannelsOfTheLastTimeAreWaitedFor() throws {
    let bed = try NetworkTestBed(LoopbackBackend(), Self.configuration(queues: 2), workers: 2)
    var client = try bed.open()
    try client.start()
    let old = try Self.openSubchannels(1, of: &client, bed)[0]
    let subchannel = try bed.guest.open(old)
    // The host is slow to let go of it: the worker that serves it has other things to do.
    try bed.guest.close(client.channel)
    var again = try bed.open()
    try again.start()
    #expect(try again.ask(Wire.nvsp(133, 1, 1)) == Wire.nvsp(133, 1, 1))
    try bed.guest.wait("has lost the old one") { $0.rescinded == [old] }
    try bed.guest.release(old)
    try bed.guest.wait("has a new one") { guest in
      guest.offers.contains { $0.subchannelIndex == 1 }
    }
    _ = subchannel.id
    let new = try #require(bed.guest.offers.first { $0.subchannelIndex == 1 }).channelID
    #expect(new != old)
    let other = try bed.guest.open(new)
    #expect(try again.next().payload.first == 134)
    _ = other.id
  }

  @Test func moreSubchannelsThanThereAre() throws {
    let bed = try NetworkTestBed(LoopbackBackend(), Self.configuration(queues: 4))
    var client = try bed.open()
    try client.start()
    #expect(Wire.word(try client.ask(Wire.nvsp(133, 1, 4)), 4) == 2)
    #expect(Wire.word(try client.ask(Wire.nvsp(133, 1, .max)), 4) == 2)
    #expect(bed.guest.offers.count == 1)
    #expect(try NetVSPBadInputTests.goesOn(&client))
  }

  @Test func aSubchannelTakesNoControlMessage() throws {
    let bed = try NetworkTestBed(LoopbackBackend(), Self.configuration(queues: 2))
    var client = try bed.open()
    try client.start()
    let id = try Self.openSubchannels(1, of: &client, bed)[0]
    var subchannel = try bed.guest.open(id)
    #expect(try client.next().payload.first == 134)
    client.put(Wire.query(1, 0x0001_0106), at: 0)
    var ranges = Wire.words(0, 1, 28, 0)
    ranges.append(little: bed.guest.numbers(client.channel.data)[0])
    try subchannel.send(.gpaDirect, id: 5, ranges: ranges, Wire.nvsp(107, 1, .max, 0))
    #expect(try subchannel.receiveWhole()?.payload == Wire.nvsp(108, 5))
    #expect(try bed.record().errors == [.unexpectedRNDIS(.query)])
    // The start-up is the primary channel's: here it ends the channel.
    try subchannel.send(.inBand, id: 6, Wire.nvsp(1, 0x60001, 0x60001))
    try bed.guest.wait("is refused") { _ in bed.host.refusals == 1 }
    #expect(try bed.record().errors.last == .notOnSubchannel(.initialize))
    #expect(try NetVSPBadInputTests.goesOn(&client))
  }
}
