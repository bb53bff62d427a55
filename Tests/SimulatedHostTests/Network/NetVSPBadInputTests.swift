// SPDX-License-Identifier: Apache-2.0

import NetworkProtocol
import SimulatedHost
import Testing
import VMBus

/// What a guest can send wrong: each is an error of its own kind, and the channel goes on.
@Suite(.serialized, .timeLimit(.minutes(2))) struct NetVSPBadInputTests {
  /// Whether the channel still carries frames.
  static func goesOn(_ client: inout NetworkClient) throws -> Bool {
    let frame = Wire.frame(byteCount: 77)
    guard try client.sendRNDIS(Wire.packet(frame)) == 1 else { return false }
    return try client.receiveFrames().map(\.frame) == [frame]
  }

  @Test(
    arguments: [
      // Index, bytes: behind the end, of nothing, longer than a section, far away.
      (8, 100), (7, 6145), (0, 0), (0xFFFF_FFFE, 6144), (0x7FFF_FFFF, 1), (700_000, 6144),
      (0, 0xFFFF_FFFF),
    ] as [(UInt32, UInt32)])
  func sectionsOutsideTheBuffer(_ section: (UInt32, UInt32)) throws {
    let bed = try NetworkTestBed()
    var client = try bed.open()
    try client.start()
    #expect(
      try client.send(ranges: [], section: section.0, sectionByteCount: section.1) == 5)
    #expect(
      try bed.record().errors == [.badSection(index: section.0, byteCount: section.1)])
    #expect(try Self.goesOn(&client))
  }

  @Test func aPacketWithoutMemory() throws {
    let bed = try NetworkTestBed()
    var client = try bed.open()
    try client.start()
    #expect(try client.send(ranges: []) == 5)
    #expect(try bed.record().errors == [.badRanges(count: 0)])
    #expect(try Self.goesOn(&client))
  }

  @Test func rangesOfPagesThatAreNotThere() throws {
    let bed = try NetworkTestBed()
    var client = try bed.open()
    try client.start()
    for page in [0, 0xFFFF_FFFF_FFFF_FFFF, 1 << 52, 0x100 + 1024] as [UInt64] {
      var ranges = Wire.words(0, 1, 100, 0)
      ranges.append(little: page)
      let id = client.takeID()
      try client.channel.send(.gpaDirect, id: id, ranges: ranges, Wire.nvsp(107, 0, .max, 0))
      #expect(Wire.word(try client.completion(of: id), 4) == 5)
      #expect(try bed.record().errors.last == .memory(page: page))
    }
    #expect(try Self.goesOn(&client))
  }

  @Test(
    arguments: [
      // Count, length, offset: none, more than there are, of nothing, behind the first page, wrapping.
      (0, 100, 0), (2, 100, 0), (0xFFFF_FFFF, 100, 0), (1, 0, 0), (1, 100, 4096),
      (1, 100, 0xFFFF_FFFF), (1, 0xFFFF_FFFF, 4095), (1, 4097, 0),
    ] as [(UInt32, UInt32, UInt32)])
  func rangesThatLie(_ range: (UInt32, UInt32, UInt32)) throws {
    let bed = try NetworkTestBed()
    var client = try bed.open()
    try client.start()
    var ranges = Wire.words(0, range.0, range.1, range.2)
    ranges.append(little: client.guest.numbers(client.channel.data)[0])
    let id = client.takeID()
    try client.channel.send(.gpaDirect, id: id, ranges: ranges, Wire.nvsp(107, 0, .max, 0))
    #expect(Wire.word(try client.completion(of: id), 4) == 5)
    guard case .malformed = try bed.record().errors.first else {
      Issue.record("\(try bed.record().errors)")
      return
    }
    #expect(try Self.goesOn(&client))
  }

  @Test func moreRangesThanAPacketHas() throws {
    let bed = try NetworkTestBed()
    var client = try bed.open()
    try client.start()
    // Each of one byte, so that 300 of them make a message.
    let message = Wire.packet(Wire.frame(byteCount: 256))
    client.put(message, at: 0)
    #expect(try client.send(ranges: (0..<300).map { ($0, 1) }) == 5)
    #expect(try bed.record().errors == [.badRanges(count: 44)])
    #expect(try Self.goesOn(&client))
  }

  /// A data message of 64 bytes of frame, with one word changed.
  static func changed(_ offset: Int, _ value: UInt32, info: [UInt8] = []) -> [UInt8] {
    var message = Wire.packet(Wire.frame(), info: info)
    for byte in 0..<4 {
      message[offset + byte] = UInt8(truncatingIfNeeded: value >> UInt32(8 * byte))
    }
    return message
  }

  @Test(
    arguments: [
      // Offset, value: lengths of the message, where the frame lies, its length.
      (4, 0), (4, 7), (4, 43), (4, 109), (4, 0xFFFF_FFFF), (8, 0), (8, 35), (8, 100),
      (8, 0xFFFF_FFFF), (8, 0xFFFF_FFF8), (12, 0), (12, 65), (12, 0xFFFF_FFFF), (12, 0x8000_0000),
      // Out-of-band data, and a virtual connection.
      (20, 4), (24, 1), (36, 1),
      // Info without or with a wrong place.
      (32, 16), (32, 0xFFFF_FFFC), (28, 36),
    ] as [(Int, UInt32)])
  func headersThatLie(_ change: (Int, UInt32)) throws {
    let bed = try NetworkTestBed()
    var client = try bed.open()
    try client.start()
    let message = Self.changed(change.0, change.1)
    let status = try client.sendRNDIS(message)
    // An offset alone says nothing where there is no info.
    if change.0 == 28 {
      #expect(status == 1)
      _ = try client.receiveFrames()
    } else {
      #expect(status == 5)
      #expect(try bed.record().errorCount == 1)
    }
    #expect(try Self.goesOn(&client))
  }

  @Test(
    arguments: [
      // Size and offset of an element: of nothing (which loops), below its header, odd, behind its end.
      (0, 12), (11, 12), (13, 12), (16, 0), (16, 13), (16, 16), (20, 24), (0xFFFF_FFFF, 12),
      (0xFFFF_FFFC, 12), (32, 12), (16, 0xFFFF_FFFC), (12, 12),
    ] as [(UInt32, UInt32)])
  func infoThatLoopsOrLeads(_ element: (UInt32, UInt32)) throws {
    let bed = try NetworkTestBed()
    var client = try bed.open()
    try client.start()
    let info = Wire.words(element.0, 6, element.1, 0x10)
    #expect(try client.sendRNDIS(Wire.packet(Wire.frame(), info: info)) == 5)
    guard case .malformed = try bed.record().errors.first else {
      Issue.record("\(try bed.record().errors)")
      return
    }
    #expect(try Self.goesOn(&client))
  }

  @Test func infoThatIsRepeatedUnknownOrTooMuch() throws {
    let bed = try NetworkTestBed()
    var client = try bed.open()
    try client.start()
    let vlan = Wire.info(6, 0x50)
    #expect(try client.sendRNDIS(Wire.packet(Wire.frame(), info: vlan + vlan)) == 5)
    let much = (0..<17).flatMap { Wire.info(0x8000_0100 + UInt32($0), 0) }
    #expect(try client.sendRNDIS(Wire.packet(Wire.frame(), info: much)) == 5)
    // Kinds that nobody knows are passed over.
    let unknown = Wire.info(0x77, 1) + vlan
    #expect(try client.sendRNDIS(Wire.packet(Wire.frame(), info: unknown)) == 1)
    #expect(try client.receiveFrames().map { $0.info[6] } == [0x50])
  }

  @Test(arguments: [1, 13, 1519, 4000])
  func framesOfNoAllowedSize(_ byteCount: Int) throws {
    let bed = try NetworkTestBed()
    var client = try bed.open()
    try client.start()
    let frame = [UInt8](repeating: 0xFF, count: byteCount)
    #expect(try client.sendRNDIS(Wire.packet(frame)) == 5)
    #expect(try bed.record().errors == [.badFrame(byteCount: byteCount)])
    #expect(try Self.goesOn(&client))
  }

  @Test func offloadsThatTheFrameContradicts() throws {
    let bed = try NetworkTestBed()
    var client = try bed.open()
    try client.start()
    // TCP of a frame that is no IP; a large send of one.
    for info in [
      Wire.info(0, 0x0022_0005), Wire.info(2, 0x4220_05A8), Wire.info(0, 0x0022_0012),
    ] {
      #expect(try client.sendRNDIS(Wire.packet(Wire.frame(), info: info)) == 5)
    }
    #expect(try bed.record().errors == [.badOffload, .badOffload, .badOffload])
    #expect(try Self.goesOn(&client))
  }

  @Test func whatComesBeforeABadMessageIsTaken() throws {
    let bed = try NetworkTestBed()
    var client = try bed.open()
    try client.start()
    let frame = Wire.frame()
    #expect(try client.send(Wire.packet(frame) + Self.changed(4, 3), section: 0) == 5)
    #expect(try client.receiveFrames().map(\.frame) == [frame])
    // Bytes behind the last message that are none.
    #expect(try client.send(Wire.packet(frame) + [0, 0, 0, 0], section: 0) == 5)
    #expect(try client.receiveFrames().map(\.frame) == [frame])
  }

  @Test func dataBeforeInitialize() throws {
    let bed = try NetworkTestBed()
    var client = try bed.open()
    try client.negotiate()
    try client.giveBuffers()
    #expect(try client.sendRNDIS(Wire.packet(Wire.frame())) == 5)
    #expect(try bed.record().errors == [.unexpectedRNDIS(.packet)])
  }

  @Test func completionsOfWhatWasNotSentOrTwice() throws {
    let bed = try NetworkTestBed()
    var client = try bed.open()
    try client.start()
    #expect(try client.sendRNDIS(Wire.packet(Wire.frame())) == 1)
    let packet = try client.next()
    for id in [packet.id, packet.id, 71, 72, 1 << 32, .max >> 1] as [UInt64] {
      try client.channel.send(.completion, id: id, Wire.words(108, 1))
    }
    try bed.wait("counts them") { $0.queues.first?.counters.unknownCompletions == 5 }
    #expect(try bed.record().queues.first?.counters.buffersWithGuest == 0)
    #expect(try Self.goesOn(&client))
  }

  @Test(arguments: [0x8000_0000_0000_0000, 0x8000_0000_0000_0001, 0, 1] as [UInt64])
  func theFirstPacketIsACompletion(_ id: UInt64) throws {
    let bed = try NetworkTestBed()
    var client = try bed.open()
    try client.channel.send(.completion, id: id, Wire.words(108, 1))
    try client.start()
    #expect(try bed.record().errors == [.unknownCompletion(id)])
    #expect(try Self.goesOn(&client))
  }

  @Test func aGuestThatBreaksTheStartUpIsServedNoMore() throws {
    let bed = try NetworkTestBed()
    var client = try bed.open()
    try client.negotiate()
    try client.channel.send(.inBand, id: 1, Wire.nvsp(1, 0x60001, 0x60001))
    try bed.guest.wait("is refused") { _ in bed.host.refusals == 1 }
    // It may close the channel and begin anew.
    try bed.guest.close(client.channel)
    var again = try bed.open()
    try again.start()
    #expect(try Self.goesOn(&again))
  }

  @Test func controlMessagesThatLie() throws {
    let bed = try NetworkTestBed()
    var client = try bed.open()
    try client.start()
    // A header of less or more than there is; types of a host, of nobody; a body that is cut off.
    for message in [
      Wire.words(4, 7), Wire.words(4, 200), Wire.words(4, .max), Wire.words(7, 20, 0, 0, 0),
      Wire.words(0x8000_0004, 24, 1, 0, 0, 0), Wire.words(77, 12, 1), Wire.words(9, 12, 1),
      Wire.words(4, 12, 1), Wire.words(5, 20, 1, 2, 3), Wire.words(2, 8),
    ] {
      #expect(try client.sendRNDIS(message, channelType: 1) == 5)
    }
    #expect(try bed.record().errorCount == 10)
    // Buffers outside of their message are answered.
    for (count, offset) in [
      (4, 24), (4, 0xFFFF_FFFF), (0xFFFF_FFFF, 20), (4, 0), (0xFFFF_FFF0, 0x20),
    ] as [(UInt32, UInt32)] {
      let query = Wire.rndis(4, Wire.words(9, 0x0001_0106, count, offset, 0) + [1, 2, 3, 4])
      let answer = try client.control(query)
      let isRight = count == 4 && offset == 20
      #expect(Wire.word(answer, 12) == (isRight ? 0 : 0xC001_0014))
      let set = Wire.rndis(5, Wire.words(9, 0x0001_010E, count, offset, 0) + [1, 0, 0, 0])
      #expect(Wire.word(try client.control(set), 12) == 0xC001_0014)
    }
    #expect(try Self.goesOn(&client))
  }

  @Test func answersThatNobodyTakes() throws {
    let bed = try NetworkTestBed()
    var client = try bed.open()
    try client.start()
    // The buffers run out first, then the patience.
    client.put(Wire.query(1, 0x0001_0106), at: 0)
    var ranges = Wire.words(0, 1, 28, 0)
    ranges.append(little: client.guest.numbers(client.channel.data)[0])
    for _ in 0..<client.pieceCount + 70 {
      guard bed.host.refusals == 0 else { break }
      try client.channel.send(
        .gpaDirect, id: 1, ranges: ranges, Wire.nvsp(107, 1, .max, 0))
      _ = try client.channel.receiveWhole(milliseconds: 2)
      _ = try client.channel.receiveWhole(milliseconds: 2)
    }
    try bed.guest.wait("is refused") { _ in bed.host.refusals == 1 }
  }
}
