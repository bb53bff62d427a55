// SPDX-License-Identifier: Apache-2.0

import NetworkProtocol
import SimulatedHost
import Testing
import VMBus

/// The guest's buffers from the first to the last: who has them, and when they are the guest's again.
@Suite(.serialized, .timeLimit(.minutes(2))) struct NetVSPBuffersTests {
  @Test func aGPADLThatIsInUseIsGivenBackAfterItsRevoke() throws {
    let bed = try NetworkTestBed()
    var client = try bed.open()
    try client.start()
    try bed.guest.tearDown(client.receiveGPADL)
    try bed.guest.tearDown(client.sendGPADL)
    // The device uses them: frames still come.
    #expect(try NetVSPBadInputTests.goesOn(&client))
    #expect(try !bed.guest.hasBack(client.receiveGPADL))
    try client.tell(Wire.nvsp(103, 0xCAFE))
    let (receive, send) = (client.receiveGPADL, client.sendGPADL)
    try bed.guest.wait("has its receive buffer back") { try $0.hasBack(receive) }
    #expect(try !bed.guest.hasBack(send))
    try client.tell(Wire.nvsp(106, 0))
    try bed.guest.wait("has its send buffer back") { try $0.hasBack(send) }
    #expect(bed.guest.refused.isEmpty && bed.host.refusals == 0)
  }

  @Test func newLinuxTearsDownAfterTheClose() throws {
    let bed = try NetworkTestBed()
    var client = try bed.open()
    try client.start()
    try client.tell(Wire.nvsp(103, 0xCAFE))
    try client.tell(Wire.nvsp(106, 0))
    try bed.guest.close(client.channel)
    let gpadls = [client.receiveGPADL, client.sendGPADL]
    for gpadl in gpadls { try bed.guest.tearDown(gpadl) }
    try bed.guest.wait("has both back") { guest in
      try gpadls.allSatisfy { try guest.hasBack($0) }
    }
    #expect(bed.guest.refused.isEmpty && bed.host.refusals == 0)
  }

  @Test func aGuestThatJustClosesHasItsMemoryBack() throws {
    let bed = try NetworkTestBed()
    var client = try bed.open()
    try client.start()
    let gpadls = [client.receiveGPADL, client.sendGPADL]
    for gpadl in gpadls { try bed.guest.tearDown(gpadl) }
    #expect(try !bed.guest.hasBack(gpadls[0]))
    try bed.guest.close(client.channel)
    try bed.guest.wait("has both back") { guest in
      try gpadls.allSatisfy { try guest.hasBack($0) }
    }
    #expect(bed.guest.refused.isEmpty && bed.host.refusals == 0)
  }

  @Test func aGPADLThatIsNotOneOfThisChannel() throws {
    let bed = try NetworkTestBed()
    var client = try bed.open()
    try client.negotiate()
    // Unknown; the ring itself is the channel's own, and allowed, small as it is.
    for gpadl in [0, 0xFFFF_FFFF] as [UInt32] {
      #expect(Wire.word(try client.ask(Wire.nvsp(101, gpadl, 1)), 4) == 2)
      #expect(Wire.word(try client.ask(Wire.nvsp(104, gpadl, 1)), 4) == 2)
    }
    // That of another device's channel.
    let other = NetVSP(
      LoopbackBackend(), instance: "5d15c000-0000-4000-8000-0000000e0002",
      address: NetworkTestBed.address)
    bed.host.add(other)
    try bed.guest.wait("has two devices") { $0.offers.count == 2 }
    let second = bed.guest.offers[1].channelID
    let channel = try bed.guest.open(second)
    let foreign = try bed.guest.describe(bed.guest.takePages(32), of: second)
    #expect(Wire.word(try client.ask(Wire.nvsp(101, foreign.rawValue, 1)), 4) == 2)
    #expect(
      try bed.record().errors == [
        .noBuffer(.unknown(GPADLID(0))), .noBuffer(.unknown(GPADLID(0))),
        .noBuffer(.unknown(GPADLID(0xFFFF_FFFF))), .noBuffer(.unknown(GPADLID(0xFFFF_FFFF))),
        .noBuffer(.unknown(foreign)),
      ])
    // And the guest goes on with a right one.
    try client.giveBuffers()
    #expect(client.pieceCount == 72)
    _ = channel.id
  }

  /// A guest that has run for a while has no pages left that lie behind each other.
  @Test func aReceiveBufferWhosePagesLieApart() throws {
    let bed = try NetworkTestBed()
    var style = NetworkClient.Style.linux
    (style.receivePages, style.scattersPages) = (900, true)
    var client = try bed.open(style: style)
    try client.start()
    #expect(client.pieceCount == 900 * 4096 / 1806)
    // Most pieces lie on two pages.
    for index in 0..<40 {
      let frame = Wire.frame(byteCount: 1000 + index, fill: UInt8(index))
      #expect(try client.sendRNDIS(Wire.packet(frame)) == 1)
      #expect(try client.receiveFrames().map(\.frame) == [frame])
    }
    #expect(try bed.record().errors.isEmpty)
  }

  @Test func framesWaitForBuffersAndNoneIsLost() throws {
    let bed = try NetworkTestBed()
    var client = try bed.open()
    try client.start()
    // 72 pieces, of which 16 are for control messages.
    var packets: [SmallPacket] = []
    var sent: [[UInt8]] = []
    for index in 0..<100 {
      let frame = Wire.frame(byteCount: 60 + index)
      sent.append(frame)
      #expect(try client.sendRNDIS(Wire.packet(frame)) == 1)
    }
    var frames: [[UInt8]] = []
    while frames.count < 56 {
      let packet = try client.next()
      frames += try client.ranges(packet).map { try NetworkClient.frame($0).frame }
      packets.append(packet)
    }
    #expect(try client.isSilent())
    #expect(try bed.record().queues[0].counters.buffersWithGuest == 56)
    #expect(try bed.record().queues[0].counters.outOfBuffers > 0)
    // Control messages still have theirs.
    #expect(try client.query(0x0001_0114) == [0, 0, 0, 0])
    for packet in packets { try client.complete(packet) }
    while frames.count < 100 { frames += try client.receiveFrames().map(\.frame) }
    #expect(frames == sent)
    try bed.wait("has all back") { $0.queues[0].counters.buffersWithGuest == 0 }
  }

  @Test func exhaustedBuffersOnRequest() throws {
    let bed = try NetworkTestBed()
    var client = try bed.open()
    try client.start()
    bed.vsp.setExhausted(true)
    #expect(try client.sendRNDIS(Wire.packet(Wire.frame())) == 1)
    #expect(try client.isSilent())
    bed.vsp.setExhausted(false)
    #expect(try client.receiveFrames().map(\.frame) == [Wire.frame()])
  }

  @Test func severalFramesGoInOnePacket() throws {
    let bed = try NetworkTestBed()
    var client = try bed.open()
    try client.start()
    let frames = (0..<20).map { Wire.frame(byteCount: 100, fill: UInt8($0)) }
    #expect(try client.send(frames.flatMap { Wire.packet($0) }, section: 0) == 1)
    let packet = try client.next()
    let ranges = try client.ranges(packet)
    #expect(try ranges.map { try NetworkClient.frame($0).frame } == frames)
    // One completion gives all back.
    try client.complete(packet)
    try bed.wait("has all back") { $0.queues[0].counters.buffersWithGuest == 0 }
  }

  @Test func aDeviceThatIsTakenBack() throws {
    let bed = try NetworkTestBed()
    let vsp = NetVSP(
      LoopbackBackend(), instance: "5d15c000-0000-4000-8000-0000000e0002",
      address: NetworkTestBed.address)
    let device = bed.host.add(vsp)
    try bed.guest.wait("has two devices") { $0.offers.count == 2 }
    var client = try NetworkClient(bed.guest, channel: bed.guest.offers[1].channelID)
    try client.start()
    bed.host.revoke(device)
    let id = client.channel.id
    try bed.guest.wait("has lost it") { $0.rescinded == [id] }
    // What it had described is answered by the server.
    let gpadl = client.receiveGPADL
    try bed.guest.tearDown(gpadl)
    try bed.guest.wait("has its memory back") { try $0.hasBack(gpadl) }
    try bed.guest.release(id)
    #expect(bed.host.refusals == 0)
    #expect(vsp.records.isEmpty)
  }
}
