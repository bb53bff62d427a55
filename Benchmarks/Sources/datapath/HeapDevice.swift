// SPDX-License-Identifier: Apache-2.0

import VMBus
import VSC

/// A device whose rings and memory are plain memory of this process. Its guest page numbers are
/// addresses.
@safe
final class HeapTransport: DeviceTransport, @unchecked Sendable {
  let identity = DeviceIdentity(
    deviceClass: .scsi, instance: GUID(), channel: 1, confidentiality: .hostVisible,
    transport: "heap")
  let outgoing = HeapRingMemory(dataByteCount: 65536)
  let incoming = HeapRingMemory(dataByteCount: 65536)
  let state = ChannelState()
  let doorbell: EventDescriptor

  init() throws { doorbell = try EventDescriptor() }

  var properties: [DeviceProperty] { [] }

  func openChannel(
    _ parameters: ChannelParameters, worker: Worker
  ) async throws(TransportError) -> RawChannel {
    unsafe RawChannel(
      confidentiality: .hostVisible, outgoing: outgoing.end(), incoming: incoming.end(),
      doorbell: .event(descriptor: doorbell.rawValue), state: state)
  }

  func allocate(_ memory: MemoryVisibility, byteCount: Int) throws(TransportError) -> DMAPages {
    let pages = HeapPages(byteCount: byteCount)
    return unsafe DMAPages(
      start: pages.start, byteCount: byteCount, pageNumbers: pages.numbers, isScrubbed: true,
      owner: pages)
  }

  func ended() async -> ChannelEnd { .closed }
  func close() async {}
}

@safe
private final class HeapPages: @unchecked Sendable {
  let start: UnsafeMutableRawPointer
  let numbers: UnsafeMutablePointer<GPN>

  init(byteCount: Int) {
    unsafe start = .allocate(byteCount: byteCount, alignment: 4096)
    unsafe start.initializeMemory(as: UInt8.self, repeating: 0, count: byteCount)
    unsafe numbers = .allocate(capacity: byteCount / 4096)
    for page in 0..<byteCount / 4096 {
      unsafe numbers[page] = UInt64(UInt(bitPattern: start)) >> 12 + UInt64(page)
    }
  }

  deinit {
    unsafe start.deallocate()
    unsafe numbers.deallocate()
  }
}

/// A host that accepts everything: a disk of 1 GiB that forgets what is written.
struct HeapHost: ~Copyable {
  private var consumer: RingConsumer<BorrowedRingMemory>
  private var producer: RingProducer<BorrowedRingMemory>
  private var buffer = PacketBuffer(capacity: 8192)
  private let transport: HeapTransport

  init(_ transport: HeapTransport) throws {
    let consumer = try unsafe RingConsumer(transport.outgoing.end())
    let producer = try unsafe RingProducer(transport.incoming.end())
    self.consumer = consumer
    self.producer = producer
    self.transport = transport
  }

  /// Answers what waits.
  mutating func serve() throws {
    while let packet = try consumer.receive(into: &buffer) {
      var reply = InlineArray<64, UInt8>(repeating: 0)
      reply[0] = 1
      reply[14] = 1
      let operation = byte(packet, 0)
      if operation == 10 { reply[26] = 4 }
      if operation == 3 {
        // All that was asked for was moved.
        for index in 24..<28 { reply[index] = byte(packet, index) }
        describe(packet, command: byte(packet, 28))
      }
      let bytes = reply.span
      try producer.write(
        .completion, transactionID: packet.transactionID, payload: unsafe bytes.bytes)
    }
    _ = consumer.commit()
    _ = producer.commit()
  }

  private func byte(_ packet: Packet, _ offset: Int) -> UInt8 {
    let payload = buffer.payload(of: packet)
    return offset < payload.byteCount
      ? unsafe payload.unsafeLoad(fromByteOffset: offset, as: UInt8.self) : 0
  }

  /// The answer to READ CAPACITY(16); zeros do for the other questions.
  private func describe(_ packet: Packet, command: UInt8) {
    let ranges = buffer.ranges(of: packet)
    guard command == 0x9E, ranges.byteCount >= 24 else { return }
    let page = unsafe ranges.unsafeLoadUnaligned(fromByteOffset: 16, as: UInt64.self)
    // Safe: the page numbers of this device are addresses of this process.
    guard let memory = unsafe UnsafeMutableRawPointer(bitPattern: UInt(page << 12)) else { return }
    unsafe memory.storeBytes(of: UInt64(1 << 21 - 1).bigEndian, as: UInt64.self)
    unsafe memory.storeBytes(of: UInt32(512).bigEndian, toByteOffset: 8, as: UInt32.self)
  }
}
