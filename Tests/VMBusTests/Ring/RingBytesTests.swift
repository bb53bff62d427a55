// SPDX-License-Identifier: Apache-2.0

import Testing

@testable import VMBus

/// What lies in a ring, byte for byte.
@Suite struct RingBytesTests {
  @Test func inBandPackets() throws {
    let ring = GuardedRing()
    var producer = try ring.producer()
    try producer.send([1, 2, 3, 4, 5], id: 0x1122_3344_5566_7788, completion: true)
    try producer.send([9], type: .completion, id: 2)
    _ = producer.commit()
    #expect(
      ring.bytes(0..<64) == [
        // type 6, data at 2*8, 3*8 bytes, completion requested; transaction id
        0x06, 0x00, 0x02, 0x00, 0x03, 0x00, 0x01, 0x00,
        0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11,
        // payload and padding; trailer: reserved, the packet's offset
        0x01, 0x02, 0x03, 0x04, 0x05, 0x00, 0x00, 0x00,
        0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
        // type 11
        0x0b, 0x00, 0x02, 0x00, 0x03, 0x00, 0x00, 0x00,
        0x02, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
        0x09, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
        0x00, 0x00, 0x00, 0x00, 0x20, 0x00, 0x00, 0x00,
      ])
    #expect(ring.producerIndex == 64)
  }

  /// One range of 0x1800 bytes from 0x900 on in its first page: three pages.
  static let ranges: [UInt8] = [
    // reserved, and one range; its length and offset
    0x00, 0x00, 0x00, 0x00, 0x01, 0x00, 0x00, 0x00,
    0x00, 0x18, 0x00, 0x00, 0x00, 0x09, 0x00, 0x00,
    // page numbers
    0x34, 0x12, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
    0x35, 0x12, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
    0x00, 0x00, 0x01, 0x00, 0x00, 0x00, 0x00, 0x00,
  ]

  @Test func gpaDirectPackets() throws {
    let ring = GuardedRing()
    var producer = try ring.producer()
    try producer.send(
      [0xaa, 0xbb, 0xcc, 0xdd, 0xee, 0xff, 0x00, 0x11], type: .gpaDirect, id: 7, completion: true,
      ranges: Self.ranges)
    _ = producer.commit()
    #expect(
      ring.bytes(0..<72) == [
        // type 9, data at 7*8, 8*8 bytes, completion requested
        0x09, 0x00, 0x07, 0x00, 0x08, 0x00, 0x01, 0x00,
        0x07, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
      ] + Self.ranges + [
        0xaa, 0xbb, 0xcc, 0xdd, 0xee, 0xff, 0x00, 0x11,
        0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
      ])
  }

  @Test func gpaRangesAreRead() throws {
    var ranges = try unsafe GPARanges(Self.ranges.span.bytes)
    #expect(ranges.count == 1)
    var pages = try ranges.next()
    #expect(pages.range == GPARange(byteCount: 0x1800, byteOffset: 0x900))
    #expect(pages.range.pageCount == 3)
    for expected in [0x1234, 0x1235, 0x10000] as [UInt64] {
      let page = try pages.nextPage()
      #expect(page == expected)
    }
    #expect(throws: WireError.self) { _ = try pages.nextPage() }
    #expect(ranges.count == 0)
    #expect(throws: WireError.self) { _ = try ranges.next() }
    #expect(GPARanges.byteCount(pageCount: 3) == Self.ranges.count)
  }

  /// Little-endian words.
  func words(_ values: UInt32...) -> [UInt8] {
    values.flatMap { value in (0..<4).map { UInt8(truncatingIfNeeded: value >> ($0 * 8)) } }
  }

  @Test func gpaRangesWithHostileCountsAreRefused() throws {
    func error(_ bytes: [UInt8]) -> WireError? {
      do throws(WireError) {
        var ranges = try unsafe GPARanges(bytes.span.bytes)
        while ranges.count > 0 {
          var pages = try ranges.next()
          for _ in 0..<pages.range.pageCount { _ = try pages.nextPage() }
        }
      } catch { return error }
      return nil
    }
    // What is reserved may be garbage.
    #expect(error(words(.max, 1, 1, 0, 5, 0)) == nil)
    for count in [0, 2, 3, 0x1000_0000, 0x8000_0000, .max] as [UInt32] {
      #expect(
        error(words(0, count, 4096, 0, 5, 0))
          == .invalid("GPA ranges", field: "range_count", value: UInt64(count)))
    }
    #expect(
      error(words(0, 1, 0, 0, 5, 0)) == .invalid("GPA ranges", field: "byte_count", value: 0))
    for offset in [4096, 0x8000_0000, .max] as [UInt32] {
      #expect(
        error(words(0, 1, 4096, offset, 5, 0))
          == .invalid("GPA ranges", field: "byte_offset", value: UInt64(offset)))
    }
    // More pages than there are: one by its offset, and 2^20 and more by its length.
    #expect(error(words(0, 1, 4096, 1, 5, 0)) == .tooShort("GPA ranges", needed: 32, found: 24))
    for (length, pages) in [(UInt32.max, 0x10_0000), (0xffff_f000, 0xf_ffff)] {
      #expect(
        error(words(0, 1, length, 0, 5, 0))
          == .tooShort("GPA ranges", needed: 16 + pages * 8, found: 24))
    }
    for count in 0..<24 {
      #expect(error(Array(words(0, 1, 1, 0, 5, 0).prefix(count))) != nil)
    }
  }

  @Test func transferPagesAreRead() throws {
    // Set 0xcafe, garbage, two ranges.
    let bytes = words(0xffff_cafe, 2, 100, 0, 200, 0xffff_ffff)
    var pages = try unsafe TransferPages(bytes.span.bytes)
    #expect(pages.setID == 0xcafe && pages.count == 2)
    let first = try pages.next()
    #expect(first == (100, 0))
    let second = try pages.next()
    #expect(second == (200, .max))
    #expect(throws: WireError.self) { _ = try pages.next() }
  }

  @Test func transferPagesWithHostileCountsAreRefused() throws {
    for count in [0, 3, 0x2000_0001, .max] as [UInt32] {
      let bytes = words(1, count, 100, 0, 200, 0)
      #expect(
        throws: WireError.invalid("transfer pages", field: "range_count", value: UInt64(count))
      ) {
        _ = try unsafe TransferPages(bytes.span.bytes)
      }
    }
    let short = words(1)
    #expect(throws: WireError.self) { _ = try unsafe TransferPages(short.span.bytes) }
  }

  @Test func aDescriptorIsDeclaredAsItLies() throws {
    let bytes: [UInt8] = [9, 0, 3, 0, 4, 0, 1, 0, 8, 7, 6, 5, 4, 3, 2, 1]
    let parsed = try PacketDescriptor(parsing: bytes)
    #expect(parsed.type == .gpaDirect && parsed.dataOffset8 == 3 && parsed.length8 == 4)
    #expect(parsed.flags == 1 && parsed.transactionID == 0x0102_0304_0506_0708)
    #expect(parsed.wireBytes == bytes)
  }
}
