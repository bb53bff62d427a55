// SPDX-License-Identifier: Apache-2.0

import Platform
import StorageProtocol
import TestSupport
import Testing

@testable import StorageVSC
@testable import VMBus
@testable import VSC

/// A queue and its host, both in this thread.
struct Bed: ~Copyable {
  typealias Queue = StorageQueue<HostVisible, HostVisible>

  static let blocks: UInt64 = 1 << 33
  var queue: Queue
  var pool: DMAPool<HostVisible>
  var host: ScriptedHost
  let transport: ScriptedTransport

  init(ringByteCount: Int = 64 * 1024, depth: Int = 8) async throws {
    let transport = try ScriptedTransport(ringByteCount: ringByteCount)
    let worker = try Worker(Worker.Configuration(name: "test", spinRounds: 0))
    let device = Device(transport, workers: [worker])
    var pool: DMAPool<HostVisible> = try device.makePool(count: 16, byteCount: 65536)
    let answer = try unwrap(pool.take())
    let opened = try await device.open(ChannelParameters(), on: worker)
    let channel = try opened.plain()
    let host = try ScriptedHost(transport)
    queue = Queue(channel, Queue.Configuration(depth: depth), answer: answer)
    self.pool = pool
    self.host = host
    self.transport = transport
    worker.stop()
  }

  /// Plays the host until the disk is ready or the queue has failed.
  mutating func start(
    answer: (SentPacket) -> [UInt8]? = { _ in nil }
  ) throws {
    for _ in 0..<40 where queue.disk == nil && queue.failure == nil {
      expectNone(queue.next())
      while let packet = try host.receive() {
        if let special = answer(packet) {
          try host.send(special, id: packet.id)
          continue
        }
        switch packet.payload[0] {
        case 10: try host.send(propertiesReply(), id: packet.id)
        case 3:
          let bytes = try #require(identify(packet.command, blocks: Bed.blocks))
          let memory = unsafe packet.memory
          let count = min(bytes.count, memory.count)
          unsafe memory.copyBytes(from: bytes.prefix(count))
          try host.send(reply(moved: count), id: packet.id)
        default: try host.send(reply(), id: packet.id)
        }
      }
    }
  }

  /// Sends one read of a block and returns what the host sees.
  mutating func sendRead(tag: UInt64 = 7, block: UInt64 = 0, count: Int = 1) throws -> SentPacket {
    var buffer = pool.take()
    try queue.read(at: block, blockCount: count, into: &buffer, tag: tag)
    expectNone(buffer)
    queue.publish()
    return try #require(try host.receive())
  }
}

extension OpenedChannel {
  consuming func plain() throws -> Channel<HostVisible, HostVisible> {
    switch consume self {
    case .hostVisible(let channel): return channel
    case .encrypted: throw NoValue()
    case .encryptedRing: throw NoValue()
    }
  }
}

@Suite struct StorageQueueTests {
  @Test func startsUpAndTellsWhatTheDiskIs() async throws {
    var bed = try await Bed()
    try bed.start()
    let disk = try unwrap(bed.queue.disk)
    #expect(disk.vendor == "Msft" && disk.product == "Virtual Disk" && disk.serial == "S123")
    #expect(disk.geometry.blockByteCount == 512 && disk.geometry.blockCount == Bed.blocks)
    #expect(disk.geometry.maximumTransferByteCount == 256 * 1024)
    #expect(!disk.isReadOnly && disk.supportsForcedWrites && disk.version == .windows10)
  }

  @Test func startUpPacketsAreInBandWith64Bytes() async throws {
    var bed = try await Bed()
    expectNone(bed.queue.next())
    let packet = try #require(try bed.host.receive())
    #expect(packet.type == .inBand && packet.completionRequested && packet.id != 0)
    #expect(packet.payload == [7, 0, 0, 0, 1] + [UInt8](repeating: 0, count: 59))
  }

  @Test func aHostThatRefusesEndsTheStartUp() async throws {
    var bed = try await Bed()
    try bed.start { $0.payload[0] == 8 ? reply(status: 0xC000_0001) : nil }
    #expect(bed.queue.failure == .refused(.refused(.endInitialization, .unsuccessful)))
    var buffer = bed.pool.take()
    #expect(throws: StorageError.notReady) {
      try bed.queue.read(at: 0, blockCount: 1, into: &buffer, tag: 0)
    }
    expectSome(buffer)
  }

  @Test func aUnitThatIsNotThereIsReported() async throws {
    var bed = try await Bed()
    try bed.start { $0.payload[0] == 3 ? reply(status: 0xC000_00C0, srb: 0x20) : nil }
    #expect(bed.queue.failure == .noDisk(lun: 0))
  }

  @Test func aResetDuringTheStartUpIsPassedOver() async throws {
    var bed = try await Bed()
    var attentions = 0
    try bed.start { packet in
      guard packet.payload[0] == 3, attentions < 2 else { return nil }
      attentions += 1
      return reply(
        srb: 0x84, scsi: 2, sense: [0x70, 0, 6, 0, 0, 0, 0, 10, 0, 0, 0, 0, 0x29, 0])
    }
    #expect(bed.queue.disk != nil && attentions == 2)
  }

  @Test(
    arguments: [UInt64.max, 1 << 62, 0] as [UInt64],
    [[0, 0, 0, 0], [0, 0, 2, 1], [0, 1, 0, 0]] as [[UInt8]])
  func geometriesThatLieAreRefused(last: UInt64, size: [UInt8]) async throws {
    var bed = try await Bed()
    try bed.start { packet in
      guard packet.payload[0] == 3, packet.command[0] == 0x9E else { return nil }
      let bytes = (0..<8).map { UInt8(truncatingIfNeeded: last >> (56 - 8 * $0)) } + size
      unsafe packet.memory.copyBytes(from: bytes)
      return reply(moved: 32)
    }
    guard case .unusableGeometry = bed.queue.failure else {
      Issue.record("accepted: \(String(describing: bed.queue.failure))")
      return
    }
  }

  @Test func aReadIsTheseBytes() async throws {
    var bed = try await Bed()
    try bed.start()
    let packet = try bed.sendRead(block: 0x1_0203_0405, count: 16)
    #expect(packet.type == .gpaDirect && packet.completionRequested)
    // EXECUTE_SRB with a completion; 52 bytes of request at 12.
    var expected: [UInt8] = [3, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0]
    expected += [52, 0, 0, 0, 0, 0, 0, 0, 16, 20, 1, 0]
    expected += [0, 0x20, 0, 0]
    expected += [0x88, 0, 0, 0, 0, 1, 2, 3, 4, 5, 0, 0, 0, 16, 0, 0] + [0, 0, 0, 0]
    expected += [0, 0, 0xFF, 0x20, 0x4A, 1, 0, 0, 20, 0, 0, 0, 0, 0, 0, 0]
    #expect(packet.payload == expected)
    // One range of 8192 bytes from a page's start on, over two pages.
    #expect(packet.ranges.count == 8 + 8 + 16)
    #expect(Array(packet.ranges[4..<16]) == [1, 0, 0, 0, 0, 0x20, 0, 0, 0, 0, 0, 0])
  }

  @Test func aWriteAndAFlushSayWhatTheyAre() async throws {
    var bed = try await Bed()
    try bed.start()
    var buffer = bed.pool.take()
    try bed.queue.write(at: 3, blockCount: 1, from: &buffer, tag: 1, forced: true)
    try bed.queue.flush(tag: 2)
    bed.queue.publish()
    let write = try #require(try bed.host.receive())
    #expect(write.command[0] == 0x8A && write.command[1] == 8 && write.payload[22] == 0)
    #expect(write.payload[52] == 0x8A && write.payload[53] == 1)
    let flush = try #require(try bed.host.receive())
    #expect(flush.type == .inBand && flush.command[0] == 0x35 && flush.payload[22] == 2)
  }

  @Test func theBufferComesBackWithTheBytes() async throws {
    var bed = try await Bed()
    try bed.start()
    let packet = try bed.sendRead()
    unsafe packet.memory.copyBytes(from: [1, 2, 3, 4])
    try bed.host.send(reply(moved: 512), id: packet.id)
    var completion = try unwrap(bed.queue.next())
    #expect(completion.tag == 7 && completion.result == .success(512))
    let buffer = try unwrap(completion.buffer.take())
    let bytes = array(buffer.bytes.extracting(first: 4))
    #expect(bytes == [1, 2, 3, 4])
  }

  @Test func aBadAnswerIsAnErrorOfThatRequest() async throws {
    let cases: [([UInt8], StorageError)] = [
      (
        [1, 0, 0, 0],
        .malformed(.tooShort("storage completion", needed: 64, found: 8))
      ),
      ([3] + [UInt8](repeating: 0, count: 63), .unexpectedOperation(.executeSRB)),
      (reply(srb: 0x06), .failed(.invalidRequest, .good, nil)),
      (
        reply(srb: 0x84, scsi: 2, sense: [0x70, 0, 3, 0, 0, 0, 0, 10, 0, 0, 0, 0, 0x11, 0]),
        .failed(SRBStatus(rawValue: 0x84), .checkCondition, .unrecoveredRead)
      ),
      (reply(scsi: 8), .failed(.success, .busy, nil)),
    ]
    var bed = try await Bed()
    try bed.start()
    for (bytes, error) in cases {
      let packet = try bed.sendRead()
      try bed.host.send(bytes, id: packet.id)
      let completion = try unwrap(bed.queue.next())
      #expect(completion.result == .failure(error))
      expectSome(completion.buffer)
    }
    #expect(bed.queue.counters.malformed == 2)
  }

  @Test func aLengthThatLiesIsCutToWhatWasAsked() async throws {
    var bed = try await Bed()
    try bed.start()
    let packet = try bed.sendRead()
    try bed.host.send(reply(moved: 0xFFFF_FFFF), id: packet.id)
    let completion = try unwrap(bed.queue.next())
    #expect(completion.result == .success(512))
  }

  @Test func idsThatNameNoRequestAreCountedAndDropped() async throws {
    var bed = try await Bed()
    try bed.start()
    let packet = try bed.sendRead()
    try bed.host.send(reply(moved: 512), id: packet.id)
    let real = bed.queue.next()
    expectSome(real)
    // Repeated, stale, invented, of no slot, of start-up packets.
    for id in [packet.id, packet.id &- 1 << 32, packet.id &+ 1 << 32, 0, .max, 0xFFFF_FFFF] {
      try bed.host.send(reply(moved: 512), id: id)
    }
    expectNone(bed.queue.next())
    #expect(bed.queue.counters.unknownCompletions == 6)
    #expect(bed.queue.failure == nil)
  }

  @Test func whatComesUnaskedIsAnEventOrCounted() async throws {
    var bed = try await Bed()
    try bed.start()
    try bed.host.send([11, 0, 0, 0], id: 0, type: .inBand)
    try bed.host.send([2] + [UInt8](repeating: 0, count: 63), id: 0, type: .inBand)
    try bed.host.send(reply(), id: 0, type: .inBand)
    try bed.host.send([11, 0, 0, 0], id: 5, type: .inBand)
    try bed.host.send([], id: 0, type: .inBand)
    expectNone(bed.queue.next())
    #expect(bed.queue.takeEvents() == [.unitsChanged, .removed])
    #expect(bed.queue.takeEvents() == [])
    #expect(bed.queue.counters.malformed == 3)
  }

  @Test func aLateRequestIsReportedOnceAndItsMemoryStays() async throws {
    var bed = try await Bed()
    try bed.start()
    let before = bed.pool.available
    let packet = try bed.sendRead()
    let early = bed.queue.nextExpired(now: bed.queue.nextDeadline - 1)
    expectNone(early)
    let late = try unwrap(bed.queue.nextExpired(now: bed.queue.nextDeadline))
    #expect(late.tag == 7 && late.result == .failure(.timedOut))
    expectNone(late.buffer)
    expectNone(bed.queue.nextExpired(now: .max))
    #expect(bed.queue.nextDeadline == .max && bed.queue.abandoned == 1)
    #expect(bed.pool.available == before - 1)
    // Its completion comes at last: nobody hears of it, and the memory is free, and zero.
    unsafe packet.memory.copyBytes(from: [9, 9])
    try bed.host.send(reply(moved: 512), id: packet.id)
    expectNone(bed.queue.next())
    #expect(bed.pool.available == before && bed.queue.count == 0)
    let zero = unsafe packet.memory.allSatisfy { $0 == 0 }
    #expect(zero)
  }

  @Test func limitsAreKept() async throws {
    var bed = try await Bed(depth: 2)
    try bed.start()
    var buffer = bed.pool.take()
    #expect(throws: StorageError.badLength(0)) {
      try bed.queue.read(at: 0, blockCount: 0, into: &buffer, tag: 0)
    }
    #expect(throws: StorageError.badLength(513)) {
      try bed.queue.read(at: 0, blockCount: 513, into: &buffer, tag: 0)
    }
    // Larger than the buffer.
    #expect(throws: StorageError.self) {
      try bed.queue.read(at: 0, blockCount: 512, into: &buffer, tag: 0)
    }
    for (block, count) in [(Bed.blocks, 1), (Bed.blocks - 1, 2), (UInt64.max, 1)] {
      #expect(throws: StorageError.self) {
        try bed.queue.read(at: block, blockCount: count, into: &buffer, tag: 0)
      }
    }
    expectSome(buffer)
    _ = try bed.sendRead()
    _ = try bed.sendRead()
    #expect(throws: StorageError.wouldBlock) {
      try bed.queue.read(at: 0, blockCount: 1, into: &buffer, tag: 0)
    }
    expectSome(buffer)
    #expect(bed.queue.count == 2)
  }

  @Test func aFullRingPushesBackAndAsksForSpace() async throws {
    var bed = try await Bed(ringByteCount: 4096, depth: 100)
    try bed.start()
    var sent = 0
    do {
      while true {
        try bed.queue.flush(tag: UInt64(sent))
        sent += 1
      }
    } catch {
      #expect(error == .wouldBlock)
    }
    // 88 bytes each, 8 always free.
    #expect(sent == (4096 - 8) / 88)
    let hasWork = bed.queue.arm()
    #expect(!hasWork && bed.queue.snapshot.outgoing.pendingSendSize == 88)
    let asked = bed.queue.arm()
    #expect(!asked && bed.queue.snapshot.outgoing.pendingSendSize == 88)
    _ = try bed.host.receive()
    let hasRoom = bed.queue.arm()
    #expect(hasRoom, "the room that it waits for is there")
    try bed.queue.flush(tag: 0)
    bed.queue.disarm()
    #expect(bed.queue.snapshot.outgoing.pendingSendSize == 0)
  }

  @Test(arguments: [ChannelEnd.hostGone, .rescinded])
  func theEndFailsEachRequestOnce(_ reason: ChannelEnd) async throws {
    var bed = try await Bed()
    try bed.start()
    let free = bed.pool.available
    let done = try bed.sendRead(tag: 1)
    _ = try bed.sendRead(tag: 2)
    _ = try bed.sendRead(tag: 3)
    // What the host published before its end still counts.
    try bed.host.send(reply(moved: 512), id: done.id)
    bed.transport.end(reason)
    var results: [UInt64: Result<Int, StorageError>] = [:]
    while let completion = bed.queue.next() {
      #expect(results[completion.tag] == nil)
      results[completion.tag] = completion.result
    }
    let error = StorageError.channel(.ended(reason))
    #expect(results == [1: .success(512), 2: .failure(error), 3: .failure(error)])
    #expect(bed.queue.failure == error)
    // The device may still write there.
    #expect(bed.pool.available == free - 2)
  }

  @Test func aCorruptRingEndsTheChannel() async throws {
    var bed = try await Bed()
    try bed.start()
    _ = try bed.sendRead(tag: 4)
    unsafe bed.transport.incoming.bytes.storeBytes(of: 0xFFFF_FFF0, as: UInt32.self)
    let completion = try unwrap(bed.queue.next())
    #expect(completion.tag == 4)
    expectNone(bed.queue.next())
    #expect(bed.queue.counters.corrupt == 1 && bed.transport.state.ended == .corrupt)
  }

  @Test func aSilentHostEndsTheStartUp() async throws {
    var bed = try await Bed()
    expectNone(bed.queue.next())
    expectNone(bed.queue.nextExpired(now: .max))
    #expect(bed.queue.failure == .timedOut)
  }
}
