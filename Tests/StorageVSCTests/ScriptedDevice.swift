// SPDX-License-Identifier: Apache-2.0

import Platform
import Synchronization
import Testing

@testable import VMBus
@testable import VSC

/// The rings of a channel, and how its ends wake each other.
final class ScriptedRings: @unchecked Sendable {
  let outgoing: HeapRingMemory
  let incoming: HeapRingMemory
  let state = ChannelState()
  let doorbell: EventDescriptor
  let interrupt: EventDescriptor

  init(ringByteCount: Int) throws {
    outgoing = HeapRingMemory(dataByteCount: ringByteCount)
    incoming = HeapRingMemory(dataByteCount: ringByteCount)
    doorbell = try EventDescriptor()
    interrupt = try EventDescriptor()
  }

  func open(_ worker: Worker, _ confidentiality: Confidentiality) -> RawChannel {
    let descriptor = interrupt.rawValue
    worker.watch(descriptor) { [self] in
      EventDescriptor.drain(descriptor)
      withExtendedLifetime(self) {}
    }
    return unsafe RawChannel(
      confidentiality: confidentiality, outgoing: outgoing.end(), incoming: incoming.end(),
      doorbell: .event(descriptor: doorbell.rawValue), state: state)
  }
}

/// A transport over plain memory, with the host's end in the test's hands.
final class ScriptedTransport: DeviceTransport, @unchecked Sendable {
  let identity = DeviceIdentity(
    deviceClass: .scsi, instance: GUID(), channel: ChannelID(rawValue: 1),
    confidentiality: .hostVisible, transport: "test")
  /// The primary channel, then the subchannels.
  let channels: [ScriptedRings]
  let confidentiality: Confidentiality
  private let allocated = Lock<[HeapPages]>([])

  init(
    ringByteCount: Int = 64 * 1024, confidentiality: Confidentiality = .hostVisible,
    channels: Int = 1
  ) throws {
    self.channels = try (0..<channels).map { _ in
      try ScriptedRings(ringByteCount: ringByteCount)
    }
    self.confidentiality = confidentiality
  }

  var outgoing: HeapRingMemory { channels[0].outgoing }
  var incoming: HeapRingMemory { channels[0].incoming }
  var state: ChannelState { channels[0].state }

  func openChannel(
    _ parameters: ChannelParameters, worker: Worker
  ) async throws(TransportError) -> RawChannel { channels[0].open(worker, confidentiality) }

  func openSubchannel(
    _ index: UInt16, _ parameters: ChannelParameters, worker: Worker
  ) async throws(TransportError) -> RawChannel {
    guard channels.indices.contains(Int(index)) else { throw .timedOut("subchannel offer") }
    return channels[Int(index)].open(worker, confidentiality)
  }

  func allocate(
    _ memory: MemoryVisibility, byteCount: Int
  ) throws(TransportError) -> DMAPages {
    let owner = HeapPages(byteCount: byteCount)
    allocated.withLock { $0.append(owner) }
    return unsafe DMAPages(
      start: owner.start, byteCount: byteCount, pageNumbers: owner.numbers, isScrubbed: true,
      owner: owner)
  }

  /// Bytes of DMA memory that are not zero.
  var usedByteCount: Int {
    allocated.withLock { pages in
      pages.reduce(0) { sum, pages in
        let bytes = unsafe UnsafeRawBufferPointer(start: pages.start, count: pages.byteCount)
        return unsafe sum + bytes.count { $0 != 0 }
      }
    }
  }

  var properties: [DeviceProperty] { [] }

  func ended() async -> ChannelEnd { state.ended ?? .closed }

  func close() async {}

  /// The channel is over, as a transport would tell.
  func end(_ reason: ChannelEnd, channel: Int = 0) {
    channels[channel].state.end(reason)
    channels[channel].interrupt.signal()
  }
}

/// Memory whose "guest page numbers" are addresses in this process.
@safe
final class HeapPages: @unchecked Sendable {
  let byteCount: Int
  let start: UnsafeMutableRawPointer
  let numbers: UnsafeMutablePointer<GPN>

  init(byteCount: Int) {
    self.byteCount = byteCount
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

/// What the guest sent.
struct SentPacket {
  var type: PacketType
  var id: UInt64
  var completionRequested: Bool
  var payload: [UInt8]
  var ranges: [UInt8]

  /// The command's bytes in a storage packet.
  var command: [UInt8] { Array(payload[28..<44]) }
  /// The bytes of guest memory that the packet names.
  var memory: UnsafeMutableRawBufferPointer {
    unsafe ranges.withUnsafeBytes { bytes in
      let count = unsafe Int(bytes.load(fromByteOffset: 8, as: UInt32.self))
      let offset = unsafe UInt(bytes.load(fromByteOffset: 12, as: UInt32.self))
      let page = unsafe bytes.load(fromByteOffset: 16, as: UInt64.self)
      return unsafe UnsafeMutableRawBufferPointer(
        start: UnsafeMutableRawPointer(bitPattern: UInt(page << 12) + offset), count: count)
    }
  }
}

/// The host's end of the rings.
struct ScriptedHost: ~Copyable {
  var consumer: RingConsumer<BorrowedRingMemory>
  var producer: RingProducer<BorrowedRingMemory>
  var buffer = PacketBuffer(capacity: 16384)
  let rings: ScriptedRings

  init(_ transport: ScriptedTransport) throws { try self.init(transport.channels[0]) }

  init(_ rings: ScriptedRings) throws {
    let consumer = try unsafe RingConsumer(rings.outgoing.end())
    let producer = try unsafe RingProducer(rings.incoming.end())
    self.consumer = consumer
    self.producer = producer
    self.rings = rings
  }

  mutating func receive() throws -> SentPacket? {
    guard let packet = try consumer.receive(into: &buffer) else { return nil }
    _ = consumer.commit()
    return SentPacket(
      type: packet.type, id: packet.transactionID,
      completionRequested: packet.completionRequested,
      payload: array(buffer.payload(of: packet)), ranges: array(buffer.ranges(of: packet)))
  }

  mutating func send(_ bytes: [UInt8], id: UInt64, type: PacketType = .completion) throws {
    try producer.write(type, transactionID: id, payload: unsafe bytes.span.bytes)
    if producer.commit() { rings.interrupt.signal() }
  }
}

func array(_ bytes: RawSpan) -> [UInt8] { unsafe bytes.withUnsafeBytes { unsafe [UInt8]($0) } }

/// A COMPLETE_IO packet, by the offsets of the storage protocol.
func reply(
  status: UInt32 = 0, srb: UInt8 = 1, scsi: UInt8 = 0, moved: Int = 0, sense: [UInt8] = []
) -> [UInt8] {
  var bytes = [UInt8](repeating: 0, count: 64)
  bytes[0] = 1
  for index in 0..<4 { bytes[8 + index] = UInt8(truncatingIfNeeded: status >> (8 * index)) }
  bytes[12] = 52
  bytes[14] = srb
  bytes[15] = scsi
  bytes[20] = 16
  bytes[21] = 20
  for index in 0..<4 { bytes[24 + index] = UInt8(truncatingIfNeeded: moved >> (8 * index)) }
  for (index, byte) in sense.enumerated() { bytes[28 + index] = byte }
  return bytes
}

/// QUERY_PROPERTIES' answer: 256 KiB at once.
func propertiesReply(limit: UInt32 = 256 * 1024, subchannels: UInt8 = 0) -> [UInt8] {
  var bytes = [UInt8](repeating: 0, count: 64)
  bytes[0] = 1
  bytes[16] = subchannels
  bytes[20] = subchannels > 0 ? 1 : 0
  for index in 0..<4 { bytes[24 + index] = UInt8(truncatingIfNeeded: limit >> (8 * index)) }
  return bytes
}

/// What the scripted disk answers to the commands of the start-up.
func identify(_ command: [UInt8], blocks: UInt64, readOnly: Bool = false) -> [UInt8]? {
  switch (command[0], command[1] & 1) {
  case (0x12, 0):
    return [0, 0, 6, 2, 31, 0, 0, 2] + Array("Msft    Virtual Disk    1.0 ".utf8)
  case (0x12, 1): return [0, 0x80, 0, 4] + Array("S123".utf8)
  case (0x9E, _):
    let last = blocks - 1
    return (0..<8).map { UInt8(truncatingIfNeeded: last >> (56 - 8 * $0)) }
      + [0, 0, 2, 0] + [UInt8](repeating: 0, count: 20)
  case (0x1A, _): return [3, 0, readOnly ? 0x90 : 0x10, 0]
  default: return nil
  }
}
