// SPDX-License-Identifier: Apache-2.0

import NetworkProtocol
import SimulatedHost
import Testing
import VMBus

/// A guest that sends to another one faster than that one takes it.
@Suite(.serialized, .timeLimit(.minutes(2))) struct NetworkSwitchFloodTests {
  static let framesOfPacket = 50
  static let packets = 40

  /// Sends packets of many frames to the second guest, and waits for no completion.
  ///
  /// - Returns: the packets' ids.
  static func flood(_ sender: inout NetworkClient) throws -> [UInt64] {
    let section = (0..<framesOfPacket).flatMap {
      Wire.packet(Wire.frame(to: NetworkSwitchTests.second, from: 1, fill: UInt8($0)))
    }
    let memory = unsafe sender.guest.bytes(sender.sendPages)
    for (index, byte) in section.enumerated() { unsafe memory[index] = byte }
    return try (0..<packets).map { _ in
      let id = sender.takeID()
      try sender.channel.send(
        .inBand, id: id, ranges: [],
        Wire.nvsp(107, 0, 0, UInt32(section.count), size: sender.style.messageByteCount))
      return id
    }
  }

  /// The switch learns the second guest's address.
  static func introduce(_ receiver: inout NetworkClient, to sender: inout NetworkClient) throws {
    let frame =
      NetworkTestBed.address.wireBytes + NetworkSwitchTests.second.wireBytes + [0x88, 0xB5]
      + [UInt8](repeating: 0, count: 46)
    #expect(try receiver.sendRNDIS(Wire.packet(frame)) == 1)
    #expect(try sender.receiveFrames().map(\.frame) == [frame])
  }

  static func overflows(_ bed: NetworkTestBed) -> UInt64 {
    bed.vsp.records.values.reduce(0) { sum, record in
      record.queues.reduce(sum) { $0 + $1.overflows }
    }
  }

  @Test(arguments: [1, 2]) func theSenderIsHeldUpAndNothingIsLost(workers: Int) throws {
    let bed = try NetworkTestBed(NetworkSwitch(patience: .max), workers: workers)
    var sender = try NetworkClient(bed.guest)
    var receiver = try NetworkClient(try SmallGuest(bed.host))
    try sender.start()
    try receiver.start()
    try Self.introduce(&receiver, to: &sender)
    let ids = try Self.flood(&sender)
    // More than the receive buffer and the switch have room for.
    var fills: [UInt8] = []
    while fills.count < Self.packets * Self.framesOfPacket {
      fills += try receiver.receiveFrames().map { $0.frame[20] }
    }
    let expected = (0..<Self.packets * Self.framesOfPacket).map { UInt8($0 % Self.framesOfPacket) }
    #expect(fills == expected, "each frame once, in order")
    for id in ids { #expect(Wire.word(try sender.completion(of: id), 4) == 1) }
    #expect(try receiver.isSilent())
    #expect(Self.overflows(bed) == 0)
  }

  @Test func aGuestThatTakesNothingStopsNobody() throws {
    let bed = try NetworkTestBed(NetworkSwitch(patience: 1_000_000))
    var sender = try NetworkClient(bed.guest)
    var receiver = try NetworkClient(try SmallGuest(bed.host))
    try sender.start()
    try receiver.start()
    try Self.introduce(&receiver, to: &sender)
    let ids = try Self.flood(&sender)
    for id in ids { #expect(Wire.word(try sender.completion(of: id), 4) == 1) }
    let lost = Self.overflows(bed)
    #expect(lost > 0 && lost < UInt64(Self.packets * Self.framesOfPacket))
    // What was not lost is there still.
    let rest = Self.packets * Self.framesOfPacket - Int(lost)
    var received = 0
    while received < rest { received += try receiver.receiveFrames().count }
    #expect(received == rest)
  }
}
