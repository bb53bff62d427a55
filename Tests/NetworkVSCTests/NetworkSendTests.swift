// SPDX-License-Identifier: Apache-2.0

import NetworkProtocol
import Platform
import TestSupport
import Testing

@testable import NetworkVSC
@testable import VMBus
@testable import VSC

/// Frames to the host: sections of the send buffer, and memory of their own.
@Suite struct NetworkSendTests {
  private let worker: Worker

  init() throws { worker = try Worker(.init(name: "network-test", spinRounds: 0)) }

  private func readyBed(
    _ configuration: NetworkConfiguration = .small, ringByteCount: Int = 64 * 1024
  ) throws -> NetworkBed {
    var bed = try NetworkBed(configuration, ringByteCount: ringByteCount, worker: worker)
    try bed.ready()
    return bed
  }

  private func send(
    _ bed: inout NetworkBed, _ frame: [UInt8], _ info: PerPacketInfo = PerPacketInfo()
  ) throws(NetworkError) {
    try bed.queue.send(unsafe frame.span.bytes, info)
  }

  /// The bytes of the section that a packet names.
  private func section(_ packet: BedPacket, _ bed: borrowing NetworkBed) -> [UInt8] {
    bed.sendBuffer.read(Int(packet.word(8)) * 6144, Int(packet.word(12)))
  }

  @Test func smallFramesShareASection() throws {
    var bed = try readyBed()
    for index in 0..<3 { try send(&bed, frame(61, seed: UInt8(index))) }
    #expect(try bed.take() == nil, "sent before it was published")
    bed.queue.publish()
    let packet = try #require(try bed.take())
    #expect(packet.type == .inBand && packet.completionRequested)
    #expect(packet.payload.count == 40 && packet.word == 107 && packet.word(4) == 0)
    let bytes = section(packet, bed)
    // 44 bytes of header and 61 of frame, rounded up to 8.
    #expect(bytes.count == 3 * 112)
    for index in 0..<3 {
      let message = Array(bytes[index * 112..<(index + 1) * 112])
      #expect(Array(message[..<44]) == .words(1, 112, 36, 61, 0, 0, 0, 0, 0, 0, 0))
      #expect(Array(message[44..<105]) == frame(61, seed: UInt8(index)))
      #expect(message[105...].allSatisfy { $0 == 0 })
    }
    try bed.complete(packet)
    bed.pump()
    let statistics = bed.queue.statistics
    #expect(statistics.sections == 1 && statistics.sentPackets == 3 && statistics.sentBytes == 183)
    #expect(statistics.sendsUnderWay == 0 && statistics.refused == 0)
    // The host could see it: the section is free, so it is zero.
    #expect(section(packet, bed).allSatisfy { $0 == 0 })
    #expect(statistics.memory.scrubbed >= 3 * 112)
  }

  @Test func noMoreMessagesInASectionThanTheHostTakes() throws {
    var bed = try readyBed()
    for index in 0..<20 { try send(&bed, frame(60, seed: UInt8(index))) }
    bed.queue.publish()
    let packets = try bed.takeAll()
    // 8 as INITIALIZE_COMPLETE said.
    let counts: [UInt32] = packets.map { $0.word(12) }
    #expect(counts == [832, 832, 416])
    #expect(Set(packets.map { $0.word(8) }).count == 3)
  }

  @Test func infoGoesAlong() throws {
    var bed = try readyBed()
    var info = PerPacketInfo()
    info.checksum = [.isIPv4, .tcp]
    info.checksum.tcpHeaderOffset = 34
    info.vlan = VLANInfo(id: 7)
    info.hashValue = 0x1234_5678
    try send(&bed, frame(60), info)
    bed.queue.publish()
    let bytes = section(try #require(try bed.take()), bed)
    #expect(Array(bytes[..<44]) == .words(1, 152, 84, 60, 0, 0, 0, 36, 48, 0, 0))
    #expect(
      Array(bytes[44..<92]) == element(0, 0x22_0005) + element(6, 0x70) + element(8, 0x1234_5678))
    #expect(Array(bytes[92..<152]) == frame(60))
  }

  @Test func largeFramesAreReadWhereTheyLie() throws {
    var configuration = NetworkConfiguration.small
    configuration.mtu = 9000
    var bed = try NetworkBed(configuration, worker: worker)
    bed.script.mtu = 9000
    try bed.ready()
    try send(&bed, frame(60))
    try send(&bed, frame(9014))
    let packets = try {
      bed.queue.publish()
      return try bed.takeAll()
    }()
    #expect(packets.map(\.type) == [.inBand, .gpaDirect], "in the order of the frames")
    let memory = packets[1].memory
    #expect(packets[1].word(8) == 0xFFFF_FFFF && memory.count == 256 + 9014)
    #expect(Array(memory[..<44]) == .words(1, 9270, 248, 9014, 0, 0, 0, 0, 0, 0, 0))
    #expect(Array(memory[256...]) == frame(9014))
    var available = bed.queue.frames.available
    #expect(available == 3)
    try bed.complete(packets[1])
    bed.pump()
    available = bed.queue.frames.available
    #expect(available == 4)
    // Free memory that the host can see is zero.
    #expect(bed.frames.read(0, 4 * 64 * 1024).allSatisfy { $0 == 0 })
  }

  @Test func burstGoesAsFarAsThereIsRoom() throws {
    var bed = try readyBed()
    var burst = SendBurst<HostVisible>(capacity: 4)
    for index in 0..<3 {
      var buffer = try unwrap(bed.queue.takeBuffer())
      buffer.withMutableBytes(100) { bytes in
        for offset in 0..<100 {
          bytes.storeBytes(of: UInt8(index), toByteOffset: offset, as: UInt8.self)
        }
      }
      burst.append(buffer)
    }
    let sent = bed.queue.send(&burst)
    #expect(sent == 3 && burst.isEmpty)
    let available = bed.queue.frames.available
    #expect(available == 4, "copied, so free at once")
    bed.queue.publish()
    let bytes = section(try #require(try bed.take()), bed)
    #expect(bytes.count == 3 * 144 && bytes[2 * 144 + 44] == 2)
  }

  // MARK: - No room

  @Test func sectionsRunOutAndComeBack() throws {
    var bed = try readyBed()
    var sent = 0
    #expect(throws: NetworkError.wouldBlock) {
      for _ in 0..<1000 {
        try send(&bed, frame(1500))
        sent += 1
      }
    }
    // 10 sections of 6144 bytes; 3 messages of 1544 bytes fit into each.
    #expect(sent == 30)
    bed.queue.publish()
    let packets = try bed.takeAll()
    #expect(packets.count == 10)
    var statistics = bed.queue.statistics
    #expect(statistics.blocked == 1 && statistics.sendsUnderWay == 10)
    for packet in packets.reversed() { try bed.complete(packet) }
    bed.pump()
    statistics = bed.queue.statistics
    #expect(statistics.sendsUnderWay == 0)
    for _ in 0..<30 { try send(&bed, frame(1500)) }
  }

  @Test func fullRingAsksForRoomUntilThereIsSome() throws {
    var configuration = NetworkConfiguration.small
    // One in-band packet is 64 bytes: there are more sections than the ring holds.
    configuration.sendBufferByteCount = 1 << 20
    var bed = try readyBed(configuration, ringByteCount: 4096)
    var sent: UInt64 = 0
    while sent < 100 {
      try send(&bed, frame(60))
      bed.queue.publish()
      if bed.queue.statistics.blocked > 0 { break }
      sent += 1
    }
    #expect(sent == (4096 - 8) / 64)
    for _ in 0..<2 {
      let hasWork = bed.queue.arm()
      #expect(!hasWork && bed.queue.snapshot.outgoing.pendingSendSize == 64)
    }
    _ = try bed.take()
    let hasRoom = bed.queue.arm()
    #expect(hasRoom, "the room that it waits for is there")
    bed.queue.publish()
    bed.queue.disarm()
    #expect(bed.queue.snapshot.outgoing.pendingSendSize == 0)
    // Nothing waits, and the answer to that is no packet either.
    _ = try bed.takeAll()
    let hasWork = bed.queue.arm()
    #expect(!hasWork && bed.queue.snapshot.outgoing.pendingSendSize == 0)
  }

  @Test func fullRingKeepsTheSection() throws {
    // Packets of 64 bytes, a section each: 63 of them fill the ring, 7 frames wait in a section.
    var configuration = NetworkConfiguration.small
    configuration.sendBufferByteCount = 1 << 20
    var bed = try readyBed(configuration, ringByteCount: 4096)
    for index in 0..<70 {
      try send(&bed, frame(60, seed: UInt8(index)))
      bed.queue.publish()
    }
    let blocked = bed.queue.statistics
    #expect(blocked.blocked > 0)
    var firsts: [UInt8] = []
    for _ in 0..<10 {
      for packet in try bed.takeAll() {
        let bytes = section(packet, bed)
        for start in stride(from: 0, to: bytes.count, by: 104) { firsts.append(bytes[start + 44]) }
        try bed.complete(packet)
      }
      bed.pump()
    }
    #expect(firsts == (0..<70).map { UInt8($0) }, "each frame once, in order")
    let statistics = bed.queue.statistics
    #expect(statistics.sendsUnderWay == 0)
  }

  @Test func userErrorsAreRefused() throws {
    var bed = try readyBed()
    #expect(throws: NetworkError.badFrameLength(1515, limit: 1514)) { try send(&bed, frame(1515)) }
    #expect(throws: NetworkError.badFrameLength(13, limit: 1514)) { try send(&bed, frame(13)) }
    #expect(throws: NetworkError.badFrameLength(0, limit: 1514)) { try send(&bed, []) }
    var info = PerPacketInfo()
    info.largeSend = LargeSendInfo(segmentByteCount: 0, tcpHeaderOffset: 34, isIPv6: false)
    #expect(throws: NetworkError.badInfo) { try send(&bed, frame(1000), info) }
    info.largeSend = LargeSendInfo(segmentByteCount: 1448, tcpHeaderOffset: 1000, isIPv6: false)
    #expect(throws: NetworkError.badInfo) { try send(&bed, frame(1000), info) }
    info = PerPacketInfo()
    info.checksum.tcpHeaderOffset = 1000
    #expect(throws: NetworkError.badInfo) { try send(&bed, frame(1000), info) }
    let new = try NetworkBed(worker: worker)
    var other = new
    #expect(throws: NetworkError.notReady) { try send(&other, frame(60)) }
  }

  // MARK: - Completions

  @Test func completionsAreTakenOnce() throws {
    var bed = try readyBed()
    try send(&bed, frame(60))
    bed.queue.publish()
    let packet = try #require(try bed.take())
    try bed.complete(packet)
    try bed.complete(packet)
    try bed.put(.words(108, 1), id: packet.id &+ 1)
    try bed.put(.words(108, 1), id: packet.id ^ 1 << 32)
    try bed.put(.words(108, 1), id: .max)
    try bed.put(.words(108, 1), id: 0)
    bed.pump()
    let (statistics, failure) = (bed.queue.statistics, bed.queue.failure)
    #expect(statistics.channel.unknownCompletions == 5 && failure == nil)
    let free = bed.queue.sections.freeCount
    #expect(free == 10, "no section is free twice")
  }

  @Test(arguments: [[108, 2, 0], [108, 5, 0], [107, 1, 0], [0, 0, 0]] as [[UInt32]])
  func refusedFramesAreCounted(words: [UInt32]) throws {
    var bed = try readyBed()
    for _ in 0..<3 { try send(&bed, frame(60)) }
    bed.queue.publish()
    let packet = try #require(try bed.take())
    try bed.put(words.flatMap(\.wireBytes), id: packet.id)
    bed.pump()
    let statistics = bed.queue.statistics
    #expect(statistics.refused == 3)
  }

  @Test func hostThatCompletesNothingEndsTheDevice() throws {
    var bed = try readyBed()
    try send(&bed, frame(60))
    bed.queue.publish()
    let deadline = bed.queue.nextDeadline
    #expect(deadline != .max)
    bed.queue.expire(now: deadline - 1)
    var failure = bed.queue.failure
    #expect(failure == nil)
    bed.queue.expire(now: deadline)
    failure = bed.queue.failure
    #expect(failure == .timedOut("completion of a frame"))
  }

  @Test func framesUnderWayKeepTheirMemory() throws {
    var configuration = NetworkConfiguration.small
    configuration.mtu = 9000
    var bed = try NetworkBed(configuration, worker: worker)
    bed.script.mtu = 9000
    try bed.ready()
    try send(&bed, frame(9000))
    bed.queue.publish()
    _ = try bed.takeAll()
    bed.state.end(.rescinded)
    bed.pump()
    let failure = bed.queue.failure
    #expect(failure == .channel(.ended(.rescinded)))
    let available = bed.queue.frames.available
    #expect(available == 3, "the host may still read it")
  }

  // MARK: - Large sends

  @Test func largeSendIsPreparedForTheHost() throws {
    var bed = try readyBed()
    // 40 bytes of IPv4 and TCP headers, with lengths and checksums that are not to stay.
    var packet = frame(60000)
    packet.replaceSubrange(
      0..<54,
      with: [
        2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x08, 0x00, 0x45, 0, 0xEA, 0x52, 0, 0, 0x40, 0, 64, 6,
        0x12, 0x34, 10, 0, 0, 1, 10, 0, 0, 2, 1, 2, 3, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0x50, 0x10, 0xFF,
        0xFF, 0xAB, 0xCD, 0, 0,
      ])
    var info = PerPacketInfo()
    info.largeSend = LargeSendInfo(segmentByteCount: 1448, tcpHeaderOffset: 34, isIPv6: false)
    try send(&bed, packet, info)
    bed.queue.publish()
    let sent = try #require(try bed.take()).memory
    #expect(sent.count == 256 + 60000 && Array(sent[44..<60]) == element(2, 0x4220_05A8))
    let headers = Array(sent[256..<310])
    #expect(Array(headers[16..<18]) == [0, 0] && Array(headers[24..<26]) == [0, 0])
    // 0x0A00 + 0x0001 + 0x0A00 + 0x0002 + 6
    #expect(Array(headers[50..<52]) == [0x14, 0x09])
    #expect(Array(sent[310...]) == Array(packet[54...]))
    let statistics = bed.queue.statistics
    #expect(statistics.largeSends == 1 && statistics.directSends == 1)
    #expect(throws: NetworkError.badFrameLength(62781, limit: 62780)) {
      try send(&bed, frame(62781), info)
    }
  }
}
