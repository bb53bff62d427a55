// SPDX-License-Identifier: Apache-2.0

import BalloonProtocol
import Testing
import VMBus

@Suite struct BalloonTransfersTests {
  @Test func aStatusReport() throws {
    let bytes: [UInt8] =
      [5, 0, 48, 0, 9, 0, 0, 0]
      + [0x11, 0x22, 0, 0, 0, 0, 0, 0, 0x33, 0x44, 0, 0, 0, 0, 0, 0]
      + [UInt8](repeating: 0, count: 24)
    let report = BalloonStatusReport(available: 0x2211, committed: 0x4433, transactionID: 9)
    #expect(report.wireBytes == bytes)
    var full = bytes
    for index in 24..<48 { full[index] = UInt8(index) }
    let parsed = try BalloonStatusReport(parsing: full)
    #expect(parsed.pageFileSize == 0x1F1E_1D1C_1B1A_1918)
    #expect(parsed.zeroAndFree == 0x2726_2524_2322_2120)
    #expect(parsed.pageFileWrites == 0x2B2A_2928)
    #expect(parsed.ioDifference == 0x2F2E_2D2C)
  }

  @Test func aBalloonRequest() throws {
    let bytes: [UInt8] = [6, 0, 16, 0, 1, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0]
    #expect(BalloonRequest(pageCount: 512, transactionID: 1).wireBytes == bytes)
    #expect(try BalloonRequest(parsing: bytes).pageCount == 512)
  }

  /// The count is above the bit that says that more will come.
  @Test func aBalloonResponseWithTwoRanges() throws {
    let huge = try #require(PageRange(start: 0x12_3456_7800, count: 512))
    let page = try #require(PageRange(start: 7, count: 1))
    let bytes: [UInt8] =
      [7, 0, 32, 0, 2, 0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0]
      + [0x00, 0x78, 0x56, 0x34, 0x12, 0x00, 0x02, 0x00]
      + [0x07, 0x00, 0x00, 0x00, 0x00, 0x01, 0x00, 0x00]
    let response = BalloonResponse(rangeCount: 2, morePages: true, transactionID: 2)
    #expect(response.wireBytes(with: [huge, page]) == bytes)
    let parsed = try BalloonResponse(parsing: bytes)
    #expect(parsed.morePages)
    #expect(parsed.rangeCount == 2)
  }

  @Test func anUnballoonRequest() throws {
    let range = try #require(PageRange(start: 0x200, count: 0x300))
    let bytes: [UInt8] =
      [8, 0, 24, 0, 3, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0]
      + [0x00, 0x02, 0, 0, 0, 0x00, 0x03, 0]
    let request = UnballoonRequest(rangeCount: 1, morePages: true, transactionID: 3)
    #expect(request.wireBytes(with: [range]) == bytes)
    let parsed = try UnballoonRequest(parsing: bytes)
    #expect(parsed.morePages)
    #expect(parsed.rangeCount == 1)
  }

  @Test func anUnballoonResponseIsAHeader() {
    #expect(UnballoonResponse(transactionID: 4).wireBytes == [9, 0, 8, 0, 4, 0, 0, 0])
  }

  @Test func hotAdd() throws {
    let range = try #require(PageRange(start: 0x8000, count: 0x8000))
    #expect(
      HotAddRequest(range, transactionID: 5).wireBytes
        == [10, 0, 16, 0, 5, 0, 0, 0, 0x00, 0x80, 0, 0, 0, 0x00, 0x80, 0])
    #expect(
      HotAddResponse(pageCount: 0, result: 1, transactionID: 6).wireBytes
        == [11, 0, 16, 0, 6, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0])
  }

  @Test func information() throws {
    let bytes: [UInt8] =
      [12, 0, 32, 0, 7, 0, 0, 0, 0, 0, 0, 0, 16, 0, 0, 0]
      + [0, 0, 0, 0, 8, 0, 0, 0, 0, 0, 16, 0, 0, 0, 0, 0]
    #expect(
      BalloonInformation(maximumPageCountWithTransactionID: 7).wireBytes == Array(bytes[..<24]))
    let parsed = try BalloonInformation(parsing: bytes)
    #expect(parsed.kind == BalloonInformation.maximumPageCount)
    #expect(parsed.informationSize == 16)
    #expect(parsed.dataSize == 8)
  }

  @Test func aRangeHas40And24Bits() throws {
    let largest = try #require(PageRange(start: 0xFF_FFFF_FFFF, count: 0xFF_FFFF))
    #expect(largest.rawValue == .max)
    #expect(largest.end == 0x100_00FF_FFFE)
    #expect(PageRange(start: 1 << 40, count: 1) == nil)
    #expect(PageRange(start: 0, count: 1 << 24) == nil)
  }

  @Test func rangesAreReadOneByOne() throws {
    let bytes: [UInt8] =
      [UInt8](repeating: 0, count: 16)
      + [1, 0, 0, 0, 0, 2, 0, 0, 3, 0, 0, 0, 0, 4, 0, 0, 99]
    var ranges = try PageRanges(unsafe bytes.span.bytes, at: 16, count: 2, name: "test")
    let first = try #require(try ranges.next())
    #expect((first.start, first.count) == (1, 2))
    let second = try #require(try ranges.next())
    #expect((second.start, second.count) == (3, 4))
    let none = try ranges.next()
    #expect(none == nil)
  }

  @Test(arguments: [UInt32(3), 0x7FFF_FFFF, .max])
  func moreRangesThanBytesAreRefused(_ count: UInt32) {
    let bytes = [UInt8](repeating: 0, count: 16 + 2 * 8 + 7)
    #expect(throws: WireError.invalid("test", field: "rangeCount", value: UInt64(count))) {
      _ = try PageRanges(unsafe bytes.span.bytes, at: 16, count: count, name: "test").remaining
    }
  }
}
