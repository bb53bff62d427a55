// SPDX-License-Identifier: Apache-2.0

import Testing
import VMBus

@Suite struct GPADLTests {
  static func pages(_ count: Int) -> [UInt64] { (0..<count).map { 0x1000 + UInt64($0) } }

  /// Feeds messages to an assembly as the server does.
  static func assemble(_ messages: [OutgoingMessage]) throws -> [GPADLRange] {
    var assembly: GPADLAssembly?
    for message in messages {
      #expect(message.count <= 240)
      switch try ControlMessage(parsing: message.array, version: .v4_0) {
      case .gpadlHeader(let header, let words):
        assembly = try GPADLAssembly(header, words: words)
      case .gpadlBody(_, let words):
        #expect(assembly?.isComplete == false)
        try assembly?.append(words)
      default: Issue.record("not a GPADL message")
      }
    }
    let whole = try #require(assembly)
    #expect(whole.isComplete)
    return try whole.ranges()
  }

  @Test func wordsOfRanges() throws {
    let words = try GPADL.encode([
      GPADLRange(byteCount: 0x1001, byteOffset: 0xFFF, gpns: [7, 8]),
      GPADLRange(byteCount: 1, byteOffset: 0, gpns: [9]),
    ])
    #expect(words == [0x0000_0FFF_0000_1001, 7, 8, 0x0000_0000_0000_0001, 9])
  }

  // 26 pages fill a header, 27 need a body, 54 fill the body, 55 need another.
  @Test(arguments: [(1, 1), (26, 1), (27, 2), (54, 2), (55, 3), (8190, 293)])
  func fragments(_ pages: Int, _ messages: Int) throws {
    let range = try #require(GPADLRange(pages: Self.pages(pages)))
    let sent = try GPADL.messages(9, of: 5, ranges: [range])
    #expect(sent.count == messages)
    #expect(try Self.assemble(sent) == [range])
  }

  @Test func severalRanges() throws {
    let ranges = (0..<40).map {
      GPADLRange(byteCount: 4096, byteOffset: UInt32($0), gpns: $0 == 0 ? [1] : [1, 2])
    }
    #expect(try Self.assemble(GPADL.messages(9, of: 5, ranges: ranges)) == ranges)
  }

  @Test func rangesThatCannotBeAreNotSent() {
    #expect(throws: GPADLFault.noRanges) { try GPADL.encode([]) }
    #expect(throws: GPADLFault.range(byteCount: 0, byteOffset: 0)) {
      try GPADL.encode([GPADLRange(byteCount: 0, gpns: [])])
    }
    #expect(throws: GPADLFault.range(byteCount: 1, byteOffset: 4096)) {
      try GPADL.encode([GPADLRange(byteCount: 1, byteOffset: 4096, gpns: [1, 2])])
    }
    #expect(throws: GPADLFault.pages(needed: 2, found: 1)) {
      try GPADL.encode([GPADLRange(byteCount: 4097, gpns: [1])])
    }
    #expect(throws: GPADLFault.tooLong(8192 * 8)) {
      try GPADL.encode([GPADLRange(byteCount: 8191 * 4096, gpns: Self.pages(8191))])
    }
    #expect(GPADLRange(pages: []) == nil)
  }

  static func header(_ length: UInt16, _ count: UInt16) -> GPADLHeader {
    GPADLHeader {
      $0.channelID = 5
      $0.gpadlID = 9
      $0.length = length
      $0.rangeCount = count
    }
  }

  @Test func headersThatCannotBeAreRefused() {
    #expect(throws: GPADLFault.noRanges) { try GPADLAssembly(Self.header(16, 0), words: []) }
    #expect(throws: GPADLFault.length(17)) { try GPADLAssembly(Self.header(17, 1), words: []) }
    #expect(throws: GPADLFault.length(8)) { try GPADLAssembly(Self.header(8, 1), words: []) }
    #expect(throws: GPADLFault.length(65528)) {
      try GPADLAssembly(Self.header(65528, 65535), words: [])
    }
  }

  @Test func rangesThatCannotBeAreRefused() {
    func decode(_ words: [UInt64], _ count: Int = 1) throws(GPADLFault) -> [GPADLRange] {
      try GPADL.decode(words, count: count)
    }
    #expect(throws: GPADLFault.range(byteCount: 0, byteOffset: 0)) { try decode([0, 1]) }
    #expect(throws: GPADLFault.range(byteCount: 1, byteOffset: 0x1000)) {
      try decode([0x1000_0000_0001, 1])
    }
    #expect(throws: GPADLFault.range(byteCount: 1, byteOffset: .max)) {
      try decode([0xFFFF_FFFF_0000_0001, 1])
    }
    #expect(throws: GPADLFault.pages(needed: 1_048_577, found: 1)) {
      try decode([0x0000_0FFF_FFFF_FFFF, 1])
    }
    #expect(throws: GPADLFault.pages(needed: 2, found: 1)) { try decode([4097, 1]) }
    #expect(throws: GPADLFault.length(16)) { try decode([4096, 1], 2) }
    #expect(throws: GPADLFault.length(24)) { try decode([8192, 1, 2], 2) }
    #expect(throws: GPADLFault.length(16)) { try decode([4096, 1], .max) }
    #expect(throws: GPADLFault.noRanges) { try decode([4096, 1], 0) }
  }

  @Test func wordsTooManyAreCut() throws {
    var assembly = try GPADLAssembly(Self.header(24, 1), words: [8192])
    #expect(!assembly.isComplete)
    #expect(throws: GPADLFault.emptyFragment) { try assembly.append([]) }
    try assembly.append([1, 2, 3, 4, 5])
    #expect(assembly.isComplete)
    #expect(try assembly.ranges() == [GPADLRange(byteCount: 8192, gpns: [1, 2])])
    let atOnce = try GPADLAssembly(Self.header(16, 1), words: [4096, 1, 99, 98])
    #expect(try atOnce.ranges() == [GPADLRange(byteCount: 4096, gpns: [1])])
  }
}
