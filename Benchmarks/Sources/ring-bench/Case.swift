// SPDX-License-Identifier: Apache-2.0

import Glibc
import RingTwin
import VMBus

/// One shape of traffic through one ring, and the memory for it.
@safe
struct Case: ~Copyable {
  static let payloads = [16, 64, 256, 1512, 8192]
  static let batches: [UInt64] = [1, 32]

  let payload: Int
  let batch: UInt64
  /// Bytes of the ring's data area.
  let ring: Int
  let name: String
  let memory: HeapRingMemory
  var buffer: PacketBuffer
  let source: [UInt8]
  /// What the C code receives into: the memory of `buffer`, so that both have the same addresses.
  let target: UnsafeMutableRawBufferPointer
  /// Where the bare copies are.
  var position = 0

  init(payload: Int, batch: UInt64, small: Bool) throws {
    // The small ring has room for little more than a batch: its end is crossed all the time.
    let needed = Packet.byteCount(payload: payload) * Int(batch) + 8
    let ring = small ? (needed + 4095) & ~4095 : 2 << 20
    let name = "\(payload) B, batch \(batch), \(small ? "small ring" : "2 MiB ring")"
    let source = (0..<payload).map { UInt8(truncatingIfNeeded: $0) }
    let memory = HeapRingMemory(dataByteCount: ring)
    // A packet tells where the buffer's memory is.
    var buffer = PacketBuffer(capacity: 16384)
    var producer = try unsafe RingProducer(memory.end())
    var consumer = try unsafe RingConsumer(memory.end())
    try unsafe producer.write(.inBand, transactionID: 0, payload: source.span.bytes)
    _ = producer.commit()
    guard let packet = try consumer.receive(into: &buffer) else { throw Failure.wrongBytes(name) }
    _ = consumer.commit()
    let start = unsafe buffer.payload(of: packet).withUnsafeBytes { $0.baseAddress }
    unsafe target = UnsafeMutableRawBufferPointer(
      start: UnsafeMutableRawPointer(mutating: start), count: buffer.capacity)
    self.payload = payload
    self.batch = batch
    self.ring = ring
    self.name = name
    self.source = source
    self.memory = memory
    self.buffer = buffer
  }

  /// Calls `body` with each case.
  static func each(_ body: (inout Case) throws -> Void) throws {
    for small in [false, true] {
      for payload in payloads {
        for batch in batches {
          var this = try Case(payload: payload, batch: batch, small: small)
          try body(&this)
        }
      }
    }
  }

  /// Sends and receives with the Swift ring. Returns nanoseconds for each packet.
  mutating func swift(_ packets: UInt64) throws -> Double {
    var producer = try unsafe RingProducer(memory.end())
    var consumer = try unsafe RingConsumer(memory.end())
    let source = source
    let start = ownTime()
    let bytes = try unsafe SwiftRing.round(
      &producer, &consumer, source.span.bytes, &buffer, packets: packets, batch: batch)
    let time = ownTime() - start
    guard bytes == packets * UInt64(payload) else { throw Failure.wrongBytes(name) }
    return time / Double(packets)
  }

  /// The same with the twin in C, on the same memory.
  mutating func twin(_ packets: UInt64) throws -> Double {
    var producer = try unsafe Twin.producer(memory)
    var consumer = try unsafe Twin.consumer(memory)
    let start = ownTime()
    let received = unsafe source.withUnsafeBytes { source in
      unsafe twin_round(
        &producer, &consumer, source.baseAddress, target.baseAddress, target.count, payload,
        packets, batch)
    }
    let time = ownTime() - start
    guard received == packets * UInt64(payload) else { throw Failure.wrongBytes(name) }
    return time / Double(packets)
  }

  /// Only the two copies of each payload, through the same memory.
  mutating func bare(_ packets: UInt64) -> Double {
    let bytes = unsafe memory.bytes
    let data = unsafe bytes.baseAddress.map { unsafe $0 + 4096 }
    let start = ownTime()
    unsafe source.withUnsafeBytes { source in
      _ = unsafe bare_round(
        data, ring, &position, source.baseAddress, target.baseAddress, payload, packets, batch)
    }
    let time = ownTime() - start
    return time / Double(packets)
  }
}

/// The ends of the twin's ring.
enum Twin {
  static func producer(_ memory: HeapRingMemory) throws -> ring_producer {
    var producer = unsafe ring_producer()
    let bytes = unsafe memory.bytes
    guard let page = bytes.baseAddress,
      unsafe ring_producer_init(&producer, page, page + 4096, bytes.count - 4096) == RING_OK
    else { throw Failure.twin }
    return unsafe producer
  }

  static func consumer(_ memory: HeapRingMemory) throws -> ring_consumer {
    var consumer = unsafe ring_consumer()
    let bytes = unsafe memory.bytes
    guard let page = bytes.baseAddress,
      unsafe ring_consumer_init(&consumer, page, page + 4096, bytes.count - 4096) == RING_OK
    else { throw Failure.twin }
    return unsafe consumer
  }
}

/// Nanoseconds that this thread has run: what others do meanwhile on its processor is not in it.
func ownTime() -> Double {
  var time = timespec()
  unsafe clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time)
  return Double(time.tv_sec) * 1e9 + Double(time.tv_nsec)
}

enum Failure: Error, CustomStringConvertible {
  case wrongBytes(String)
  case twin
  case usage(String)

  var description: String {
    switch self {
    case .wrongBytes(let name): "\(name): not all bytes came through"
    case .twin: "the twin refused the ring"
    case .usage(let text): text
    }
  }
}
