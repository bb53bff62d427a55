// SPDX-License-Identifier: Apache-2.0

import Glibc
import Platform
import StorageProtocol
import Synchronization

@testable import StorageVSC
@testable import VMBus
@testable import VSC

/// Memory between pages that nobody may touch: one byte too far ends the process, whichever
/// instruction does it.
@safe
final class GuardedMemory: @unchecked Sendable {
  let start: UnsafeMutableRawPointer
  let byteCount: Int

  /// - Parameter byteCount: a multiple of 4096.
  init(byteCount: Int) {
    guard
      let all = unsafe mmap(
        nil, byteCount + 8192, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0),
      unsafe all != MAP_FAILED,
      unsafe mprotect(all + 4096, byteCount, PROT_READ | PROT_WRITE) == 0
    else { fatalError("no memory for a test") }
    unsafe start = all + 4096
    self.byteCount = byteCount
  }

  deinit { unsafe munmap(start - 4096, byteCount + 8192) }

  func clear() { unsafe memset(start, 0, byteCount) }
}

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

  mutating func take(_ count: Int) -> [UInt8] { (0..<count).map { _ in next() } }

  mutating func word() -> UInt64 { take(8).reduce(0) { $0 << 8 | UInt64($1) } }
}

/// The memory of one driver and its hostile StorVSP: made once, used for many inputs.
@safe
final class HostileMemory {
  static let ringByteCount = 16384
  static let bufferByteCount = 8192
  static let bufferCount = 9
  let outgoing = GuardedMemory(byteCount: 4096 + ringByteCount)
  let incoming = GuardedMemory(byteCount: 4096 + ringByteCount)
  let data = GuardedMemory(byteCount: bufferByteCount * bufferCount)
  private let numbers: UnsafeMutablePointer<GPN>

  init() {
    let count = data.byteCount / 4096
    unsafe numbers = .allocate(capacity: count)
    for page in 0..<count { unsafe (numbers + page).initialize(to: UInt64(page) + 0x1000) }
  }

  deinit { unsafe numbers.deallocate() }

  var pages: DMAPages {
    unsafe DMAPages(
      start: data.start, byteCount: data.byteCount, pageNumbers: numbers, isScrubbed: true,
      owner: data)
  }

  func ring(_ memory: GuardedMemory) -> BorrowedRingMemory {
    unsafe BorrowedRingMemory(start: memory.start, byteCount: memory.byteCount)
  }

  func clear() {
    outgoing.clear()
    incoming.clear()
    data.clear()
  }
}

/// The host's end: it sends whatever the bytes say.
struct HostileHost: ~Copyable {
  private var consumer: RingConsumer<BorrowedRingMemory>
  private var producer: RingProducer<BorrowedRingMemory>
  private var buffer = PacketBuffer(capacity: 8192)
  private let memory: HostileMemory
  /// Ids that the driver used, the latest last.
  private var ids: [UInt64] = []
  /// The latest payload: what a start-up is answered by.
  private var last: [UInt8] = []
  private(set) var sent = 0
  private(set) var isCorrupt = false

  init(_ memory: HostileMemory) throws(RingError) {
    let consumer = try RingConsumer(memory.ring(memory.outgoing))
    let producer = try RingProducer(memory.ring(memory.incoming))
    self.consumer = consumer
    self.producer = producer
    self.memory = memory
  }

  /// Reads what the driver sent.
  mutating func receive() {
    while !isCorrupt, let packet = try? consumer.receive(into: &buffer) {
      ids.append(packet.transactionID)
      if ids.count > 24 { ids.removeFirst() }
      last = unsafe buffer.payload(of: packet).withUnsafeBytes { unsafe [UInt8]($0) }
    }
    _ = consumer.commit()
  }

  /// An honest answer to the latest packet.
  mutating func answerStartUp() {
    guard last.count >= 44, let id = ids.last else { return }
    var reply = Self.success
    var answer: [UInt8] = []
    switch (last[0], last[28]) {
    case (10, _): (reply[24], reply[26], reply[16], reply[20]) = (0, 4, 3, 1)
    case (3, 0x12): answer = [0, 0, 6, 2, 31, 0, 0, 2] + [UInt8](repeating: 0x41, count: 28)
    case (3, 0x9E):
      answer = [0, 0, 0, 0, 0, 0, 0xFF, 0xFF, 0, 0, 2, 0] + [UInt8](repeating: 0, count: 20)
    case (3, 0x1A): answer = [3, 0, 0x10, 0]
    default: break
    }
    if !answer.isEmpty {
      reply[24] = UInt8(answer.count)
      // The start-up has all buffers to itself, so that any of them is the right one.
      for buffer in 0..<HostileMemory.bufferCount {
        let start = buffer * HostileMemory.bufferByteCount
        for (index, byte) in answer.enumerated() {
          unsafe memory.data.start.storeBytes(of: byte, toByteOffset: start + index, as: UInt8.self)
        }
      }
    }
    last = []
    write(reply, id, .completion)
  }

  private static let success: [UInt8] = {
    var reply = [UInt8](repeating: 0, count: 64)
    (reply[0], reply[12], reply[14], reply[25]) = (1, 52, 1, 2)
    return reply
  }()

  private mutating func write(_ bytes: [UInt8], _ id: UInt64, _ type: PacketType) {
    guard !isCorrupt else { return }
    guard (try? producer.write(type, transactionID: id, payload: unsafe bytes.span.bytes)) != nil
    else { return }
    sent += 1
    _ = producer.commit()
  }

  /// Does what the next bytes say.
  mutating func act(_ bytes: inout HostileBytes) {
    let operation = bytes.next()
    let known = ids.isEmpty ? 0 : ids[Int(bytes.next()) % ids.count]
    switch operation % 10 {
    case 0: write(bytes.take(Int(bytes.next()) % 96), known, .completion)
    case 1: write(bytes.take(Int(bytes.next()) % 96), bytes.word(), .completion)
    case 2, 3:
      // An answer that is right but for some bytes.
      var reply = Self.success
      for _ in 0..<(operation >> 4) % 4 { reply[Int(bytes.next()) % 64] = bytes.next() }
      write(reply, known, .completion)
    case 4:
      // CHECK CONDITION with any sense data.
      var reply = Self.success
      (reply[14], reply[15], reply[28], reply[35]) = (0x84, 2, 0x70, 10)
      (reply[30], reply[40], reply[41]) = (bytes.next() & 0xF, bytes.next(), bytes.next())
      write(reply, known, .completion)
    case 5: write([bytes.next() % 16, 0, 0, 0] + bytes.take(Int(bytes.next()) % 80), 0, .inBand)
    case 6:
      write(
        bytes.take(Int(bytes.next()) % 64), known,
        [.inBand, .completion, .gpaDirect, .transferPages][Int(bytes.next()) % 4])
    case 7:
      // The memory is the host's too: at any time.
      let offset = Int(bytes.word() % UInt64(memory.data.byteCount))
      unsafe memory.data.start.storeBytes(of: bytes.next(), toByteOffset: offset, as: UInt8.self)
    case 8 where operation >= 0xF0:
      // The ring itself, control page and all. Nothing that is sent after it makes sense.
      let offset = Int(bytes.word() % UInt64(operation & 1 == 0 ? 64 : memory.incoming.byteCount))
      unsafe memory.incoming.start.storeBytes(
        of: bytes.next(), toByteOffset: offset, as: UInt8.self)
      isCorrupt = operation & 1 == 0
    default: answerStartUp()
    }
  }
}
