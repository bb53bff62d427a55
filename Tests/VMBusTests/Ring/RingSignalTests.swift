// SPDX-License-Identifier: Apache-2.0

import Testing

@testable import VMBus

@Suite struct RingSignalTests {
  // MARK: - Producer to consumer

  @Test func theFirstPacketInAnEmptyRingSignals() throws {
    let ring = GuardedRing()
    var producer = try ring.producer()
    let nothing = producer.commit()
    try producer.send([1])
    let first = producer.commit()
    try producer.send([1])
    let second = producer.commit()
    #expect(!nothing && first && !second)
    // All that was published before was read: empty again from the consumer's point of view.
    ring.consumerIndex = 64
    try producer.send([1])
    let third = producer.commit()
    #expect(third)
    // All but one.
    ring.consumerIndex = 64
    try producer.send([1])
    let fourth = producer.commit()
    #expect(!fourth)
  }

  @Test func aMaskedConsumerIsNotSignalled() throws {
    let ring = GuardedRing()
    var producer = try ring.producer()
    for mask in [1, 2, .max] as [UInt32] {
      ring.interruptMask = mask
      ring.consumerIndex = ring.producerIndex
      try producer.send([1])
      let signal = producer.commit()
      #expect(!signal)
    }
  }

  @Test func aConsumerStartsMaskedAndArmsItself() throws {
    let ring = GuardedRing()
    var consumer = try ring.consumer()
    #expect(ring.interruptMask == 1)
    let found = try consumer.arm()
    #expect(!found && ring.interruptMask == 0)
    consumer.mask()
    #expect(ring.interruptMask == 1)
  }

  @Test func armingFindsWhatCameMeanwhile() throws {
    let ring = GuardedRing()
    var producer = try ring.producer()
    var consumer = try ring.consumer()
    var buffer = PacketBuffer(capacity: 64)
    let none = try consumer.receive(into: &buffer)
    try producer.send([1])
    // Masked: no signal, so arming must find it.
    let signal = producer.commit()
    let found = try consumer.arm()
    #expect(none == nil && !signal && found)
  }

  @Test func nobodySleepsOnPacketsThatWereNotGivenBack() throws {
    let ring = GuardedRing()
    var producer = try ring.producer()
    var consumer = try ring.consumer()
    var buffer = PacketBuffer(capacity: 64)
    try producer.send([1])
    _ = producer.commit()
    _ = try consumer.receive(into: &buffer)
    // The producer would not signal now: for it the ring is not empty.
    let early = try consumer.arm()
    #expect(early)
    _ = consumer.commit()
    let late = try consumer.arm()
    #expect(!late)
    try producer.send([1])
    let signal = producer.commit()
    #expect(signal)
  }

  // MARK: - Consumer to producer

  /// Whether giving back packets of `sizes` bytes in all signals a producer that waits for
  /// `pending` bytes, in a ring of 4096 bytes that has `free` bytes free before.
  func signals(pending: UInt32, free: Int, givenBack: Int) throws -> Bool {
    let ring = GuardedRing()
    var producer = try ring.producer()
    var consumer = try ring.consumer()
    var buffer = PacketBuffer(capacity: 4096)
    try producer.send([UInt8](repeating: 0, count: givenBack - 24))
    if 4088 - free > givenBack {
      try producer.send([UInt8](repeating: 0, count: 4088 - free - givenBack - 24))
    }
    _ = producer.commit()
    ring.pendingSendSize = pending
    _ = try consumer.receive(into: &buffer)
    return consumer.commit()
  }

  @Test(
    arguments: [
      // Too little before, enough now.
      (pending: 64, free: 0, givenBack: 64, signals: true),
      (64, 32, 32, true), (64, 56, 24, true), (4000, 88, 4000, true),
      // Still too little.
      (64, 0, 56, false), (4088, 0, 4064, false),
      // It had enough already.
      (64, 64, 64, false), (8, 8, 24, false),
      // It waits for nothing.
      (0, 0, 4088, false), (7, 0, 4088, false),
      // Some set the ring's size less one: all of the ring.
      (4095, 0, 4088, true), (4095, 24, 4064, true), (4095, 0, 4000, false),
      // More than there can ever be.
      (4096, 0, 4088, false), (0xffff_ffff, 0, 4088, false), (0x8000_0000, 0, 4088, false),
    ] as [(UInt32, Int, Int, Bool)])
  func aProducerThatWaitsIsSignalledOnceItHasRoom(
    _ pending: UInt32, _ free: Int, _ givenBack: Int, _ expected: Bool
  ) throws {
    #expect(try signals(pending: pending, free: free, givenBack: givenBack) == expected)
  }

  @Test(arguments: [1, 4096, 4100, .max] as [UInt32])
  func aCorruptIndexOfTheProducerSignalsNothing(_ index: UInt32) throws {
    let ring = GuardedRing()
    var producer = try ring.producer()
    var consumer = try ring.consumer()
    var buffer = PacketBuffer(capacity: 4096)
    try producer.send([UInt8](repeating: 0, count: 4064))
    _ = producer.commit()
    _ = try consumer.receive(into: &buffer)
    ring.pendingSendSize = 64
    ring.producerIndex = index
    let signal = consumer.commit()
    #expect(!signal && ring.consumerIndex == 4088)
  }

  @Test func nothingReceivedSignalsNothing() throws {
    let ring = GuardedRing()
    ring.pendingSendSize = 8
    var consumer = try ring.consumer()
    let signal = consumer.commit()
    #expect(!signal)
  }

  @Test func waitingForSpaceAsksOnlyWhenThereIsNone() throws {
    let ring = GuardedRing()
    ring.pendingSendSize = 99
    var producer = try ring.producer()
    #expect(ring.featureBits == 1 && ring.pendingSendSize == 0)
    try producer.send([UInt8](repeating: 0, count: 4000))
    _ = producer.commit()
    let now = try producer.waitForSpace(64)
    #expect(now && ring.pendingSendSize == 0)
    // A peer rounds down to a multiple of 8; so it is rounded up here.
    let later = try producer.waitForSpace(65)
    #expect(!later && ring.pendingSendSize == 72)
    producer.stopWaitingForSpace()
    #expect(ring.pendingSendSize == 0)
    ring.consumerIndex = 4024
    let after = try producer.waitForSpace(4088)
    #expect(after && ring.pendingSendSize == 0)
    let never = refusal { () throws(RingError) in _ = try producer.waitForSpace(4089) }
    #expect(never == .packetTooLarge(byteCount: 4089, limit: 4088))
  }

  @Test func theConsumerSeesWhetherThePeerAsksForSpace() throws {
    let ring = GuardedRing()
    let consumer = try ring.consumer()
    let before = consumer.peerAsksForSpace
    _ = try ring.producer()
    let after = consumer.peerAsksForSpace
    #expect(!before && after)
    ring.producerIndex = 24
    let snapshot = consumer.snapshot
    #expect(snapshot.producerIndex == 24 && snapshot.consumerIndex == 0)
    #expect(snapshot.interruptMask == 1 && snapshot.featureBits == 1)
    #expect(snapshot.pendingSendSize == 0)
  }
}
