// SPDX-License-Identifier: Apache-2.0

import Testing

@testable import VMBus

@Suite struct RingTests {
  /// Sends a packet with ranges of `rangeWords` words through a ring whose two indices start at
  /// `start`, and tells what came out.
  func pass(
    _ payload: [UInt8], rangeWords: Int, at start: Int, size: Int = 4096
  ) throws -> (packet: Packet, ranges: [UInt8], payload: [UInt8])? {
    let ring = GuardedRing(size: size)
    ring.fill(0xee)
    ring.producerIndex = UInt32(start)
    ring.consumerIndex = UInt32(start)
    var producer = try ring.producer()
    var consumer = try ring.consumer()
    var buffer = PacketBuffer(capacity: size)
    let ranges = (0..<rangeWords * 8).map { UInt8(truncatingIfNeeded: $0 ^ 0x5a) }
    try producer.send(
      payload, type: rangeWords > 0 ? .gpaDirect : .inBand, id: 77, completion: true,
      ranges: ranges)
    _ = producer.commit()
    let taken = try consumer.take(&buffer)
    _ = consumer.commit()
    let end = UInt32(
      (start + Packet.byteCount(ranges: ranges.count, payload: payload.count)) % size)
    #expect(ring.producerIndex == end && ring.consumerIndex == end)
    #expect(taken?.ranges == ranges)
    return taken
  }

  @Test func packetsComeOutAsTheyWentInAcrossEachOffsetOfTheEnd() throws {
    // All sizes at which a copy takes another way, at each place before the end.
    let sizes = [
      0, 1, 7, 8, 9, 15, 16, 17, 24, 31, 32, 33, 48, 63, 64, 65, 120, 127, 128, 129, 200,
    ]
    for size in sizes {
      let payload = (0..<size).map { UInt8(truncatingIfNeeded: $0 &* 7 &+ 1) }
      for before in stride(from: 8, through: 280, by: 8) {
        let taken = try pass(payload, rangeWords: before % 3 * 2, at: 4096 - before)
        #expect(taken?.packet.transactionID == 77)
        #expect(taken?.packet.completionRequested == true)
        // The padding is zero, whatever lay in the ring.
        let padded = payload + [UInt8](repeating: 0, count: (8 - size % 8) % 8)
        #expect(taken?.payload == padded, "\(size) bytes, \(before) before the end")
      }
    }
  }

  @Test func thousandsOfPacketsGoRound() throws {
    let ring = GuardedRing()
    var producer = try ring.producer()
    var consumer = try ring.consumer()
    var buffer = PacketBuffer(capacity: 4096)
    for round in 0..<5000 {
      let payload = [UInt8](repeating: UInt8(truncatingIfNeeded: round), count: round % 4065)
      try producer.send(payload, id: UInt64(round), completion: round % 2 == 0)
      _ = producer.commit()
      let taken = try consumer.take(&buffer)
      #expect(taken?.packet.transactionID == UInt64(round))
      #expect(taken?.packet.completionRequested == (round % 2 == 0))
      #expect(taken?.payload.starts(with: payload) == true)
      let none = try consumer.take(&buffer)
      _ = consumer.commit()
      #expect(none == nil)
    }
  }

  @Test func aRingIsFilledExactlyAndThenFull() throws {
    let ring = GuardedRing()
    var producer = try ring.producer()
    // 8 bytes always stay free.
    #expect(producer.maximumPacketByteCount == 4088)
    try producer.send([UInt8](repeating: 1, count: 4064))
    _ = producer.commit()
    #expect(ring.producerIndex == 4088)
    let full = refusal { () throws(RingError) in try producer.send([]) }
    #expect(full == .full(needed: 24, free: 0))
    let large = refusal { () throws(RingError) in
      try producer.send([UInt8](repeating: 1, count: 4065))
    }
    #expect(large == .packetTooLarge(byteCount: 4096, limit: 4088))
    ring.consumerIndex = 4088
    let free = try producer.free()
    #expect(free == 4088)
  }

  @Test func theLargestPacketIsWhatADescriptorCanTell() throws {
    let ring = GuardedRing(size: 1 << 20)
    var producer = try ring.producer()
    var consumer = try ring.consumer()
    var buffer = PacketBuffer(capacity: 1 << 20)
    let limit = 65535 * 8 + 8
    #expect(producer.maximumPacketByteCount == limit)
    let large = refusal { () throws(RingError) in
      try producer.send([UInt8](repeating: 1, count: limit - 23))
    }
    #expect(large == .packetTooLarge(byteCount: limit + 8, limit: limit))
    for _ in 0..<3 {
      try producer.send([UInt8](repeating: 1, count: limit - 24))
      _ = producer.commit()
      let taken = try consumer.take(&buffer)
      _ = consumer.commit()
      #expect(taken?.payload.count == limit - 24)
    }
    // More is free than one packet can take: two fit between looks at the peer's index.
    let free = try producer.free()
    #expect(free == 1 << 20 - 8)
  }

  @Test func aBatchIsPublishedAtOnce() throws {
    let ring = GuardedRing()
    var producer = try ring.producer()
    var consumer = try ring.consumer()
    var buffer = PacketBuffer(capacity: 4096)
    for id in 0..<5 { try producer.send([1], id: UInt64(id)) }
    #expect(ring.producerIndex == 0)
    let early = try consumer.take(&buffer)
    #expect(early == nil)
    _ = producer.commit()
    #expect(ring.producerIndex == 160)
    for id in 0..<5 {
      let taken = try consumer.take(&buffer)
      #expect(taken?.packet.transactionID == UInt64(id))
      #expect(ring.consumerIndex == 0)
    }
    _ = consumer.commit()
    #expect(ring.consumerIndex == 160)
  }

  @Test func whatWasNotCommittedCanBeDropped() throws {
    let ring = GuardedRing()
    var producer = try ring.producer()
    try producer.send([1], id: 1)
    _ = producer.commit()
    for _ in 0..<1000 {
      try producer.send([UInt8](repeating: 2, count: 2000), id: 2)
      producer.revert()
    }
    let nothing = producer.commit()
    #expect(!nothing && ring.producerIndex == 32)
    let free = try producer.free()
    #expect(free == 4088 - 32)
    try producer.send([UInt8](repeating: 3, count: 4088 - 32 - 24))
  }

  @Test func unalignedRangesAreRefused() throws {
    var producer = try GuardedRing().producer()
    let error = refusal { () throws(RingError) in
      try producer.send([], ranges: [UInt8](repeating: 0, count: 12))
    }
    #expect(error == .unalignedRanges(byteCount: 12))
  }

  @Test func aRingIsTakenUpWhereItWasLeft() throws {
    let ring = GuardedRing()
    do {
      var producer = try ring.producer()
      try producer.send([1], id: 1)
      _ = producer.commit()
    }
    var producer = try ring.producer()
    var consumer = try ring.consumer()
    var buffer = PacketBuffer(capacity: 64)
    try producer.send([2], id: 2)
    _ = producer.commit()
    for id in 1...2 {
      let taken = try consumer.take(&buffer)
      #expect(taken?.packet.transactionID == UInt64(id))
    }
  }

  @Test(arguments: [0, 1, 4095, 4097, 8191, 1 << 31, -4096])
  func otherSizesAreRefused(_ size: Int) {
    let heap = HeapRingMemory(dataByteCount: 4096)
    let error = refusal { () throws(RingError) in
      _ = try unsafe RingProducer(
        BorrowedRingMemory(start: heap.bytes.baseAddress!, byteCount: size + 4096))
    }
    #expect(error == .badSize(size))
  }
}
