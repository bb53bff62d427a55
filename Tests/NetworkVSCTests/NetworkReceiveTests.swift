// SPDX-License-Identifier: Apache-2.0

import NetworkProtocol
import Platform
import TestSupport
import Testing

@testable import NetworkVSC
@testable import VMBus
@testable import VSC

/// Frames from the host, and what gives their memory back.
@Suite struct NetworkReceiveTests {
  private let worker: Worker

  init() throws { worker = try Worker(.init(name: "network-test", spinRounds: 0)) }

  private func readyBed(ringByteCount: Int = 64 * 1024) throws -> NetworkBed {
    var bed = try NetworkBed(ringByteCount: ringByteCount, worker: worker)
    try bed.ready()
    return bed
  }

  private func copy(_ packet: borrowing ReceivedPacket) -> [UInt8] {
    var bytes = [UInt8](repeating: 0, count: packet.byteCount)
    var span = bytes.mutableSpan
    var target = unsafe span.mutableBytes
    packet.copy(into: &target)
    return bytes
  }

  private func firstSegment(_ packet: borrowing ReceivedPacket) -> [UInt8] { bytes(packet.bytes) }

  @Test func framesOfOnePacketAreCompletedOnce() throws {
    var bed = try readyBed()
    let frames = [frame(60), frame(1514, seed: 1), frame(14, seed: 2)]
    try bed.put(messages: frames.map { message($0) }, id: 0x8000_0007)
    var burst = ReceiveBurst()
    let count = bed.queue.receive(into: &burst)
    #expect(count == 3)
    bed.queue.publish()
    for index in 0..<3 {
      #expect(try bed.take() == nil, "completed before all frames were given back")
      let packet = try unwrap(burst.popFirst())
      #expect(copy(packet) == frames[index])
      #expect(packet.segmentCount == 1 && packet.info.present == [])
      drop(packet)
      bed.queue.publish()
    }
    let completion = try #require(try bed.take())
    #expect(completion.type == .completion && completion.id == 0x8000_0007)
    #expect(completion.payload == .words(108, 1))
    bed.pump()
    #expect(try bed.take() == nil)
    let statistics = bed.queue.statistics
    #expect(statistics.receivedPackets == 3 && statistics.receivedBytes == 60 + 1514 + 14)
    #expect(statistics.buffersOut == 0 && statistics.completionsPending == 0)
  }

  /// Where the host sees the buffer and not the rest of the machine, a frame is gone from it before the host is
  /// told that it was taken.
  @Test func whatWasTakenIsZeroed() throws {
    var bed = try readyBed()
    var random = Numbers(seed: 11)
    func frame(_ count: Int) -> [UInt8] {
      (0..<count).map { _ in UInt8(truncatingIfNeeded: random.next() >> 32) }
    }
    let frames = [frame(1000), frame(600)]
    let parts = [frame(1448), frame(1448), frame(69)]
    let messages =
      frames.map { message($0) }
      + [
        fragment(parts[0], 3, info: element(0, 0x28)), fragment(parts[1], 1),
        fragment(parts[2], 5),
      ]
    try bed.put(messages: messages, id: 9)
    var burst = ReceiveBurst()
    let count = bed.queue.receive(into: &burst)
    #expect(count == 3)
    let scrubbed = bed.queue.statistics.memory.scrubbed
    let memory = bed.receiveBuffer
    /// Whether the host still finds these bytes.
    func finds(_ bytes: [UInt8]) -> Bool {
      memory.read(0, memory.byteCount).contains(bytes)
    }
    #expect(frames.allSatisfy(finds) && parts.allSatisfy(finds))
    drop(try unwrap(burst.popFirst()))
    #expect(!finds(frames[0]) && !finds(Array(frames[0].prefix(8))))
    #expect(finds(frames[1]) && parts.allSatisfy(finds))
    drop(try unwrap(burst.popFirst()))
    #expect(!finds(Array(frames[1].suffix(8))) && parts.allSatisfy(finds))
    drop(try unwrap(burst.popFirst()))
    for part in parts { #expect(!finds(Array(part.prefix(8))) && !finds(Array(part.suffix(8)))) }
    #expect(try bed.take() == nil)
    bed.queue.publish()
    #expect(try bed.take()?.id == 9)
    #expect(bed.queue.statistics.memory.scrubbed - scrubbed == 1600 + 1448 + 1448 + 69)
  }

  @Test func infoIsHandedOn() throws {
    var bed = try readyBed()
    let info = element(0, 0x28) + element(6, 0x655) + element(8, 0xCAFE_F00D) + element(9, 0x201)
    try bed.put(messages: [message(frame(100), info: info)], id: 1)
    var burst = ReceiveBurst()
    _ = bed.queue.receive(into: &burst)
    let packet = try unwrap(burst.popFirst())
    #expect(packet.info.present == [.checksum, .vlan, .hashValue, .hashInfo])
    #expect(packet.info.checksum == [.tcpSucceeded, .ipSucceeded])
    #expect(packet.info.vlan.id == 0x65 && packet.info.hashValue == 0xCAFE_F00D)
    #expect(bytes(packet.bytes) == frame(100))
  }

  @Test func frameBehindAGapIsFound() throws {
    var bed = try readyBed()
    // As OpenVMM lays it out: the frame at 256, the message as long as its sub-allocation.
    var bytes = [UInt8](repeating: 0xEE, count: 1806)
    bytes.replaceSubrange(
      0..<60, with: .words(1, 1806, 248, 70, 0, 0, 0, 36, 16, 0, 0) + element(0, 0x20))
    bytes.replaceSubrange(256..<326, with: frame(70))
    try bed.put(messages: [bytes], id: 1)
    var burst = ReceiveBurst()
    _ = bed.queue.receive(into: &burst)
    let packet = try unwrap(burst.popFirst())
    #expect(copy(packet) == frame(70))
  }

  // MARK: - Bursts

  @Test func fullBurstLeavesTheRest() throws {
    var bed = try readyBed()
    try bed.put(messages: (0..<5).map { message(frame(60, seed: $0)) }, id: 1)
    try bed.put(messages: [message(frame(60, seed: 5))], id: 2)
    var burst = ReceiveBurst(capacity: 2)
    var seen: [UInt8] = []
    while bed.queue.receive(into: &burst) > 0 {
      let isArmed = bed.queue.arm()
      #expect(isArmed == (seen.count < 4), "frames that wait are work")
      while let packet = burst.popFirst() { seen.append(copy(packet)[0]) }
    }
    #expect(seen == [0, 1, 2, 3, 4, 5])
    bed.queue.publish()
    #expect(try bed.takeAll().map(\.id) == [1, 2])
  }

  @Test func framesOutliveTheirQueue() throws {
    var burst = ReceiveBurst()
    do {
      var bed = try readyBed()
      try bed.put(messages: [message(frame(60)), message(frame(61))], id: 1)
      _ = bed.queue.receive(into: &burst)
      drop(bed)
    }
    let packet = try unwrap(burst.popFirst())
    #expect(copy(packet) == frame(60))
  }

  // MARK: - Completions that have to wait

  @Test func completionsWaitForRoomAndNoneIsLost() throws {
    var bed = try readyBed(ringByteCount: 4096)
    let before = bed.queue.statistics.completionsSent
    var burst = ReceiveBurst(capacity: 256)
    // 4096 bytes of ring hold 102 completions of 40 bytes.
    for round in 0..<5 {
      for index in 0..<40 {
        try bed.put(messages: [message(frame(60))], id: UInt64(round * 40 + index))
        _ = bed.queue.receive(into: &burst)
        bed.queue.publish()
      }
    }
    while let packet = burst.popFirst() { drop(packet) }
    bed.queue.publish()
    var statistics = bed.queue.statistics
    #expect(statistics.completionsPending > 0)
    #expect(statistics.completionsPending + Int(statistics.completionsSent - before) == 200)
    var completed: [UInt64] = []
    while true {
      let more = try bed.takeAll()
      if more.isEmpty { break }
      completed += more.map(\.id)
      bed.queue.publish()
    }
    #expect(completed == Array(0..<200), "each once, in the order in which they were given back")
    statistics = bed.queue.statistics
    #expect(statistics.completionsPending == 0 && statistics.buffersOut == 0)
  }

  @Test func packetsWaitWhileAllSlotsAreHeld() throws {
    var bed = try readyBed(ringByteCount: 1 << 20)
    let limit = TestQueue.slotCount
    var burst = ReceiveBurst(capacity: limit + 100)
    for id in 0..<limit + 10 { try bed.put(messages: [message(frame(60))], id: UInt64(id)) }
    var count = bed.queue.receive(into: &burst)
    #expect(count == limit)
    count = bed.queue.receive(into: &burst)
    #expect(count == 0)
    while let packet = burst.popFirst() { drop(packet) }
    bed.queue.publish()
    count = bed.queue.receive(into: &burst)
    #expect(count == 10)
  }

  // MARK: - Coalesced frames

  private func fragment(_ bytes: [UInt8], _ flags: UInt32, info: [UInt8] = []) -> [UInt8] {
    message(bytes, info: info + element(0x8000_0001, 1 | flags << 8))
  }

  @Test func fragmentsMakeOneFrame() throws {
    var bed = try readyBed()
    let parts = [frame(1500), frame(1448, seed: 3), frame(17, seed: 9)]
    try bed.put(
      messages: [
        fragment(parts[0], 3, info: element(0, 0x28)), fragment(parts[1], 1), fragment(parts[2], 5),
        message(frame(60)), fragment(frame(99), 7),
      ], id: 1)
    var burst = ReceiveBurst()
    let count = bed.queue.receive(into: &burst)
    #expect(count == 3)
    let packet = try unwrap(burst.popFirst())
    #expect(packet.isCoalesced && packet.segmentCount == 3 && packet.byteCount == 2965)
    #expect(packet.info.checksum.contains(.tcpSucceeded))
    #expect(copy(packet) == parts[0] + parts[1] + parts[2])
    let first = firstSegment(packet)
    #expect(first == parts[0])
    drop(packet)
    drop(burst.popFirst())
    let single = try unwrap(burst.popFirst())
    #expect(single.segmentCount == 1 && copy(single) == frame(99))
    drop(single)
    bed.queue.publish()
    #expect(try bed.takeAll().map(\.id) == [1])
    let statistics = bed.queue.statistics
    #expect(statistics.coalescedPackets == 1 && statistics.malformed == 0)
  }

  /// Flags of fragments (1 fragment, 2 first, 4 last; 0 a whole frame) that do not make frames.
  @Test(arguments: [[UInt32(1)], [5], [3], [3, 1], [3, 0], [1, 5], [3, 1, 0, 5]])
  func badFragmentsAreDropped(flags: [UInt32]) throws {
    var bed = try readyBed()
    let messages = flags.map { flags in
      flags == 0 ? message(frame(60)) : fragment(frame(60), flags)
    }
    try bed.put(messages: messages, id: 1)
    bed.pump()
    let completion = try #require(try bed.take())
    #expect(completion.payload == .words(108, 2), "the host learns that something was wrong")
    var statistics = bed.queue.statistics
    #expect(statistics.malformed > 0 && statistics.buffersOut == 0)
    // And nothing is left of them.
    try bed.put(messages: [fragment(frame(60), 3), fragment(frame(60), 5)], id: 2)
    let count = bed.pump()
    statistics = bed.queue.statistics
    #expect(count == 1 && statistics.coalescedPackets == 1)
    let core = unsafe bed.queue.core
    var free = 0
    var segment = unsafe core.pointee.freeSegment
    while segment != ReceiveCore.none {
      free += 1
      segment = unsafe core.pointee.segments[Int(segment)].next
    }
    #expect(free == 4096)
  }

  // MARK: - What a host must not send

  static let size = UInt32(256 * 1024)

  /// Ranges of a packet whose first one would be a frame.
  static let badRanges: [[(count: UInt32, offset: UInt32)]] = [
    [(104, size)], [(104, size - 103)], [(104, .max)], [(.max, 0)], [(.max, .max)], [(0, 0)],
    [(7, 0)], [(8, size - 7)], [(43, 0)], [(0x8000_0000, 0x8000_0000)], [(size + 1, 0)],
    [(104, 0), (104, size)], [(103, 0)],
  ]

  @Test(arguments: badRanges.indices)
  func badRangeIsRefused(index: Int) throws {
    var bed = try readyBed()
    bed.receiveBuffer.write(message(frame(60)), at: 0)
    try bed.put(ranges: Self.badRanges[index], id: 9)
    let count = bed.pump()
    #expect(count == Self.badRanges[index].count - 1)
    let completion = try #require(try bed.take())
    #expect(completion.id == 9 && completion.payload == .words(108, 2))
    let (statistics, failure) = (bed.queue.statistics, bed.queue.failure)
    #expect(statistics.malformed == 1 && statistics.lastFault != nil && failure == nil)
  }

  @Test func badPacketsAreCompletedAndCounted() throws {
    var bed = try readyBed()
    bed.receiveBuffer.write(message(frame(60)), at: 0)
    try bed.put(ranges: [(104, 0)], id: 1, set: 0xBEEF)
    try bed.put(ranges: [(104, 0)], id: 2, count: 0)
    try bed.put(ranges: [(104, 0)], id: 3, count: 2)
    try bed.put(ranges: [(104, 0)], id: 4, count: .max)
    try bed.put(ranges: [(104, 0)], id: 5, type: 108)
    try bed.put(.words(107), id: 6, type: .transferPages, ranges: .words(0xCAFE, 0))
    let count = bed.pump()
    #expect(count == 0)
    let completions = try bed.takeAll()
    #expect(completions.map(\.id) == [1, 2, 3, 4, 5, 6])
    #expect(completions.allSatisfy { $0.payload == .words(108, 2) })
    let statistics = bed.queue.statistics
    #expect(statistics.malformed == 6 && statistics.buffersOut == 0)
  }

  @Test func overlappingRangesAreOnlyRead() throws {
    var bed = try readyBed()
    bed.receiveBuffer.write(message(frame(60)), at: 0)
    try bed.put(ranges: [(104, 0), (104, 0), (200, 0)], id: 1)
    let count = bed.pump()
    #expect(count == 3)
    #expect(try bed.takeAll().count == 1)
  }

  @Test func headerIsLookedAtOnce() throws {
    var bed = try readyBed()
    try bed.put(messages: [message(frame(60))], id: 1)
    var burst = ReceiveBurst()
    _ = bed.queue.receive(into: &burst)
    // The host changes its mind about the lengths; the frame is as long as it was found to be.
    bed.receiveBuffer.write(.words(1, .max, .max, .max), at: 0)
    let packet = try unwrap(burst.popFirst())
    #expect(packet.byteCount == 60 && bytes(packet.bytes) == frame(60))
  }
}
