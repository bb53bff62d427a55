// SPDX-License-Identifier: Apache-2.0

import Testing

@testable import VMBus

@Suite struct RingHostileTests {
  /// What a consumer says about words that a peer wrote at `start` and published.
  ///
  /// - Parameter published: bytes; all of the words by default.
  func error(
    _ words: [UInt64], at start: Int = 0, published: Int? = nil, capacity: Int = 4096,
    check: TrailerCheck = .verify
  ) throws -> RingError? {
    let ring = GuardedRing()
    ring.consumerIndex = UInt32(start)
    ring.producerIndex = UInt32(start)
    var consumer = try ring.consumer(trailerCheck: check)
    for (index, word) in words.enumerated() { ring[start + index * 8] = word }
    ring.producerIndex = UInt32((start + (published ?? words.count * 8)) % 4096)
    var buffer = PacketBuffer(capacity: capacity)
    let first = refusal { () throws(RingError) in _ = try consumer.receive(into: &buffer) }
    // It stays where it was: the answer is the same, and nothing is given back.
    let second = refusal { () throws(RingError) in _ = try consumer.receive(into: &buffer) }
    if first != nil { #expect(second == first) }
    _ = consumer.commit()
    if first != nil { #expect(ring.consumerIndex == UInt32(start)) }
    return first
  }

  /// Places where the packet is whole, and where each part of it lies round the end.
  static let places = [0, 8, 2048, 4096 - 32, 4096 - 24, 4096 - 16, 4096 - 8]

  @Test(arguments: places) func aLawfulPacketIsNotRefused(_ start: Int) throws {
    let trailer = UInt64(start) << 32
    #expect(try error([descriptor(6, length8: 2), 5, trailer], at: start) == nil)
    #expect(try error([descriptor(11, length8: 3), 5, 0, trailer], at: start) == nil)
    for type in [7, 9] as [UInt16] {
      #expect(
        try error([descriptor(type, dataOffset8: 3, length8: 3), 5, 1 << 32, trailer], at: start)
          == nil)
    }
  }

  @Test(arguments: places) func lengthsThatContradictEachOtherAreRefused(_ start: Int) throws {
    let cases: [(type: UInt16, dataOffset8: UInt16, length8: UInt16)] = [
      (6, 0, 3), (6, 1, 3), (6, 3, 2), (6, 0xffff, 3), (6, 2, 0), (6, 2, 1), (6, 0, 0),
      (6, 2, 4), (6, 2, 0xffff), (6, 0xffff, 0xffff), (11, 2, 4), (11, 1, 1),
      // Types with ranges have 8 bytes of them: data_offset8 == 2 once made 16 - 24 of it.
      (7, 0, 3), (7, 1, 3), (7, 2, 3), (9, 0, 3), (9, 1, 3), (9, 2, 3), (9, 4, 3), (7, 3, 4),
    ]
    for (type, dataOffset8, length8) in cases {
      let words = [
        descriptor(type, dataOffset8: dataOffset8, length8: length8), 5, 0, UInt64(start) << 32,
      ]
      #expect(
        try error(words, at: start)
          == .badLength(
            offset: UInt32(start), length8: length8, dataOffset8: dataOffset8, available: 32))
    }
  }

  @Test(arguments: places) func aPacketWithoutRoomForItsTrailerIsRefused(_ start: Int) throws {
    // Descriptor and payload are published, the trailer is not.
    #expect(
      try error([descriptor(6, length8: 3), 5, 0, UInt64(start) << 32], at: start, published: 24)
        == .badLength(offset: UInt32(start), length8: 3, dataOffset8: 2, available: 24))
    for published in [8, 16] {
      #expect(
        try error([descriptor(6, length8: 2), 5, 0], at: start, published: published)
          == .truncated(available: published))
    }
  }

  @Test func otherTypesAreRefused() throws {
    for type in (0...UInt16(300)) + [0x4006, 0x8009, 0xffff, 6 + 64, 9 + 64]
    where ![6, 7, 9, 11].contains(type) {
      #expect(
        try error([descriptor(type, dataOffset8: 3, length8: 3), 5, 0, 0])
          == .badType(offset: 0, type: type))
    }
  }

  @Test func otherFlagsAreRefused() throws {
    #expect(try error([descriptor(6, length8: 2, flags: 1), 5, 0]) == nil)
    for bit in 1..<16 {
      let flags = UInt16(1) << bit
      #expect(
        try error([descriptor(6, length8: 2, flags: flags), 5, 0])
          == .badFlags(offset: 0, flags: flags))
      #expect(
        try error([descriptor(11, length8: 2, flags: flags | 1), 5, 0])
          == .badFlags(offset: 0, flags: flags | 1))
    }
  }

  @Test(arguments: places) func aTrailerThatNamesAnotherPlaceIsRefused(_ start: Int) throws {
    for found in [UInt64(start + 8) << 32, UInt64(start) << 32 ^ 1 << 63, UInt64(start ^ 4) << 32] {
      let words = [descriptor(6, length8: 2), 5, found]
      #expect(try error(words, at: start) == .badTrailer(offset: UInt32(start), found: found))
      #expect(try error(words, at: start, check: .ignore) == nil)
    }
    // The other half is reserved.
    #expect(
      try error([descriptor(6, length8: 2), 5, UInt64(start) << 32 | 0xdead], at: start) == nil)
  }

  @Test func aPacketLargerThanTheBufferIsRefused() throws {
    let words = [descriptor(6, length8: 5), 5, 1, 2, 3, 0]
    #expect(try error(words, capacity: 24) == nil)
    #expect(try error(words, capacity: 23) == .packetTooLarge(byteCount: 24, limit: 23))
    #expect(try error(words, capacity: 0) == .packetTooLarge(byteCount: 24, limit: 0))
    #expect(try error([descriptor(6, length8: 2), 5, 0], capacity: 0) == nil)
  }

  static let badIndices: [UInt32] = [
    1, 4, 7, 4092, 4096, 4104, 8192, 0x7fff_fff8, 0x8000_0000, .max, .max - 7,
  ]

  @Test(arguments: badIndices) func anIndexOutOfTheRingIsRefused(_ index: UInt32) throws {
    let ring = GuardedRing()
    var producer = try ring.producer()
    var consumer = try ring.consumer()
    var buffer = PacketBuffer(capacity: 4096)
    let expected = RingError.badIndex(index, ringByteCount: 4096)

    ring.producerIndex = index
    #expect(refusal { () throws(RingError) in _ = try consumer.receive(into: &buffer) } == expected)
    #expect(refusal { () throws(RingError) in _ = try consumer.arm() } == expected)
    #expect(refusal { () throws(RingError) in _ = try ring.producer() } == expected)
    ring.producerIndex = 0

    ring.consumerIndex = index
    #expect(refusal { () throws(RingError) in _ = try producer.free() } == expected)
    #expect(refusal { () throws(RingError) in _ = try producer.waitForSpace(64) } == expected)
    #expect(refusal { () throws(RingError) in _ = try ring.consumer() } == expected)
    #expect(refusal { () throws(RingError) in _ = try ring.producer() } == expected)
    // The room that is known is used; only then is the index looked at.
    try producer.send([UInt8](repeating: 0, count: 4000))
    #expect(
      refusal { () throws(RingError) in try producer.send([UInt8](repeating: 0, count: 4000)) }
        == expected)
    let signal = producer.commit()
    #expect(!signal)
  }

  @Test func anIndexThatMovesWhilePacketsAreReadChangesNothing() throws {
    let ring = GuardedRing()
    var producer = try ring.producer()
    var consumer = try ring.consumer()
    var buffer = PacketBuffer(capacity: 4096)
    try producer.send([1], id: 1)
    try producer.send([2], id: 2)
    _ = producer.commit()
    let first = try consumer.take(&buffer)
    ring.producerIndex = 3
    let second = try consumer.take(&buffer)
    #expect(first?.packet.transactionID == 1 && second?.packet.transactionID == 2)
    #expect(
      refusal { () throws(RingError) in _ = try consumer.receive(into: &buffer) }
        == .badIndex(3, ringByteCount: 4096))
    // Back by a packet: nearly all of the ring, which holds nothing, seems to be published.
    ring.producerIndex = 32
    #expect(
      refusal { () throws(RingError) in _ = try consumer.receive(into: &buffer) }
        == .badType(offset: 64, type: 0))
  }

  @Test func aConsumerThatMovesBackOrTooFarIsRefused() throws {
    let ring = GuardedRing()
    var producer = try ring.producer()
    for _ in 0..<4 { try producer.send([1]) }
    _ = producer.commit()
    ring.consumerIndex = 64
    _ = try producer.free()
    for index in [32, 136, 4088, 0] as [UInt32] {
      ring.consumerIndex = index
      #expect(
        refusal { () throws(RingError) in _ = try producer.free() }
          == .indexMovedBack(index, from: 64, end: 128))
    }
    // Not even over the packets of a batch that is not published.
    try producer.send([1])
    ring.consumerIndex = 160
    #expect(
      refusal { () throws(RingError) in _ = try producer.free() }
        == .indexMovedBack(160, from: 64, end: 128))
    ring.consumerIndex = 128
    let free = try producer.free()
    #expect(free == 4088 - 32)
  }

  @Test func aPacketThatChangesAfterItWasCopiedStaysAsItWas() throws {
    let ring = GuardedRing()
    var producer = try ring.producer()
    var consumer = try ring.consumer()
    var buffer = PacketBuffer(capacity: 4096)
    try producer.send([UInt8](repeating: 7, count: 500), id: 9)
    _ = producer.commit()
    let received = try consumer.receive(into: &buffer)
    let packet = try #require(received)
    ring.fill(0xff)
    #expect(array(buffer.payload(of: packet)).prefix(500).allSatisfy { $0 == 7 })
    #expect(packet.payloadByteCount == 504 && packet.transactionID == 9)
  }

  @Test func noGarbageTraps() throws {
    var random = Seeded(state: 2)
    var packets = 0
    var errors = 0
    let ring = GuardedRing()
    var buffer = PacketBuffer(capacity: 4096)
    for round in 0..<20_000 {
      // Random words, of which many are nearly lawful descriptors.
      for offset in stride(from: 0, to: 4096, by: round % 8 == 0 ? 8 : 256) {
        ring[offset] = random.next()
      }
      let start = Int.random(in: 0..<512, using: &random) * 8
      ring.consumerIndex = UInt32(start)
      var consumer = try ring.consumer(trailerCheck: round % 2 == 0 ? .verify : .ignore)
      ring.producerIndex = UInt32.random(in: 0..<520, using: &random) &* 8
      var at = start
      for _ in 0..<Int.random(in: 0..<4, using: &random) {
        let length8 = UInt16.random(in: 0..<20, using: &random)
        ring[at] = descriptor(
          [6, 7, 9, 11].randomElement(using: &random) ?? 6,
          dataOffset8: .random(in: 1..<6, using: &random), length8: length8,
          flags: .random(in: 0..<2, using: &random))
        ring[at + Int(length8) * 8] = UInt64(at % 4096) << 32
        at += Int(length8) * 8 + 8
      }
      ring.pendingSendSize = UInt32(truncatingIfNeeded: random.next())
      // A packet takes 24 bytes or more, so that a ring cannot hold more than 171.
      for turn in 0... {
        #expect(turn < 171)
        var done = false
        let error = refusal { () throws(RingError) in
          guard let packet = try consumer.receive(into: &buffer) else {
            done = true
            return
          }
          packets += 1
          if var ranges = try? GPARanges(buffer.ranges(of: packet)) {
            while ranges.count > 0, (try? ranges.next()) != nil {}
          }
          if var pages = try? TransferPages(buffer.ranges(of: packet)) {
            while pages.count > 0, (try? pages.next()) != nil {}
          }
        }
        if error != nil { errors += 1 }
        if done || error != nil { break }
      }
      _ = consumer.commit()
    }
    // Both ways were gone, often.
    #expect(packets > 1000 && errors > 1000)
  }
}
