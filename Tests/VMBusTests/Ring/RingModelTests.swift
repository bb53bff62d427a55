// SPDX-License-Identifier: Apache-2.0

import Testing

@testable import VMBus

@Suite struct RingModelTests {
  struct Sent: Equatable {
    var type: PacketType
    var id: UInt64
    var completion: Bool
    var ranges: [UInt8]
    var payload: [UInt8]
  }

  /// Both ends do what a die tells, and a queue beside them tells what must come of it.
  @Test(arguments: 0..<12) func aRingIsAQueue(_ seed: UInt64) throws {
    var random = Seeded(state: seed)
    let size = 4096 * Int.random(in: 1...3, using: &random)
    let ring = GuardedRing(size: size)
    let start = UInt32.random(in: 0..<UInt32(size / 8), using: &random) * 8
    ring.producerIndex = start
    ring.consumerIndex = start
    var producer = try ring.producer()
    var consumer = try ring.consumer()
    var buffer = PacketBuffer(capacity: size)
    var written: [Sent] = []
    var published: [Sent] = []
    var used = 0  // bytes from the consumer's published index to the producer's next
    var freed = 0  // bytes received and not given back
    var passed = 0

    for step in 0..<4000 {
      switch Int.random(in: 0..<10, using: &random) {
      case 0..<4:
        let ranged = Bool.random(using: &random)
        let largest = Bool.random(using: &random) ? 64 : 1500
        let sent = Sent(
          type: ranged ? .gpaDirect : .inBand, id: UInt64(step), completion: step % 3 == 0,
          ranges: (0..<(ranged ? 8 * Int.random(in: 1...9, using: &random) : 0)).map {
            UInt8(truncatingIfNeeded: $0 &+ step)
          },
          payload: (0..<Int.random(in: 0...largest, using: &random)).map {
            UInt8(truncatingIfNeeded: $0 &* step)
          })
        let needed = Packet.byteCount(ranges: sent.ranges.count, payload: sent.payload.count)
        let error = refusal { () throws(RingError) in
          try producer.send(
            sent.payload, type: sent.type, id: sent.id, completion: sent.completion,
            ranges: sent.ranges)
        }
        if used + needed <= size - 8 {
          #expect(error == nil)
          written.append(sent)
          used += needed
        } else {
          #expect(error == .full(needed: needed, free: size - 8 - used))
        }
      case 4, 5:
        _ = producer.commit()
        published += written
        written = []
      case 6 where step % 5 == 0:
        producer.revert()
        for sent in written {
          used -= Packet.byteCount(ranges: sent.ranges.count, payload: sent.payload.count)
        }
        written = []
      case 7:
        _ = consumer.commit()
        used -= freed
        freed = 0
      default:
        let taken = try consumer.take(&buffer)
        // Indices are only read anew when what was known is read.
        guard let taken else {
          #expect(published.isEmpty)
          continue
        }
        let expected = published.removeFirst()
        #expect(taken.packet.type == expected.type && taken.packet.transactionID == expected.id)
        #expect(taken.packet.completionRequested == expected.completion)
        #expect(taken.ranges == expected.ranges)
        #expect(taken.payload.starts(with: expected.payload))
        #expect(taken.payload.count == (expected.payload.count + 7) & ~7)
        freed += Packet.byteCount(ranges: expected.ranges.count, payload: expected.payload.count)
        passed += 1
      }
    }
    #expect(passed > 300)
  }
}
