// SPDX-License-Identifier: Apache-2.0

import VMBus

/// Sends and receives packets of all that a ring knows: with and without ranges, short and long,
/// across the end, with a full ring, with the interrupt armed and space asked for.
func runRing(_ packets: Int) throws { try sendAndReceive(packets) { _ in } }

/// The same with an object for each packet: what the check must find.
func runBrokenRing(_ packets: Int) throws {
  final class Completion {
    let transactionID: UInt64
    init(_ transactionID: UInt64) { self.transactionID = transactionID }
  }
  var last: Completion?
  try sendAndReceive(packets) { last = Completion($0) }
  guard last?.transactionID == UInt64(packets - 1) else { throw WrongPacket() }
}

struct WrongPacket: Error {}

private func sendAndReceive(_ packets: Int, _ each: (UInt64) -> Void) throws {
  let memory = HeapRingMemory(dataByteCount: 4096)
  var producer = try unsafe RingProducer(memory.end())
  var consumer = try unsafe RingConsumer(memory.end())
  var buffer = PacketBuffer(capacity: 4096)
  let bytes = [UInt8](repeating: 7, count: 600)
  let content = unsafe bytes.span.bytes
  var sent = 0
  var received = 0
  while received < packets {
    while sent < packets {
      let payload = content.extracting(first: sent % 601)
      let hasRanges = sent % 4 == 0
      do {
        try producer.write(
          hasRanges ? .gpaDirect : .inBand, transactionID: UInt64(sent),
          completionRequested: hasRanges, ranges: content.extracting(first: hasRanges ? 24 : 0),
          payload: payload)
        sent &+= 1
      } catch .full(let needed, _) {
        _ = producer.commit()
        if try !producer.waitForSpace(needed) { break }
      }
    }
    _ = producer.commit()
    if try !consumer.arm(), sent < packets { throw WrongPacket() }
    consumer.mask()
    while let packet = try consumer.receive(into: &buffer) {
      guard packet.transactionID == UInt64(received),
        buffer.payload(of: packet).byteCount == (received % 601 + 7) & ~7
      else { throw WrongPacket() }
      each(packet.transactionID)
      received &+= 1
    }
    _ = consumer.commit()
    producer.stopWaitingForSpace()
  }
}
