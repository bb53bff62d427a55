// SPDX-License-Identifier: Apache-2.0

import NetworkProtocol
import SimulatedHost
import Testing
import VMBus

/// What the network clients of different guests do differently: one script for each.
@Suite(.serialized, .timeLimit(.minutes(2))) struct NetVSPClientsTests {
  @Test func linuxStartsUpAndTalksToItself() throws {
    let bed = try NetworkTestBed()
    var client = try bed.open()
    try client.start()
    #expect(client.version == 0x60001)
    // 256 bytes for headers, 1514 for the frame, 36 that Windows can't use.
    #expect(client.pieceByteCount == 1806 && client.pieceCount == 131072 / 1806)
    let frame = Wire.frame(byteCount: 200)
    #expect(try client.sendRNDIS(Wire.packet(frame)) == 1)
    let packet = try client.next()
    let messages = try client.ranges(packet)
    let message = try #require(messages.first)
    #expect(messages.count == 1 && message.count == 1806)
    // Length of the piece, the frame 256 bytes behind its start.
    #expect(Array(message[0..<16]) == [1, 0, 0, 0, 14, 7, 0, 0, 248, 0, 0, 0, 200, 0, 0, 0])
    #expect(try NetworkClient.frame(message).frame == frame)
    try client.complete(packet)
    // Filter 0, as Linux sets it when the interface goes down: nothing comes any more.
    #expect(try client.setFilter(0) == 0)
    #expect(try client.sendRNDIS(Wire.packet(frame)) == 1)
    #expect(try client.isSilent())
    #expect(bed.host.refusals == 0)
    #expect(try bed.record().errorCount == 0)
  }

  @Test func uefiWaitsForCompletionsOfEverything() throws {
    let bed = try NetworkTestBed()
    var client = try bed.open(style: .uefi)
    // `tell` waits for an empty completion here.
    try client.start()
    let frame = Wire.frame(byteCount: 60)
    #expect(try client.sendRNDIS(Wire.packet(frame)) == 1)
    #expect(try client.receiveFrames().map(\.frame) == [frame])
  }

  @Test func linuxAsksForOldVersionsOneAfterTheOther() throws {
    var configuration = AdapterConfiguration()
    configuration.newestVersion = .v4
    let bed = try NetworkTestBed(LoopbackBackend(), configuration)
    var style = NetworkClient.Style.linux
    style.versions = [0x60001, 0x60000, 0x50000, 0x40000]
    style.ndisMinor = 1
    var client = try bed.open(style: style)
    try client.start()
    #expect(client.version == 0x40000)
    // Before 6.30 there is no scaling, and the offloads have the size of NDIS 6.1.
    #expect(try client.query(0x0001_0203) == nil)
    #expect(try client.query(0xFC01_020D)?.count == 144)
  }

  @Test func kdnetTakesVersion6WithShortMessages() throws {
    let bed = try NetworkTestBed()
    var style = NetworkClient.Style.windows
    style.versions = [0x60000]
    style.messageByteCount = 28
    var client = try bed.open(style: style)
    try client.negotiate()
    let answer = try client.ask(Wire.nvsp(101, 0xBAD, 1, size: 28))
    // No such GPADL; and 32 bytes, as the ring rounds 28.
    #expect(answer.count == 32 && Wire.word(answer, 0) == 102 && Wire.word(answer, 4) == 2)
  }

  @Test func aVersion1GuestHasNoConfiguration() throws {
    let bed = try NetworkTestBed()
    var style = NetworkClient.Style.uefi
    style.versions = [0x00002]
    var client = try bed.open(style: style)
    let answer = try client.ask(Wire.nvsp(1, 2, 2, size: 28))
    // The version itself, not ones.
    #expect(Wire.words(2, 2, 34, 1) == Array(answer.prefix(16)))
    try client.tell(Wire.nvsp(100, 6, 0, size: 28))
    try client.giveBuffers()
    let complete = try client.control(Wire.rndis(2, Wire.words(7, 1, 0, 0x4000)))
    #expect(
      complete
        == Wire.words(0x8000_0002, 52, 7, 0, 1, 0, 1, 0, 8, 0xEFFF_FFFF, 3, 0, 0))
    #expect(try client.query(0xFC01_020D)?.count == 112)
  }

  @Test func dpdkTakesTransactionsForSectionsAndNeedsATable() throws {
    var configuration = AdapterConfiguration()
    configuration.maximumQueues = 1
    let bed = try NetworkTestBed(LoopbackBackend(), configuration)
    var client = try bed.open(style: .dpdk)
    try client.start()
    let capabilities = try #require(try client.query(0x0001_0203))
    // Revision 2, 18 bytes, one queue, and a table that is not empty.
    #expect(capabilities.count == 18 && Array(capabilities[0..<4]) == [0x88, 2, 18, 0])
    #expect(Wire.word(capabilities, 12) == 1)
    #expect(capabilities[16] == 128 && capabilities[17] == 0)
    for index in 0..<3 * client.pieceCount {
      #expect(try client.sendRNDIS(Wire.packet(Wire.frame(fill: UInt8(index & 0xFF)))) == 1)
      let packet = try client.next()
      #expect(packet.id < UInt64(client.pieceCount))
      try client.complete(packet)
    }
    #expect(try bed.record().errorCount == 0)
  }

  @Test func freeBSDQueriesWithABuffer() throws {
    let bed = try NetworkTestBed()
    var client = try bed.open(style: .freeBSD)
    try client.start()
    #expect(client.version == 0x50000)
    // It tells how much it has room for by an object of its own.
    let room = [0x88, 2, 18, 0] + [UInt8](repeating: 0, count: 14)
    #expect(try client.query(0x0001_0203, room)?.count == 18)
    #expect(
      try client.query(0x0101_0101, [UInt8](repeating: 0, count: 6))
        == NetworkTestBed.address.wireBytes)
    #expect(try client.query(0x0001_0114) == [0, 0, 0, 0])
  }

  @Test func windowsCompletesAVirtualFunctionsOffer() throws {
    let bed = try NetworkTestBed()
    bed.vsp.setVirtualFunction(7)
    var client = try bed.open(style: .windows)
    try client.start()
    let offer = try client.next()
    #expect(offer.type == .inBand && offer.completionRequested)
    #expect(offer.id == 0x8000_0000_0000_0000)
    #expect(Array(offer.payload.prefix(12)) == Wire.words(128, 1, 7))
    try client.complete(offer)
    // It switches, with an answer that tells nothing, and goes on.
    #expect(try client.ask(Wire.nvsp(129, 1)).isEmpty)
    try bed.wait("is on the virtual function") { $0.dataPath == .virtualFunction }
    bed.vsp.setVirtualFunction(nil)
    #expect(Array(try client.next().payload.prefix(12)) == Wire.words(128, 0, 0))
    #expect(try client.ask(Wire.nvsp(129, 0)).isEmpty)
    // The synthetic path has never stopped.
    let frame = Wire.frame()
    #expect(try client.sendRNDIS(Wire.packet(frame)) == 1)
    #expect(try client.receiveFrames().map(\.frame) == [frame])
    #expect(try bed.record().errorCount == 0)
  }

  @Test func linuxNeverCompletesAVirtualFunctionsOffer() throws {
    let bed = try NetworkTestBed()
    var client = try bed.open()
    try client.start()
    bed.vsp.setVirtualFunction(1)
    #expect(try client.next().payload.first == 128)
    bed.vsp.setVirtualFunction(nil)
    #expect(Array(try client.next().payload.prefix(8)) == Wire.words(128, 0))
    // Without the capability nobody is told.
    var style = NetworkClient.Style.linux
    style.capabilities = 8
    let second = try SmallGuest(bed.host)
    var other = try NetworkClient(second, style)
    try other.start()
    bed.vsp.setVirtualFunction(2)
    #expect(Array(try client.next().payload.prefix(12)) == Wire.words(128, 1, 2))
    #expect(try other.isSilent())
  }

  @Test func linux614SplitsAHeaderOverTwoRanges() throws {
    let bed = try NetworkTestBed()
    var client = try bed.open()
    try client.start()
    let frame = Wire.frame(byteCount: 100)
    let message = Wire.packet(frame)
    // The header begins 20 bytes before a page's end, and each page is a range.
    client.put(message, at: 4076)
    #expect(try client.send(ranges: [(4076, 20), (4096, message.count - 20)]) == 2)
    #expect(try bed.record().errors == [.splitHeader(offset: 0)])
    // In one range over two pages it is as good as any.
    #expect(try client.send(ranges: [(4076, message.count)]) == 1)
    #expect(try client.receiveFrames().map(\.frame) == [frame])
    // And the frame may lie where it likes.
    #expect(try client.send(ranges: [(4076, 50), (4126, message.count - 50)]) == 1)
    #expect(try client.receiveFrames().map(\.frame) == [frame])
  }

  @Test func linuxSendsSectionsOfSeveralPacketsAndPartlyCopiedOnes() throws {
    let bed = try NetworkTestBed()
    var client = try bed.open()
    try client.start()
    let frames = (0..<8).map { Wire.frame(byteCount: 60 + 8 * $0, fill: UInt8($0)) }
    #expect(try client.send(frames.flatMap { Wire.packet($0) }, section: 3) == 1)
    var received: [[UInt8]] = []
    while received.count < 8 { received += try client.receiveFrames().map(\.frame) }
    #expect(received == frames)
    // Headers in the section, the last frame's bytes in pages: one stream.
    let message = Wire.packet(frames[0])
    let memory = unsafe client.guest.bytes(client.sendPages)
    for index in 0..<44 { unsafe memory[7 * 6144 + index] = message[index] }
    client.put(frames[0], at: 512)
    #expect(
      try client.send(ranges: [(512, frames[0].count)], section: 7, sectionByteCount: 44) == 1)
    #expect(try client.receiveFrames().map(\.frame) == [frames[0]])
  }

  @Test func aGuestWithoutASendBufferJustGoesOn() throws {
    let bed = try NetworkTestBed()
    var style = NetworkClient.Style.linux
    style.hasSendBuffer = false
    var client = try bed.open(style: style)
    try client.start()
    #expect(try client.send(Wire.packet(Wire.frame()), section: 0) == 5)
    #expect(try bed.record().errors == [.badSection(index: 0, byteCount: 108)])
  }

  @Test func aMessageWithoutAWishForItsCompletionGetsNone() throws {
    let bed = try NetworkTestBed()
    var client = try bed.open()
    try client.start()
    client.put(Wire.packet(Wire.frame()), at: 0)
    var ranges = Wire.words(0, 1, 108, 0)
    ranges.append(little: client.guest.numbers(client.channel.data)[0])
    try client.channel.send(
      .gpaDirect, id: 1, ranges: ranges, Wire.nvsp(107, 0, 0xFFFF_FFFF, 0),
      completionRequested: false)
    #expect(try client.next().type == .transferPages)
    #expect(try client.isSilent())
  }
}
