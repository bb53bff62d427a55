// SPDX-License-Identifier: Apache-2.0

import VSC

/// Bounces 4 KiB and 256 KiB in both directions through buffers that the host could see, beside copies
/// of the same bytes. Prints a line for each: name, nanoseconds of it, and of the copy, tab between.
func runBounce(_ count: Int) throws {
  let worker = try Worker(.init(name: "bounce"))
  defer { worker.stop() }
  let device = Device(try HeapDevice(.event, .hostVisible), workers: [worker])
  // Sizes of requests, and how many of them are under way.
  for (byteCount, buffers) in [(4096, 64), (4096, 256), (256 << 10, 4)] {
    let pool: DMAPool<HostVisible> = try device.makePool(count: buffers, byteCount: byteCount)
    var bench = Bounces(pool, byteCount, buffers)
    for reads in [true, false] {
      var best = (bounced: UInt64.max, copied: UInt64.max)
      // The best of many rounds: what else the machine does only makes a round longer.
      for _ in 0..<max(count, 1) {
        best.copied = min(best.copied, bench.copy())
        best.bounced = min(best.bounced, reads ? bench.read() : bench.write())
      }
      let (size, each) = (byteCount >> 10, Double(buffers))
      print(
        "\(size) KiB at depth \(buffers), \(reads ? "read" : "write")\t\(Double(best.bounced) / each)"
          + "\t\(Double(best.copied) / each)")
    }
  }
}

/// The application's memory, and the requests' buffers.
@safe
private struct Bounces: ~Copyable {
  var pool: DMAPool<HostVisible>
  let byteCount: Int
  let count: Int
  let application: UnsafeMutableRawPointer
  let copies: UnsafeMutableRawPointer
  /// Under way, the first one first.
  let buffers: UnsafeMutablePointer<DMABuffer<HostVisible>?>

  init(_ pool: consuming DMAPool<HostVisible>, _ byteCount: Int, _ count: Int) {
    self.pool = pool
    self.byteCount = byteCount
    self.count = count
    unsafe application = .allocate(byteCount: count * byteCount, alignment: 4096)
    unsafe copies = .allocate(byteCount: count * byteCount, alignment: 4096)
    unsafe application.initializeMemory(as: UInt8.self, repeating: 1, count: count * byteCount)
    unsafe copies.initializeMemory(as: UInt8.self, repeating: 2, count: count * byteCount)
    unsafe buffers = .allocate(capacity: count)
    for index in 0..<count { unsafe (buffers + index).initialize(to: nil) }
  }

  deinit {
    unsafe buffers.deinitialize(count: count)
    unsafe buffers.deallocate()
    unsafe application.deallocate()
    unsafe copies.deallocate()
  }

  /// Nanoseconds of bare copies.
  func copy() -> UInt64 {
    let start = MonotonicClock.now()
    for index in 0..<count {
      let offset = index &* byteCount
      unsafe (application + offset).copyMemory(from: copies + offset, byteCount: byteCount)
    }
    return MonotonicClock.now() &- start
  }

  /// Nanoseconds from the completions of reads until their buffers are free.
  mutating func read() -> UInt64 {
    for index in 0..<count {
      // What the device has written.
      var buffer = pool.take()
      buffer?.withMutableBytes(byteCount) { bytes in
        for offset in stride(from: 0, to: byteCount, by: 8) {
          bytes.storeBytes(of: 3, toByteOffset: offset, as: UInt64.self)
        }
      }
      unsafe buffers[index] = consume buffer
    }
    let start = MonotonicClock.now()
    for index in 0..<count {
      var span = unsafe MutableRawSpan(
        _unsafeStart: application + index &* byteCount, byteCount: byteCount)
      unsafe buffers[index]?.moveOut(from: 0, into: &span)
      unsafe buffers[index] = nil
    }
    return MonotonicClock.now() &- start
  }

  /// Nanoseconds until the buffers of writes are filled, and from their completions until they are free.
  mutating func write() -> UInt64 {
    let start = MonotonicClock.now()
    for index in 0..<count {
      let bytes = unsafe RawSpan(
        _unsafeStart: application + index &* byteCount, byteCount: byteCount)
      var buffer = pool.take()
      buffer?.copyIn(bytes)
      unsafe buffers[index] = consume buffer
    }
    for index in 0..<count { unsafe buffers[index] = nil }
    return MonotonicClock.now() &- start
  }
}
