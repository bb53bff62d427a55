// SPDX-License-Identifier: Apache-2.0

/// Guest page number: a guest physical address divided by 4096.
public typealias GPN = UInt64

/// One range of guest memory: `byteCount` bytes that start `byteOffset` bytes into the first of
/// its pages. The pages follow each other in the range, not in memory.
@frozen
public struct GPARange: Equatable, Sendable {
  /// Bytes; never 0.
  public let byteCount: UInt32
  /// Bytes into the first page; below 4096.
  public let byteOffset: UInt32

  @inlinable
  public init(byteCount: UInt32, byteOffset: UInt32) {
    self.byteCount = byteCount
    self.byteOffset = byteOffset
  }

  /// Pages that the range touches.
  @inlinable
  public var pageCount: Int { (Int(byteOffset) &+ Int(byteCount) &+ 4095) >> 12 }
}

/// The ranges of a GPA-direct packet, as they lie between its descriptor and its payload.
///
/// Wire form, from the end of the descriptor: reserved u32 (may be garbage), range count u32, then
/// for each range its length u32, offset u32, and one u64 page number for each page it touches.
public struct GPARanges: ~Escapable {
  @usableFromInline var reader: WireReader
  /// Ranges that are left.
  public private(set) var count: Int

  /// - Parameter bytes: a private copy, `PacketBuffer.ranges(of:)`.
  @_lifetime(copy bytes)
  public init(_ bytes: RawSpan) throws(WireError) {
    reader = WireReader(bytes, name: "GPA ranges")
    _ = try reader.read(UInt32.self)
    let count = try reader.read(UInt32.self)
    // Each range has at least one page: 16 bytes.
    guard count > 0, Int(count) <= reader.remaining / 16 else {
      throw .invalid("GPA ranges", field: "range_count", value: UInt64(count))
    }
    self.count = Int(count)
  }

  /// The next range with a reader over its page numbers, of which it has `pageCount`.
  @_lifetime(copy self)
  public mutating func next() throws(WireError) -> GPARangePages {
    guard count > 0 else { throw .tooShort("GPA ranges", needed: 16, found: 0) }
    count &-= 1
    let byteCount = try reader.read(UInt32.self)
    let byteOffset = try reader.read(UInt32.self)
    guard byteCount != 0 else {
      throw .invalid("GPA ranges", field: "byte_count", value: 0)
    }
    guard byteOffset < 4096 else {
      throw .invalid("GPA ranges", field: "byte_offset", value: UInt64(byteOffset))
    }
    let range = GPARange(byteCount: byteCount, byteOffset: byteOffset)
    let pages = try reader.take(range.pageCount &* 8)
    return GPARangePages(range: range, pages: WireReader(pages, name: "GPA range pages"))
  }

  /// Bytes that ranges of so many pages take in all.
  @inlinable
  public static func byteCount(pageCount: Int, rangeCount: Int = 1) -> Int {
    8 &+ rangeCount &* 8 &+ pageCount &* 8
  }
}

/// One range of a GPA-direct packet with its page numbers.
public struct GPARangePages: ~Escapable {
  public let range: GPARange
  @usableFromInline var pages: WireReader

  @inlinable
  @_lifetime(copy pages)
  init(range: GPARange, pages: WireReader) {
    self.range = range
    self.pages = pages
  }

  /// The page numbers that are left, 8 bytes each, little-endian.
  @inlinable public var pageNumbers: RawSpan {
    @_lifetime(copy self)
    get { pages.rest }
  }

  /// The next page number. It is the peer's word: look it up in a table of what may be seen.
  @inlinable
  public mutating func nextPage() throws(WireError) -> GPN { try pages.read(UInt64.self) }
}

/// The ranges of a transfer-pages packet.
///
/// Wire form, from the end of the descriptor: set id u16, reserved u16 (may be garbage), range
/// count u32, then for each range its length u32 and its offset u32 in the buffer of that set.
public struct TransferPages: ~Escapable {
  @usableFromInline var reader: WireReader
  /// The buffer that the offsets count from.
  public let setID: UInt16
  /// Ranges that are left.
  public private(set) var count: Int

  /// - Parameter bytes: a private copy, `PacketBuffer.ranges(of:)`.
  @_lifetime(copy bytes)
  public init(_ bytes: RawSpan) throws(WireError) {
    var reader = WireReader(bytes, name: "transfer pages")
    setID = try reader.read()
    _ = try reader.read(UInt16.self)
    let count = try reader.read(UInt32.self)
    guard count > 0, Int(count) <= reader.remaining / 8 else {
      throw .invalid("transfer pages", field: "range_count", value: UInt64(count))
    }
    self.count = Int(count)
    self.reader = reader
  }

  /// The next range, not yet checked against the size of the buffer.
  public mutating func next() throws(WireError) -> (byteCount: UInt32, byteOffset: UInt32) {
    guard count > 0 else { throw .tooShort("transfer pages", needed: 8, found: 0) }
    count &-= 1
    return (try reader.read(), try reader.read())
  }
}
