// SPDX-License-Identifier: Apache-2.0

import Glibc
import RingTwin
import VMBus

/// Two rings between two pinned threads, and two bare cache lines.
final class Pair: @unchecked Sendable {
  let there = HeapRingMemory(dataByteCount: 1 << 18)
  let back = HeapRingMemory(dataByteCount: 1 << 18)
  let lines = HeapRingMemory(dataByteCount: 4096)
  let source: [UInt8]
  var failed = false

  init(payload: Int) { source = [UInt8](repeating: 7, count: payload) }

  /// Runs both at the same time, each on a processor of its own. Returns seconds.
  func race(
    _ first: @escaping @Sendable (Pair) throws -> Void,
    _ second: @escaping @Sendable (Pair) throws -> Void
  ) throws -> Double {
    var thread = pthread_t()
    let other = unsafe Unmanaged.passRetained(Other(self, second))
    let status = unsafe pthread_create(
      &thread, nil,
      { argument in
        guard let argument = unsafe argument else { return nil }
        let other = unsafe Unmanaged<Other>.fromOpaque(argument).takeRetainedValue()
        _ = pin_to_cpu(1)
        do { try other.body(other.pair) } catch { other.pair.failed = true }
        return nil
      }, other.toOpaque())
    guard status == 0, pin_to_cpu(0) else { throw Failure.usage("can't start a pinned thread") }
    let start = ContinuousClock.now
    try first(self)
    pthread_join(thread, nil)
    let time = start.duration(to: .now)
    guard !failed else { throw Failure.wrongBytes("two threads") }
    return time / .seconds(1)
  }

  final class Other {
    let pair: Pair
    let body: @Sendable (Pair) throws -> Void
    init(_ pair: Pair, _ body: @escaping @Sendable (Pair) throws -> Void) {
      self.pair = pair
      self.body = body
    }
  }
}

/// Messages per second from one pinned thread to another, and round trips, beside the twin's and
/// beside a bare cache line's.
func measureThreads(rounds: Int, scale: UInt64) throws {
  try measureStream([64, 1512], rounds: rounds, scale: scale)
  try measurePingPong(rounds: rounds, trips: 100_000 * scale)
}

/// Where other programs use these processors, each wait for the other thread may take a time slice: the
/// rounds are as many as fit these seconds.
private let limit = 10.0

/// Messages per second from one pinned thread to another, beside the twin's.
func measureStream(_ payloads: [Int], rounds: Int, scale: UInt64) throws {
  guard usable_cpus() >= 2 else {
    throw Failure.usage("two threads need two processors; this process may use one")
  }
  guard pin_to_cpu(0) else { throw Failure.usage("can't pin a thread to a processor") }
  for payload in payloads {
    let pair = Pair(payload: payload)
    let packets = 250_000 * scale
    var swift: [Double] = []
    var ratios: [Double] = []
    let start = ContinuousClock.now
    for _ in 0..<rounds {
      if !swift.isEmpty, start.duration(to: .now) > .seconds(limit) { break }
      let own = try pair.race(
        { pair in
          var producer = try unsafe RingProducer(pair.there.end())
          let source = pair.source
          _ = try unsafe SwiftRing.produce(
            &producer, source.span.bytes, packets: packets, batch: 32)
        },
        { pair in
          var consumer = try unsafe RingConsumer(pair.there.end())
          var buffer = PacketBuffer(capacity: 16384)
          let bytes = try SwiftRing.consume(&consumer, &buffer, packets: packets)
          if bytes < packets * UInt64(pair.source.count) { pair.failed = true }
        })
      let twin = try pair.race(
        { pair in
          var producer = try unsafe Twin.producer(pair.there)
          unsafe pair.source.withUnsafeBytes {
            _ = unsafe twin_produce(&producer, $0.baseAddress, $0.count, packets, 32)
          }
        },
        { pair in
          var consumer = try unsafe Twin.consumer(pair.there)
          unsafe withScratch {
            let bytes = unsafe twin_consume(&consumer, $0.baseAddress, $0.count, packets)
            if bytes < packets * UInt64(pair.source.count) { pair.failed = true }
          }
        })
      swift.append(own)
      ratios.append(own / twin)
    }
    let rate = Double(packets) / median(swift) / 1e6
    row(
      "two threads, \(payload) B, batch 32", "M messages/s", rate, "C twin", rate * median(ratios))
  }
}

private func measurePingPong(rounds: Int, trips wanted: UInt64) throws {
  let pair = Pair(payload: 64)
  var swift: [Double] = []
  var toTwin: [Double] = []
  var toLine: [Double] = []
  // A few first: they tell how many fit.
  unsafe pair.lines.bytes.initializeMemory(as: UInt8.self, repeating: 0)
  let few: UInt64 = 1000
  let rough = try pair.race(
    { unsafe line_ping($0.lines.bytes.baseAddress, few) },
    { unsafe line_pong($0.lines.bytes.baseAddress, few) })
  let trips = min(wanted, max(few, UInt64(limit / 4 / max(rough, 1e-6) * Double(few))))
  let start = ContinuousClock.now
  for _ in 0..<rounds {
    if !swift.isEmpty, start.duration(to: .now) > .seconds(limit) { break }
    let own = try pair.race(
      { pair in
        var producer = try unsafe RingProducer(pair.there.end())
        var consumer = try unsafe RingConsumer(pair.back.end())
        var buffer = PacketBuffer(capacity: 16384)
        let source = pair.source
        try unsafe SwiftRing.ping(
          &producer, &consumer, source.span.bytes, &buffer, rounds: trips)
      },
      { pair in
        var producer = try unsafe RingProducer(pair.back.end())
        var consumer = try unsafe RingConsumer(pair.there.end())
        var buffer = PacketBuffer(capacity: 16384)
        let source = pair.source
        try unsafe SwiftRing.pong(
          &producer, &consumer, source.span.bytes, &buffer, rounds: trips)
      })
    let twin = try pair.race(
      { pair in
        var producer = try unsafe Twin.producer(pair.there)
        var consumer = try unsafe Twin.consumer(pair.back)
        unsafe withScratch { buffer in
          unsafe pair.source.withUnsafeBytes {
            unsafe twin_ping(
              &producer, &consumer, $0.baseAddress, buffer.baseAddress, buffer.count, $0.count,
              trips)
          }
        }
      },
      { pair in
        var producer = try unsafe Twin.producer(pair.back)
        var consumer = try unsafe Twin.consumer(pair.there)
        unsafe withScratch { buffer in
          unsafe pair.source.withUnsafeBytes {
            unsafe twin_pong(
              &producer, &consumer, $0.baseAddress, buffer.baseAddress, buffer.count, $0.count,
              trips)
          }
        }
      })
    unsafe pair.lines.bytes.initializeMemory(as: UInt8.self, repeating: 0)
    let line = try pair.race(
      { unsafe line_ping($0.lines.bytes.baseAddress, trips) },
      { unsafe line_pong($0.lines.bytes.baseAddress, trips) })
    swift.append(own)
    toTwin.append(own / twin)
    toLine.append(own / line)
  }
  let trip = median(swift) / Double(trips) * 1e9
  row("ping-pong, 64 B", "ns/round trip", trip, "C twin", trip / median(toTwin))
  row("ping-pong, 64 B", "ns/round trip", trip, "cache line", trip / median(toLine))
}

/// Memory to receive into, as a `PacketBuffer` has it.
private func withScratch(_ body: (UnsafeMutableRawBufferPointer) -> Void) {
  let scratch = UnsafeMutableRawBufferPointer.allocate(byteCount: 16384, alignment: 64)
  unsafe scratch.initializeMemory(as: UInt8.self, repeating: 0)
  unsafe body(scratch)
  unsafe scratch.deallocate()
}
