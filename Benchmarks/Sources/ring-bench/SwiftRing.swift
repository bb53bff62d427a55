// SPDX-License-Identifier: Apache-2.0

import RingTwin
import VMBus

/// The Swift side of each measurement: what `ring_twin.c` does, with the library's ring.
enum SwiftRing {
  typealias Producer = RingProducer<BorrowedRingMemory>
  typealias Consumer = RingConsumer<BorrowedRingMemory>

  @inline(never)
  static func round(
    _ producer: inout Producer, _ consumer: inout Consumer, _ source: RawSpan,
    _ buffer: inout PacketBuffer, packets: UInt64, batch: UInt64
  ) throws(RingError) -> UInt64 {
    var received: UInt64 = 0
    var signals: UInt64 = 0
    var id: UInt64 = 0
    while id < packets {
      for _ in 0..<batch {
        try producer.write(.inBand, transactionID: id, completionRequested: true, payload: source)
        id &+= 1
      }
      if producer.commit() { signals &+= 1 }
      for _ in 0..<batch {
        guard let packet = try consumer.receive(into: &buffer) else { return 0 }
        let payload = buffer.payload(of: packet)
        escape(nil)
        received &+= UInt64(payload.byteCount) &+ packet.transactionID >> 63
      }
      if consumer.commit() { signals &+= 1 }
    }
    return received &+ signals
  }

  @inline(never)
  static func produce(
    _ producer: inout Producer, _ source: RawSpan, packets: UInt64, batch: UInt64
  ) throws(RingError) -> UInt64 {
    var signals: UInt64 = 0
    var id: UInt64 = 0
    while id < packets {
      var left = min(batch, packets &- id)
      while left > 0 {
        do {
          try producer.write(.inBand, transactionID: id, payload: source)
          id &+= 1
          left &-= 1
        } catch .full {
          if producer.commit() { signals &+= 1 }
          pause_cpu()
        }
      }
      if producer.commit() { signals &+= 1 }
    }
    return id &+ signals
  }

  @inline(never)
  static func consume(
    _ consumer: inout Consumer, _ buffer: inout PacketBuffer, packets: UInt64
  ) throws(RingError) -> UInt64 {
    var received: UInt64 = 0
    var bytes: UInt64 = 0
    while received < packets {
      guard let packet = try consumer.receive(into: &buffer) else {
        if consumer.commit() { bytes &+= 1 }
        pause_cpu()
        continue
      }
      let payload = buffer.payload(of: packet)
      escape(nil)
      bytes &+= UInt64(payload.byteCount)
      received &+= 1
      if received & 31 == 0, consumer.commit() { bytes &+= 1 }
    }
    if consumer.commit() { bytes &+= 1 }
    return bytes
  }

  @inline(never)
  static func ping(
    _ producer: inout Producer, _ consumer: inout Consumer, _ source: RawSpan,
    _ buffer: inout PacketBuffer, rounds: UInt64
  ) throws(RingError) {
    for round in 0..<rounds {
      try producer.write(.inBand, transactionID: round, payload: source)
      _ = producer.commit()
      while try consumer.receive(into: &buffer) == nil { pause_cpu() }
      _ = consumer.commit()
    }
  }

  @inline(never)
  static func pong(
    _ producer: inout Producer, _ consumer: inout Consumer, _ source: RawSpan,
    _ buffer: inout PacketBuffer, rounds: UInt64
  ) throws(RingError) {
    for round in 0..<rounds {
      while try consumer.receive(into: &buffer) == nil { pause_cpu() }
      _ = consumer.commit()
      try producer.write(.inBand, transactionID: round, payload: source)
      _ = producer.commit()
    }
  }
}
