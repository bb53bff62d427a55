// SPDX-License-Identifier: Apache-2.0

/// A ring whose peer is the fuzzer: 8 bytes of settings, then operations. Each operation is a
/// byte, and those that need more take it from what follows; the data area starts as what is left.
func fuzzRing(_ input: RawSpan) {
  var reader = WireReader(input, name: "fuzzer's input")
  do {
    let settings = try reader.read(UInt8.self)
    let start = UInt32(try reader.read(UInt8.self)) &* 16
    let operations = try reader.take(Int(try reader.read(UInt8.self)) % 32)
    let memory = HeapRingMemory(dataByteCount: 4096)
    let content = reader.rest
    let count = min(content.byteCount, 4096)
    // The content lies from the start index on, round the end.
    for offset in 0..<count {
      unsafe memory.bytes[4096 + (Int(start) + offset) % 4096] =
        content.unsafeLoad(fromByteOffset: offset, as: UInt8.self)
    }
    setWord(memory, 0, start)
    setWord(memory, 4, start)
    var consumer = try unsafe RingConsumer(
      memory.end(), trailerCheck: settings & 1 == 0 ? .ignore : .verify)
    var producer = try unsafe RingProducer(memory.end())
    setWord(memory, 0, settings & 2 == 0 ? (start + UInt32(count) & ~7) % 4096 : start &- 8)
    var buffer = PacketBuffer(capacity: Int(settings >> 2) * 65)
    var left = WireReader(operations, name: "operations")
    while left.remaining > 0 {
      switch try left.read(UInt8.self) % 8 {
      case 0: setWord(memory, 0, try left.read(UInt32.self))
      case 1: setWord(memory, 4, try left.read(UInt32.self))
      case 2: setWord(memory, 12, try left.read(UInt32.self))
      case 3: _ = consumer.commit()
      case 4: _ = try consumer.arm()
      case 5:
        // Errors leave a producer as it was, so that it goes on.
        _ = try? producer.write(
          .gpaDirect, transactionID: 1, ranges: content.extracting(first: content.byteCount & 24),
          payload: content)
      case 6: _ = producer.commit()
      default: _ = try? producer.waitForSpace(Int(try left.read(UInt16.self)))
      }
      try drain(&consumer, &buffer)
    }
    try drain(&consumer, &buffer)
    _ = consumer.commit()
  } catch {
    // A typed error is the answer that a peer deserves. Its text must not trap either.
    if "\(error)".isEmpty { fatalError("an error without a text") }
  }
}

private func setWord(_ memory: HeapRingMemory, _ offset: Int, _ value: UInt32) {
  unsafe memory.bytes.storeBytes(of: value, toByteOffset: offset, as: UInt32.self)
}

/// Receives what there is. A ring of 4096 bytes holds 170 packets, so more of them at once is a
/// reader that runs in a circle.
private func drain(
  _ consumer: inout RingConsumer<BorrowedRingMemory>, _ buffer: inout PacketBuffer
) throws(RingError) {
  var packets = 0
  while let packet = try consumer.receive(into: &buffer) {
    packets += 1
    if packets > 171 { fatalError("the ring never ends") }
    let payload = buffer.payload(of: packet)
    if packet.rangesByteCount + payload.byteCount > buffer.capacity { fatalError("too large") }
    switch packet.type {
    case .gpaDirect:
      guard var ranges = try? GPARanges(buffer.ranges(of: packet)) else { break }
      while ranges.count > 0 {
        guard var pages = try? ranges.next() else { break }
        for _ in 0..<pages.range.pageCount { _ = try? pages.nextPage() }
      }
    case .transferPages:
      guard var pages = try? TransferPages(buffer.ranges(of: packet)) else { break }
      while pages.count > 0 { guard (try? pages.next()) != nil else { break } }
    default: break
    }
  }
}

@c(LLVMFuzzerTestOneInput)
public func fuzzOne(_ bytes: UnsafePointer<UInt8>?, _ count: Int) -> CInt {
  let buffer = unsafe UnsafeRawBufferPointer(start: bytes, count: count)
  unsafe fuzzRing(buffer.bytes)
  return 0
}
