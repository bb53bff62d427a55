// SPDX-License-Identifier: Apache-2.0

import NetworkProtocol
import Platform
import Testing

@testable import NetworkVSC
@testable import VMBus
@testable import VSC

/// What a host tells unasked, and what other threads ask for.
@Suite struct NetworkEventTests {
  private let worker: Worker

  init() throws { worker = try Worker(.init(name: "network-test", spinRounds: 0)) }

  private func readyBed(queues: Int = 1, isIsolated: Bool = false) throws -> NetworkBed {
    var bed = try NetworkBed(queueCount: queues, isIsolated: isIsolated, worker: worker)
    bed.script.queueCount = queues
    try bed.ready()
    return bed
  }

  private func indicate(_ status: UInt32, _ buffer: [UInt8] = []) -> [UInt8] {
    .words(7, UInt32(20 + buffer.count), status, UInt32(buffer.count), buffer.isEmpty ? 0 : 12)
      + buffer
  }

  @Test func linkGoesAndComes() throws {
    var bed = try readyBed()
    try bed.put(messages: [indicate(0x4001_000C)], id: 1)
    bed.pump()
    #expect(bed.events.all == [.linkDown] && !bed.life.information.isLinkUp)
    let isUp = bed.queue.isLinkUp
    #expect(!isUp)
    try bed.put(messages: [indicate(0x4001_000C), indicate(0x4001_000B)], id: 2)
    try bed.put(
      messages: [indicate(0x4001_0013, UInt32(400_000_000).wireBytes), indicate(0x4001_0018)], id: 3
    )
    bed.pump()
    #expect(bed.events.all == [.linkDown, .linkUp, .linkSpeed(40_000_000_000), .networkChanged])
    #expect(bed.life.information.isLinkUp && bed.life.information.linkSpeed == 40_000_000_000)
    #expect(try bed.takeAll().map(\.id) == [1, 2, 3])
  }

  @Test func offloadsThatTheHostDoesNoMoreAreNotUsed() throws {
    var bed = try readyBed()
    let agreed = bed.life.information.offloads
    #expect(agreed.ipv4LargeSend == 0xF53C && agreed.ipv4Transmit.contains(.tcp))
    // NDIS_OFFLOAD: IPv4 checksums in what is sent, and nothing else. 0x40020006: TASK_OFFLOAD_CURRENT_CONFIG.
    var less: [UInt8] = [0xA7, 3, 156, 0] + .words(2, 0x155)
    less += [UInt8](repeating: 0, count: 156 - less.count)
    try bed.put(messages: [indicate(0x4002_0006, less)], id: 1)
    bed.pump()
    var current = bed.life.information.offloads
    #expect(bed.events.all == [.offloadsChanged])
    #expect(current.ipv4LargeSend == 0 && current.ipv6LargeSend == 0)
    #expect(current.ipv4Transmit.contains(.tcp) && current.ipv6Transmit.isEmpty)
    #expect(!current.coalescesIPv4)
    let limit = bed.queue.maximumLargeSendIPv4
    #expect(limit == 0)
    var large = PerPacketInfo()
    large.largeSend = LargeSendInfo(segmentByteCount: 1460, tcpHeaderOffset: 34, isIPv6: false)
    #expect(throws: NetworkError.badFrameLength(4000, limit: 0)) {
      try bed.queue.send(unsafe frame(4000).span.bytes, large)
    }
    // The same once more is no change; then all is as it was.
    try bed.put(messages: [indicate(0x4002_0006, less)], id: 2)
    try bed.put(messages: [indicate(0x4002_0006, NetworkScript.offload)], id: 3)
    bed.pump()
    current = bed.life.information.offloads
    #expect(bed.events.all == [.offloadsChanged, .offloadsChanged] && current == agreed)
    let again = bed.queue.maximumLargeSendIPv4
    #expect(again == 0xF53C)
  }

  @Test func badIndicationsAreCounted() throws {
    var bed = try readyBed()
    try bed.put(
      messages: [
        .words(7, 16, 0x4001_000C, 0), .words(7, 24, 0x4001_0013, 4, 11, 1),
        .words(7, 24, 0x4001_0013, 5, 12, 1), .words(7, 24, 0x4001_0013, 3, 12, 1),
        .words(7, 400, 0x4001_000C, 0, 0), .words(7, 7, 0x4001_000C, 0, 0), .words(6, 12, 0),
        indicate(0x4002_0006), indicate(0x4002_0006, [0xA7, 3, 156, 0]),
      ], id: 1)
    bed.pump()
    let statistics = bed.queue.statistics
    #expect(statistics.malformed == 9 && bed.events.all.isEmpty)
  }

  @Test func keepaliveIsAnswered() throws {
    var bed = try readyBed()
    try bed.put(messages: [.words(8, 12, 0x77)], id: 1)
    bed.pump()
    let packets = try bed.takeAll()
    let answer = try #require(packets.first { $0.type == .gpaDirect })
    #expect(answer.word(4) == 1 && answer.memory == .words(0x8000_0008, 16, 0x77, 0))
  }

  // MARK: - Virtual functions

  @Test func virtualFunctionIsTold() throws {
    var bed = try readyBed()
    try bed.put(.words(128, 1, 9, 0), id: 1 << 63, type: .inBand, completionRequested: true)
    bed.pump()
    #expect(bed.life.information.virtualFunction == 9)
    #expect(bed.events.all == [.virtualFunctionOffered(serial: 9)])
    let completion = try #require(try bed.take())
    #expect(completion.type == .completion && completion.id == 1 << 63)
    try bed.put(.words(128, 0, 9, 0), id: 1 << 63, type: .inBand)
    bed.pump()
    #expect(bed.life.information.virtualFunction == nil)
    #expect(bed.events.all.last == .virtualFunctionRevoked)
    #expect(try bed.take() == nil, "no completion was asked for")
  }

  @Test func isolatedMachineTakesNoVirtualFunction() throws {
    var bed = try readyBed(isIsolated: true)
    try bed.put(.words(128, 1, 9, 0), id: 1, type: .inBand)
    bed.pump()
    #expect(bed.life.information.virtualFunction == nil && bed.events.all.isEmpty)
  }

  @Test func dataPathIsSwitchedWhenTheHostSays() async throws {
    var bed = try readyBed()
    let promise = Promise<NetworkError?>()
    bed.mailbox.put(.switchDataPath(.virtualFunction, promise))
    bed.pump()
    let packet = try #require(try bed.take())
    #expect(packet.completionRequested && Array(packet.payload[..<8]) == .words(129, 1))
    #expect(bed.life.information.dataPath == .synthetic)
    try bed.put([], id: packet.id)
    bed.pump()
    #expect(bed.life.information.dataPath == .virtualFunction)
    #expect(bed.events.all == [.dataPath(isVirtualFunction: true)])
    #expect(await promise.value() == nil)
  }

  // MARK: - The send table

  private func table(_ entries: [UInt32], count: UInt32 = 16, offset: UInt32 = 12) -> [UInt8] {
    .words(134, count, offset) + entries.flatMap(\.wireBytes)
  }

  @Test func sendTableIsObeyed() throws {
    var bed = try readyBed(queues: 4)
    try bed.put(
      table((0..<16).map { UInt32(3 - $0 % 4) }), id: 0, type: .inBand, completionRequested: false)
    bed.pump()
    let queues = (0..<5).map { bed.sendTable.queue(UInt32($0)) }
    #expect(queues == [3, 2, 1, 0, 3])
    let preferred = bed.queue.preferredQueue(hash: 0x1234_5672)
    #expect(preferred == 1)
    #expect(bed.events.all == [.sendTable((0..<16).map { 3 - $0 % 4 })])
  }

  @Test func sendTableMayComeBeforeTheQueuesAreKnown() throws {
    var bed = try NetworkBed(queueCount: 4, worker: worker)
    bed.script.isOpened = true
    try bed.start()
    try bed.put(table((0..<16).map { UInt32(3 - $0 % 4) }), id: 0, type: .inBand)
    bed.pump()
    #expect(bed.life.information.sendTable == [])
    bed.mailbox.put(.opened(queueCount: 4))
    try bed.ready()
    #expect(bed.life.information.sendTable == (0..<16).map { 3 - $0 % 4 })
    let statistics = bed.queue.statistics
    #expect(statistics.malformed == 0)
  }

  @Test(arguments: [
    [UInt8].words(134, 15, 12), .words(134, 16, 12), .words(134), .words(134, 16, 4),
    .words(134, 16, .max), .words(99, 1), [],
  ])
  func badInBandMessageIsCounted(bytes: [UInt8]) throws {
    var bed = try readyBed(queues: 4)
    try bed.put(bytes, id: 0, type: .inBand)
    try bed.put(table((0..<16).map { $0 == 15 ? 4 : 0 }), id: 0, type: .inBand)
    bed.pump()
    let (statistics, failure) = (bed.queue.statistics, bed.queue.failure)
    #expect(statistics.malformed == 2 && failure == nil)
    #expect(bed.life.information.sendTable == (0..<16).map { $0 % 4 }, "the old one stays")
  }

  // MARK: - Other threads

  @Test func filterIsSetAndAnswered() async throws {
    var bed = try readyBed()
    let (done, refused) = (Promise<NetworkError?>(), Promise<NetworkError?>())
    bed.mailbox.put(.set(.currentPacketFilter, UInt32(0).wireBytes, done))
    bed.mailbox.put(.set(.currentPacketFilter, UInt32(0x20).wireBytes, refused))
    bed.pump()
    let sets = try bed.takeAll()
    #expect(sets.count == 2 && sets[0].memory.word(12) == 0x1010E)
    #expect(sets[0].memory.suffix(4) == [0, 0, 0, 0])
    try bed.put(messages: [.words(0x8000_0005, 16, sets[1].memory.word(8), 0xC001_0015)], id: 1)
    try bed.put(messages: [.words(0x8000_0005, 16, sets[0].memory.word(8), 0)], id: 2)
    // Once more: nobody waits for it.
    try bed.put(messages: [.words(0x8000_0005, 16, sets[0].memory.word(8), 0)], id: 3)
    bed.pump()
    #expect(await done.value() == nil)
    #expect(await refused.value() == .objectRefused(OID(rawValue: 0), .invalidData))
    let statistics = bed.queue.statistics
    #expect(statistics.malformed == 1)
  }

  @Test func nobodyWaitsForAQueueThatIsOver() async throws {
    var bed = try readyBed()
    let (statistics, early, late) = (
      Promise<NetworkQueueStatistics?>(), Promise<NetworkError?>(), Promise<NetworkError?>()
    )
    bed.mailbox.put(.set(.currentPacketFilter, [0, 0, 0, 0], early))
    bed.pump()
    bed.state.end(.hostGone)
    bed.pump()
    #expect(await early.value() == .channel(.ended(.hostGone)))
    let (mailbox, life) = (bed.mailbox, bed.life)
    drop(bed)
    mailbox.put(.set(.currentPacketFilter, [0, 0, 0, 0], late))
    mailbox.put(.statistics(statistics))
    #expect(await late.value()?.isFinal == true)
    #expect(await statistics.value() == nil)
    #expect(await life.waitUntilEnded() == .channel(.ended(.hostGone)))
  }

  @Test func corruptRingEndsTheDevice() throws {
    var bed = try readyBed()
    try bed.put(.words(108), id: 0, type: PacketType(rawValue: 3))
    bed.pump()
    let failure = bed.queue.failure
    guard case .channel(.ring) = failure else {
      Issue.record("\(String(describing: failure))")
      return
    }
    #expect(bed.events.all.count == 1)
  }
}
