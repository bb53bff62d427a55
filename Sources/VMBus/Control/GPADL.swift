// SPDX-License-Identifier: Apache-2.0

/// A run of guest memory: bytes from an offset in the first of some pages.
public struct GPADLRange: Equatable, Sendable {
  /// Bytes; never 0.
  public var byteCount: UInt32
  /// Bytes into the first page; below 4096.
  public var byteOffset: UInt32
  /// Guest page numbers (4 KiB pages): as many as offset and count touch.
  public var gpns: [UInt64]

  public init(byteCount: UInt32, byteOffset: UInt32 = 0, gpns: [UInt64]) {
    self.byteCount = byteCount
    self.byteOffset = byteOffset
    self.gpns = gpns
  }

  /// Whole pages.
  public init?(pages gpns: [UInt64]) {
    guard let byteCount = UInt32(exactly: gpns.count * GPADL.pageByteCount), byteCount > 0 else {
      return nil
    }
    self.init(byteCount: byteCount, gpns: gpns)
  }

  /// The pages that a range touches, or nil where there can be no such range.
  public static func pageCount(byteCount: UInt32, byteOffset: UInt32) -> Int? {
    guard byteCount != 0, byteOffset < UInt32(GPADL.pageByteCount) else { return nil }
    // Both are 32-bit numbers: their sum has room in 64.
    return (Int(byteOffset) + Int(byteCount) + GPADL.pageByteCount - 1) / GPADL.pageByteCount
  }
}

/// What is wrong with the ranges of a GPADL.
public enum GPADLFault: Error, Equatable, Sendable {
  /// No range at all.
  case noRanges
  /// A length that is no multiple of 8, or too short for the ranges that it should hold.
  case length(Int)
  /// Ranges of more than 65535 bytes.
  case tooLong(Int)
  /// A range of no bytes or that starts past its first page.
  case range(byteCount: UInt32, byteOffset: UInt32)
  /// A range with another number of pages than its size needs.
  case pages(needed: Int, found: Int)
  /// A fragment without a word.
  case emptyFragment
  /// More memory described at once than this server keeps track of.
  case limit
}

/// How ranges become the words of messages 8 and 9, and back.
///
/// A range is one word {byte count: low half, byte offset: high half}, then its GPNs.
public enum GPADL {
  public static let pageByteCount = 4096
  /// 240 bytes hold that many words after a header: (240 - 20) / 8.
  public static let wordsInHeader = 27
  /// And that many after a body: (240 - 16) / 8.
  public static let wordsInBody = 28
  /// The total's field is 16 bits wide, so at most 8191 words.
  public static let maximumByteCount = 65535

  /// The words of ranges that are right.
  public static func encode(_ ranges: [GPADLRange]) throws(GPADLFault) -> [UInt64] {
    guard !ranges.isEmpty else { throw .noRanges }
    var words: [UInt64] = []
    for range in ranges {
      guard
        let pages = GPADLRange.pageCount(
          byteCount: range.byteCount, byteOffset: range.byteOffset)
      else { throw .range(byteCount: range.byteCount, byteOffset: range.byteOffset) }
      guard pages == range.gpns.count else {
        throw .pages(needed: pages, found: range.gpns.count)
      }
      words.append(UInt64(range.byteOffset) << 32 | UInt64(range.byteCount))
      words.append(contentsOf: range.gpns)
      guard words.count * 8 <= maximumByteCount else { throw .tooLong(words.count * 8) }
    }
    return words
  }

  /// Checks and reads `count` ranges. Words after the last range are no part of it.
  public static func decode(_ words: [UInt64], count: Int) throws(GPADLFault) -> [GPADLRange] {
    guard count > 0 else { throw .noRanges }
    // Each range has a word of its own, so more ranges than words are not looked for.
    guard count <= words.count else { throw .length(words.count * 8) }
    var rest = words[...]
    var ranges: [GPADLRange] = []
    for _ in 0..<count {
      guard let head = rest.popFirst() else { throw .length(words.count * 8) }
      let byteCount = UInt32(truncatingIfNeeded: head)
      let byteOffset = UInt32(truncatingIfNeeded: head >> 32)
      guard let pages = GPADLRange.pageCount(byteCount: byteCount, byteOffset: byteOffset) else {
        throw .range(byteCount: byteCount, byteOffset: byteOffset)
      }
      guard pages <= rest.count else { throw .pages(needed: pages, found: rest.count) }
      ranges.append(
        GPADLRange(
          byteCount: byteCount, byteOffset: byteOffset, gpns: Array(rest.prefix(pages))))
      rest = rest.dropFirst(pages)
    }
    return ranges
  }

  /// The header and the bodies that describe ranges to the host, in order.
  public static func messages(
    _ gpadl: GPADLID, of channel: ChannelID, ranges: [GPADLRange]
  ) throws(GPADLFault) -> [OutgoingMessage] {
    let words = try encode(ranges)
    let header = GPADLHeader {
      $0.channelID = channel
      $0.gpadlID = gpadl
      // Both fit: `encode` has refused more than 65535 bytes, and a range has two words.
      $0.length = UInt16(truncatingIfNeeded: words.count * 8)
      $0.rangeCount = UInt16(truncatingIfNeeded: ranges.count)
    }
    var messages = [OutgoingMessage(.gpadlHeader(header, Array(words.prefix(wordsInHeader))))]
    var rest = words.dropFirst(wordsInHeader)
    while !rest.isEmpty {
      let body = GPADLBody { $0.gpadlID = gpadl }
      messages.append(OutgoingMessage(.gpadlBody(body, Array(rest.prefix(wordsInBody)))))
      rest = rest.dropFirst(wordsInBody)
    }
    return messages
  }
}

/// A GPADL on its way in: the server's end of `GPADL.messages`, one per id.
///
/// It holds what has arrived, never more than the header has announced: fragments that bring
/// more are cut.
public struct GPADLAssembly: Sendable {
  public let channel: ChannelID
  public let rangeCount: Int
  /// Words that the header has announced.
  public let expected: Int
  private var words: [UInt64] = []

  public init(_ header: GPADLHeader, words: [UInt64]) throws(GPADLFault) {
    channel = header.channelID
    rangeCount = Int(header.rangeCount)
    expected = Int(header.length) / 8
    guard rangeCount > 0 else { throw .noRanges }
    // Each range has its own word and at least one page.
    guard header.length % 8 == 0, expected >= 2 * rangeCount else {
      throw .length(Int(header.length))
    }
    self.words = Array(words.prefix(expected))
  }

  public var isComplete: Bool { words.count >= expected }

  /// Takes in a body's words.
  public mutating func append(_ more: [UInt64]) throws(GPADLFault) {
    guard !more.isEmpty else { throw .emptyFragment }
    words.append(contentsOf: more.prefix(expected - words.count))
  }

  /// The ranges, once complete.
  public func ranges() throws(GPADLFault) -> [GPADLRange] {
    try GPADL.decode(words, count: rangeCount)
  }
}
