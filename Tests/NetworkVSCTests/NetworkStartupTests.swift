// SPDX-License-Identifier: Apache-2.0

import NetworkProtocol
import Platform
import Testing

@testable import NetworkVSC
@testable import VMBus
@testable import VSC

/// The start-up of the primary channel against a host that is played by hand.
@Suite struct NetworkStartupTests {
  private let worker: Worker

  init() throws { worker = try Worker(.init(name: "network-test", spinRounds: 0)) }

  @Test func wholeOrder() throws {
    var bed = try NetworkBed(worker: worker)
    try bed.start()
    let isReady = bed.queue.isReady
    #expect(isReady)
    #expect(
      bed.script.asked == [
        "1", "125", "100", "101", "104", "0", "10106", "1010101", "fc01020d", "fc01020c", "10114",
        "10107", "10203", "10204", "1010e",
      ])
    let information = bed.life.information
    #expect(information.version == .v61)
    #expect(information.macAddress.description == "02:15:5d:01:02:03")
    #expect(information.mtu == 1500 && information.linkSpeed == 10_000_000_000)
    #expect(information.isLinkUp && information.filter == [.directed, .multicast, .broadcast])
    #expect(information.offloads.ipv4LargeSend == 0xF53C)
    #expect(information.offloads.ipv4Transmit == [.ipOptions, .tcpOptions, .tcp, .udp, .ip])
    #expect(information.offloads.coalescesIPv4 && information.offloads.coalescesIPv6)
    #expect(information.receiveBuffer.sectionByteCount == 1806)
    #expect(information.sendBuffer.sectionByteCount == 6144)
    #expect(information.sendBuffer.sectionCount == 10)
    #expect(information.scalesReceive && information.receiveTableCount == 128)
    #expect(bed.log[1].payload.word(4) == 1514, "NDIS_CONFIG counts the Ethernet header")
    #expect(bed.log[1].payload.word(12) == 0xAC)
    #expect(!bed.log[1].completionRequested && !bed.log[2].completionRequested)
    #expect(bed.log[3].payload.prefix(10) == [101, 0, 0, 0, 0x10, 0x1E, 0x0E, 0, 0xFE, 0xCA])
  }

  @Test func scalingParametersCarryTableAndKey() throws {
    var bed = try NetworkBed(queueCount: 4, worker: worker)
    bed.script.queueCount = 4
    try bed.start()
    #expect(bed.script.asked.contains("133"))
    let set = try #require(bed.log.first { $0.memory.word(12) == 0x0001_0204 }).memory
    #expect(set.word(4) == UInt32(28 + 40 + 512 + 40))
    // NDIS_RECEIVE_SCALE_PARAMETERS at byte 28: header, flags, hash, table, key.
    #expect(Array(set[28..<40]) == [0x89, 2, 40, 0, 0, 0, 0, 0, 0x01, 0x17, 0, 0])
    #expect(set.word(28 + 12) == 512 && set.word(28 + 16) == 40)
    #expect(set.word(28 + 20) == 40 && set.word(28 + 24) == 552)
    #expect((0..<128).allSatisfy { set.word(28 + 40 + 4 * $0) == UInt32($0 % 4) })
    #expect(set[28 + 552] == 0x6D && set[28 + 591] == 0xFA)
    #expect(bed.life.information.sendTable == (0..<16).map { $0 % 4 })
  }

  @Test(arguments: [(UInt32(0x60000), "6.0"), (0x50000, "5.0"), (0x40000, "4.0")])
  func olderHostsAreSpokenTo(newest: UInt32, name: String) throws {
    var bed = try NetworkBed(queueCount: 4, worker: worker)
    bed.script.newestVersion = newest
    try bed.start()
    let isReady = bed.queue.isReady
    #expect(isReady && bed.life.information.version.description == name)
    // Subchannels and their scaling came with 5.0; offload parameters are shorter before.
    #expect(bed.script.asked.contains("133") == (newest >= 0x50000))
    let offload = try #require(bed.log.first { $0.memory.word(12) == 0xFC01_020C }).memory
    #expect(offload.count == 28 + (newest >= 0x50000 ? 28 : 22))
  }

  @Test func hostOfAnUnusableVersionIsRefused() throws {
    var bed = try NetworkBed(worker: worker)
    bed.script.newestVersion = 0x30002
    try bed.start()
    let failure = bed.queue.failure
    #expect(failure == .noCommonVersion(oldest: .v4))
    #expect(bed.script.asked == ["1", "1", "1", "1"])
    #expect(bed.events.all == [.ended(.noCommonVersion(oldest: .v4))])
  }

  @Test func hostWithoutSendBufferReadsFramesInPlace() throws {
    var bed = try NetworkBed(worker: worker)
    bed.script.completions[104] = .words(105, 2, 0)
    try bed.ready()
    let sent = frame(60)
    try bed.queue.send(unsafe sent.span.bytes)
    bed.queue.publish()
    let packet = try #require(try bed.take())
    #expect(packet.type == .gpaDirect && packet.word(8) == 0xFFFF_FFFF)
    #expect(Array(packet.memory.suffix(60)) == sent)
  }

  /// Completions of NVSP messages that no host may send.
  static let badCompletions: [(UInt32, [UInt8])] = [
    (1, .words(2, 0, 34)), (1, .words(102, 0, 34, 1)), (1, []),
    (101, .words(102, 1, 1, 0, 1806, 145)),  // too short
    (101, .words(105, 1, 1, 0, 1806, 145, 0)),  // another type
    (101, .words(102, 2, 1, 0, 1806, 145, 261870)),  // refused
    (101, .words(102, 1, 0, 0, 1806, 145, 261870)),  // no section
    (101, .words(102, 1, 2, 0, 1806, 145, 261870)),
    (101, .words(102, 1, 1, 8, 1806, 145, 261870)),  // does not start at the start
    (101, .words(102, 1, 1, 0, 67, 145, 261870)),  // too small for a frame
    (101, .words(102, 1, 1, 0, 0, 145, 261870)),
    (101, .words(102, 1, 1, 0, 1806, 0, 261870)),
    (101, .words(102, 1, 1, 0, 1806, 146, 261870)),  // outside of the buffer
    (101, .words(102, 1, 1, 0, 0x8000_0000, 2, 261870)),  // the product wraps in 32 bits
    (101, .words(102, 1, 1, 0, .max, .max, 261870)),
    (101, .words(102, 1, 1, 0, 1806, 145, 262145)),  // ends outside
    (104, .words(105, 1, 0)), (104, .words(105, 1, 64)), (104, .words(105, 1, 65537)),
    (104, .words(105, 1, .max)), (104, .words(105, 1)), (104, .words(102, 1, 6144)),
    (133, .words(133, 1, 4)), (133, .words(133, 1, .max)), (133, .words(133, 1)),
    (133, .words(134, 1, 3)),
  ]

  @Test(arguments: badCompletions.indices)
  func badCompletionEndsTheStartUp(index: Int) throws {
    let (type, bytes) = Self.badCompletions[index]
    var bed = try NetworkBed(queueCount: 4, worker: worker)
    bed.script.completions[type] = bytes
    try bed.start()
    let (isReady, failure) = (bed.queue.isReady, bed.queue.failure)
    #expect(!isReady)
    guard !bytes.isEmpty else {
      #expect(failure == nil)
      return
    }
    let error = try #require(failure)
    #expect(error.isFinal && !error.description.isEmpty)
    #expect(bed.life.endReason == error)
  }

  /// Answers to RNDIS messages that no host may send, or that refuse what is needed.
  static let badAnswers: [(UInt32, [UInt8])] = [
    (0, NetworkScript.initialized(status: 0xC000_0001)),
    (0, NetworkScript.initialized(medium: 1)),
    (0, NetworkScript.initialized(alignment: 11)),
    (0, NetworkScript.initialized(alignment: .max)),
    (0x10106, .words(0x8000_0004, 24, 0, 0xC000_00BB, 0, 0)),
    (0x10106, NetworkScript.queried(0, UInt32(575).wireBytes)),
    (0x10106, NetworkScript.queried(0, [1, 2, 3])),
    (0x10106, .words(0x8000_0004, 28, 0, 0, 4, 15, 1500)),  // the buffer lies in the body
    (0x10106, .words(0x8000_0004, 28, 0, 0, 4, 17, 1500)),  // or ends behind the message
    (0x10106, .words(0x8000_0004, 28, 0, 0, 5, 16, 1500)),
    (0x10106, .words(0x8000_0004, 28, 0, 0, .max, .max, 1500)),
    (0x1010101, NetworkScript.queried(0, [2, 0x15, 0x5D, 1, 2])),
    (0x10114, NetworkScript.queried(0, [])), (0x10107, NetworkScript.queried(0, [1])),
    (0x1010E, .words(0x8000_0005, 16, 0, 0xC001_0015)),
  ]

  @Test(arguments: badAnswers.indices)
  func badAnswerEndsTheStartUp(index: Int) throws {
    let (oid, bytes) = Self.badAnswers[index]
    var bed = try NetworkBed(worker: worker)
    bed.script.answers[oid] = bytes
    try bed.start()
    let failure = bed.queue.failure
    let error = try #require(failure)
    #expect(error.isFinal == (error == bed.life.endReason) || !error.isFinal)
    #expect(!error.description.isEmpty)
  }

  @Test func refusedExtrasAreDoneWithout() throws {
    var bed = try NetworkBed(queueCount: 4, worker: worker)
    let refused: [UInt8] = .words(0x8000_0004, 24, 0, 0xC000_00BB, 0, 0)
    bed.script.answers = [0xFC01_020D: refused, 0x10203: refused]
    try bed.start()
    let isReady = bed.queue.isReady
    #expect(isReady)
    #expect(!bed.script.asked.contains("133") && !bed.script.asked.contains("10204"))
    #expect(bed.life.information.offloads.ipv4LargeSend == 0)
    #expect(!bed.life.information.scalesReceive)
  }

  @Test func answersThatAreTooLongOrOfNobodyAreDropped() throws {
    var bed = try NetworkBed(worker: worker)
    var burst = ReceiveBurst()
    _ = bed.queue.receive(into: &burst)
    bed.queue.publish()
    // Nothing was asked of RNDIS yet; a completion of an unknown id; a message of an unknown type.
    try bed.put(messages: [.words(0x8000_0005, 16, 1, 0)], id: 1)
    try bed.put(messages: [.words(77, 16, 1, 0), .words(7, 12, 0)], id: 2)
    try bed.put(.words(2, 0, 34, 1), id: 0x1_0000_0063)
    _ = bed.queue.receive(into: &burst)
    let (failure, statistics) = (bed.queue.failure, bed.queue.statistics)
    #expect(failure == nil)
    #expect(statistics.malformed == 3 && statistics.channel.unknownCompletions == 1)
    try bed.start()
    let isReady = bed.queue.isReady
    #expect(isReady)
  }

  // MARK: - A host that does not answer

  @Test func silenceIsToldAndThenEnds() throws {
    var bed = try NetworkBed(worker: worker)
    bed.script.completions[101] = []
    try bed.start()
    let start = bed.queue.stepStart
    let first = bed.queue.nextDeadline
    #expect(first == start + 1_000_000_000)
    bed.queue.expire(now: start + 5_500_000_000)
    #expect(bed.events.all == [.starting(step: "receive buffer", waitedSeconds: 5)])
    bed.queue.expire(now: start + 60_000_000_000)
    let failure = bed.queue.failure
    #expect(failure == .timedOut("receive buffer"))
    #expect(bed.events.all.last == .ended(.timedOut("receive buffer")))
    let after = bed.queue.nextDeadline
    #expect(after == .max)
  }

  @Test func endOfTheChannelEndsTheStartUp() throws {
    var bed = try NetworkBed(worker: worker)
    bed.script.answers[0x1010101] = []
    try bed.start()
    bed.state.end(.rescinded)
    bed.pump()
    let failure = bed.queue.failure
    #expect(failure == .channel(.ended(.rescinded)))
    #expect(bed.life.endReason == .channel(.ended(.rescinded)))
  }

  @Test(arguments: [0, 575, 9001, -1])
  func mtuOutOfRangeIsRefused(mtu: Int) {
    var configuration = NetworkConfiguration()
    configuration.mtu = mtu
    #expect(throws: NetworkError.badMTU(mtu, limit: 9000)) { try configuration.check() }
  }

  @Test func hostMayAllowASmallerMTU() throws {
    var configuration = NetworkConfiguration.small
    configuration.mtu = 9000
    var bed = try NetworkBed(configuration, worker: worker)
    bed.script.mtu = 4000
    try bed.start()
    #expect(bed.log[1].payload.word(4) == 9014)
    let limit = bed.queue.maximumFrameByteCount
    #expect(bed.life.information.mtu == 4000 && limit == 4014)
  }
}
