// SPDX-License-Identifier: Apache-2.0

import Testing

@testable import VMBus

@Suite struct RingTests {
  @Test func packetsComeOutAsTheyWentIn() throws {
    let memory = HeapRingMemory(dataByteCount: 4096)
    var producer = try unsafe RingProducer(memory.end())
    var consumer = try unsafe RingConsumer(memory.end())
    var buffer = PacketBuffer(capacity: 4096)
    let early = try consumer.arm()
    #expect(!early)
    for round in 0..<1000 {
      let payload = [UInt8](repeating: UInt8(truncatingIfNeeded: round), count: round % 300)
      try producer.write(
        .inBand, transactionID: UInt64(round), completionRequested: round % 2 == 0,
        payload: unsafe payload.span.bytes)
      let signal = producer.commit()
      #expect(signal)
      let received = try consumer.receive(into: &buffer)
      let packet = try #require(received)
      #expect(packet.transactionID == UInt64(round))
      #expect(packet.completionRequested == (round % 2 == 0))
      #expect(packet.payloadByteCount == (payload.count + 7) & ~7)
      let content = array(buffer.payload(of: packet))
      #expect(content.starts(with: payload))
      let none = try consumer.receive(into: &buffer)
      let writerWaits = consumer.commit()
      #expect(none == nil && !writerWaits)
    }
    withExtendedLifetime(memory) {}
  }
}

/// The span's bytes.
func array(_ bytes: RawSpan) -> [UInt8] {
  unsafe bytes.withUnsafeBytes { unsafe [UInt8]($0) }
}
