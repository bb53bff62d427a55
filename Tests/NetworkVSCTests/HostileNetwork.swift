// SPDX-License-Identifier: Apache-2.0

import NetworkProtocol
import Platform

@testable import NetworkVSC
@testable import VMBus
@testable import VSC

/// The bytes that a hostile host is made of. What is missing at the end is zero.
struct HostileBytes {
  private let bytes: [UInt8]
  private var position = 0

  init(_ bytes: [UInt8]) { self.bytes = bytes }

  var isEmpty: Bool { position >= bytes.count }

  mutating func next() -> UInt8 {
    defer { position += 1 }
    return position < bytes.count ? bytes[position] : 0
  }

  mutating func word() -> UInt32 { (0..<4).reduce(0) { value, _ in value << 8 | UInt32(next()) } }

  /// A number that is often near one that matters.
  mutating func number(_ interesting: UInt32) -> UInt32 {
    switch next() & 3 {
    case 0: word()
    case 1: interesting &+ UInt32(next() & 15) &- 8
    default: interesting
    }
  }
}

/// A queue against a host that is made of bytes: what must hold whatever they are. A failure ends the
/// process, so that a fuzzer sees it.
///
/// - Returns: packets of the host.
func driveHostileNetwork(_ input: [UInt8], _ worker: Worker) -> Int {
  var bytes = HostileBytes(input)
  do {
    var run = try HostileNetworkRun(settings: bytes.next(), worker)
    while !bytes.isEmpty, !run.isOver { try run.step(&bytes) }
    return try run.finish()
  } catch {
    fatalError("the rings of a test are refused: \(error)")
  }
}

struct HostileNetworkRun: ~Copyable {
  private var bed: NetworkBed
  private var burst = ReceiveBurst(capacity: 8)
  private var held = ReceiveBurst(capacity: 512)
  /// Messages of the guest that the host has not completed.
  private var open: [UInt64] = []
  /// Packets with ranges that the host has sent: their ids count up.
  private var nextID: UInt64 = 1
  private var completed: Set<UInt64> = []
  private var sent = 0
  /// Where the host puts its next message.
  private var offset = 0

  static var configuration: NetworkConfiguration {
    var configuration = NetworkConfiguration()
    configuration.receiveBufferByteCount = 64 * 1024
    configuration.sendBufferByteCount = 32 * 1024
    configuration.frameBuffers = 4
    configuration.frameBufferByteCount = 16 * 1024
    return configuration
  }

  init(settings: UInt8, _ worker: Worker) throws {
    let queues = settings & 1 == 0 ? 1 : 4
    var bed = try NetworkBed(
      Self.configuration, ringByteCount: 8192, queueCount: queues, isIsolated: settings & 8 != 0,
      worker: worker)
    bed.script.queueCount = queues
    if settings & 0x10 != 0 { bed.script.newestVersion = 0x50000 }
    if settings & 0x20 != 0 { bed.script.completions[104] = .words(105, 2, 0) }
    // An honest start-up, in three of four inputs.
    if settings & 6 != 0 { try bed.ready() }
    self.bed = bed
  }

  var isOver: Bool { bed.queue.failure != nil }

  mutating func step(_ bytes: inout HostileBytes) throws {
    let operation = bytes.next()
    switch operation & 15 {
    case 0...3: try sendRanges(&bytes)
    case 4: try completeSome(&bytes)
    case 5: try put([], bytes.word(), &bytes)
    case 6: try put(.words(bytes.number(134), bytes.number(16), bytes.number(12)), 0, &bytes)
    case 7, 8: sendFrame(&bytes)
    case 9: drop(held.popFirst())
    case 10: while let packet = held.popFirst() { drop(packet) }
    case 11: bed.queue.expire(now: bytes.next() == 7 ? .max : MonotonicClock.now())
    case 12: ask(&bytes)
    case 13: _ = bed.queue.arm() ? () : bed.queue.disarm()
    default: try bed.answer()
    }
    try pump()
  }

  // MARK: - The host

  private mutating func put(_ start: [UInt8], _ id: UInt32, _ bytes: inout HostileBytes) throws {
    guard try bed.producer.free() > 1024 else { return }
    let payload = start + (0..<Int(bytes.next() & 63)).map { _ in bytes.next() }
    let type: PacketType = bytes.next() & 1 == 0 ? .inBand : .completion
    try bed.put(payload, id: UInt64(id) << 32 | UInt64(bytes.next()), type: type)
    sent += 1
  }

  private mutating func completeSome(_ bytes: inout HostileBytes) throws {
    guard try bed.producer.free() > 256, !open.isEmpty else { return }
    let index = Int(bytes.next()) % open.count
    let id = bytes.next() & 15 == 0 ? UInt64(bytes.word()) << 16 : open[index]
    // Sometimes it stays in the list, and is completed once more.
    if bytes.next() & 7 != 0 { open.remove(at: index) }
    try bed.put(.words(bytes.number(108), bytes.number(1)), id: id)
    sent += 1
  }

  /// A packet with ranges that hold frames, parts of frames or control messages, with wrong numbers.
  private mutating func sendRanges(_ bytes: inout HostileBytes) throws {
    guard try bed.producer.free() > 1024 else { return }
    var ranges: [(count: UInt32, offset: UInt32)] = []
    for _ in 0...Int(bytes.next() & 7) {
      let message = self.message(&bytes)
      if offset + message.count > bed.receiveBuffer.byteCount { offset = 0 }
      bed.receiveBuffer.write(message, at: offset)
      ranges.append((bytes.number(UInt32(message.count)), bytes.number(UInt32(offset))))
      offset += message.count
    }
    try bed.put(
      ranges: ranges, id: nextID, set: bytes.next() & 15 == 0 ? 1 : 0xCAFE,
      count: bytes.number(UInt32(ranges.count)), type: bytes.number(107))
    nextID += 1
    sent += 1
  }

  private func message(_ bytes: inout HostileBytes) -> [UInt8] {
    let count = UInt32(bytes.next())
    var info: [UInt8] = []
    switch bytes.next() & 7 {
    case 0: info = element(bytes.number(0x8000_0001), bytes.number(0x301))
    case 1: info = element(0x8000_0001, bytes.number(0x101)) + element(bytes.number(0), 1)
    case 2: info = .words(bytes.number(16), bytes.number(6), bytes.number(12), 1)
    case 3: info = element(0x8000_0001, 0x501)
    default: break
    }
    switch bytes.next() & 7 {
    case 0:
      return .words(
        7, bytes.number(24), bytes.number(0x4001_0013), bytes.number(4), bytes.number(12), 1)
    case 1: return .words(8, bytes.number(12), bytes.word())
    case 2:
      return .words(
        bytes.number(0x8000_0005), bytes.number(16), bytes.number(0x1000_0000), bytes.number(0))
    default:
      let data = 36 + UInt32(info.count)
      let header: [UInt8] = .words(
        bytes.number(1), bytes.number(8 + data + count), bytes.number(data), bytes.number(count),
        0, 0, 0, bytes.number(36), bytes.number(UInt32(info.count)), 0, 0)
      return header + info + [UInt8](repeating: 0xAB, count: Int(count))
    }
  }

  // MARK: - The guest

  private mutating func sendFrame(_ bytes: inout HostileBytes) {
    let frame = [UInt8](repeating: 0xCD, count: Int(bytes.number(1514) % 16384))
    var info = PerPacketInfo()
    if bytes.next() & 3 == 0 { info.checksum = ChecksumInfo(rawValue: bytes.word()) }
    if bytes.next() & 3 == 0 { info.largeSend = LargeSendInfo(rawValue: bytes.word()) }
    do throws(NetworkError) {
      try unsafe bed.queue.send(frame.span.bytes, info)
    } catch {
      if "\(error)".isEmpty { fatalError("an error without a text") }
    }
  }

  private mutating func ask(_ bytes: inout HostileBytes) {
    switch bytes.next() & 3 {
    case 0: bed.mailbox.put(.set(.currentPacketFilter, [1, 0, 0, 0], Promise()))
    case 1: bed.mailbox.put(.switchDataPath(.virtualFunction, Promise()))
    case 2: bed.mailbox.put(.opened(queueCount: Int(bytes.next() & 3) + 1))
    default: bed.mailbox.put(.statistics(Promise()))
    }
  }

  private mutating func pump() throws {
    for _ in 0..<64 {
      guard bed.queue.receive(into: &burst) > 0 else { break }
      while let packet = burst.popFirst() {
        look(packet)
        if held.isFull { drop(held.popFirst()) }
        held.append(packet)
      }
    }
    bed.queue.publish()
    try collect()
  }

  /// All of a frame can be read.
  private func look(_ packet: borrowing ReceivedPacket) {
    var (count, segments, sum) = (0, 0, UInt8(0))
    packet.forEachSegment { segment in
      count += segment.byteCount
      segments += 1
      for index in 0..<segment.byteCount {
        sum ^= unsafe segment.unsafeLoad(fromByteOffset: index, as: UInt8.self)
      }
    }
    if count != packet.byteCount || segments != packet.segmentCount || count == 0 {
      fatalError("a frame of other bytes than it has")
    }
  }

  private mutating func collect() throws {
    for packet in try bed.takeAll() {
      if packet.type == .completion {
        // The test's own start-up uses ids from 0x1000 on.
        guard packet.id < 0x1000, packet.payload.count == 8 else { continue }
        if !completed.insert(packet.id).inserted { fatalError("completed twice") }
        if packet.id >= nextID { fatalError("completed what was not sent") }
      } else if packet.completionRequested, open.count < 256 {
        open.append(packet.id)
      }
    }
    bed.log.removeAll(keepingCapacity: true)
  }

  // MARK: - The end

  /// Nothing is lost: each packet of the host was completed, and each section is free or the host's.
  consuming func finish() throws -> Int {
    while let packet = held.popFirst() { drop(packet) }
    let isOver = self.isOver
    for _ in 0..<8 where !isOver { try pump() }
    while let packet = held.popFirst() { drop(packet) }
    for _ in 0..<8 where !isOver { try pump() }
    while let packet = held.popFirst() { drop(packet) }
    try pump()
    if !self.isOver {
      let statistics = bed.queue.statistics
      if statistics.buffersOut != 0 || statistics.completionsPending != 0 {
        fatalError("packets of the host are lost")
      }
      if nextID < 0x1000, completed.count != Int(nextID) - 1 { fatalError("not all are completed") }
      var free = 0
      var segment = unsafe bed.queue.core.pointee.freeSegment
      while segment != ReceiveCore.none, free <= 4096 {
        free += 1
        unsafe segment = bed.queue.core.pointee.segments[Int(segment)].next
      }
      if free != 4096 { fatalError("segments are lost") }
      let used = bed.queue.sections.count - bed.queue.sections.freeCount
      let filling = bed.queue.sections.current == nil ? 0 : 1
      if used - filling > statistics.sendsUnderWay { fatalError("sections are lost") }
    }
    return sent
  }
}
