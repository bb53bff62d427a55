// SPDX-License-Identifier: Apache-2.0

import BalloonProtocol
import Testing

@testable import BalloonVSC

/// Real memory of this machine, as the kernel tells of it.
@Suite(.enabled(if: balloonProblem() == nil)) struct PinnedMemoryTests {
  /// Takes so many pages, and returns their ranges.
  static func take(
    _ count: UInt64, small: Bool, from memory: inout PinnedMemory
  ) throws -> [PageRange] {
    var ranges: [PageRange] = []
    var left = count
    while left > 0 {
      let taken = try memory.take(left, small: small, &ranges)
      if taken == 0 { break }
      left -= taken
    }
    return ranges
  }

  @Test func smallPagesArePinnedAndCountedOnce() throws {
    try withPinnedMemory(4096) { memory in
      var resident = 0
      let ranges = try Self.take(700, small: true, from: &memory)
      #expect(memory.pageCount == 700)
      #expect(ranges.reduce(0) { $0 + $1.count } == 700)
      // Physical pages, none of them twice.
      #expect(Set(ranges.map(\.start)).count == 700)
      resident = try residentKiB(memory.addresses)
      #expect(resident == 2800)
      // One of them.
      let one = memory.release(ranges[5], maximumUnits: 10)
      #expect(one.pages == 1)
      #expect(one.rest == nil)
      #expect(memory.pageCount == 699)
      resident = try residentKiB(memory.addresses)
      #expect(resident == 2796)
      // It is not the balloon's any more.
      let again = memory.release(ranges[5], maximumUnits: 10)
      #expect(again.pages == 0)
      for range in ranges { _ = memory.release(range, maximumUnits: 1) }
      #expect(memory.pageCount == 0)
      resident = try residentKiB(memory.addresses)
      #expect(resident == 0)
    }
  }

  @Test func hugePagesGoBackAsAWhole() throws {
    try withPinnedMemory(4096) { memory in
      var resident = 0
      let ranges = try Self.take(1024, small: false, from: &memory)
      // A machine without huge pages gives none, and has said so by giving none.
      guard ranges.count == 2 else { return }
      #expect(memory.hugePageCount == 2)
      #expect(ranges.allSatisfy { $0.start % 512 == 0 && $0.count == 512 })
      resident = try residentKiB(memory.addresses)
      #expect(resident == 4096)
      // A part: given back by the host, and held.
      // The lower one: what lies before it is not the balloon's.
      let start = min(ranges[0].start, ranges[1].start)
      #expect(memory.release(range(start + 100, 12), maximumUnits: 10).pages == 12)
      #expect(memory.pageCount == 1012)
      #expect(memory.heldPageCount == 12)
      resident = try residentKiB(memory.addresses)
      #expect(resident == 4096)
      // The same part again is not.
      #expect(memory.release(range(start + 100, 12), maximumUnits: 10).pages == 0)
      // Around it, from a foreign page on.
      #expect(memory.release(range(start - 1, 102), maximumUnits: 10).pages == 100)
      #expect(memory.release(range(start + 112, 400), maximumUnits: 10).pages == 400)
      #expect(memory.heldPageCount == 0)
      #expect(memory.hugePageCount == 1)
      #expect(memory.pageCount == 512)
      resident = try residentKiB(memory.addresses)
      #expect(resident == 2048)
    }
  }

  @Test func aLargeRangeIsDoneInSlices() throws {
    try withPinnedMemory(4096) { memory in
      _ = try Self.take(100, small: true, from: &memory)
      var rest: PageRange? = range(0, 0xFF_FFFF)
      var pages: UInt64 = 0
      var slices = 0
      var next: UInt64 = 0
      // The whole of what can be named, piece by piece.
      while next < 1 << 34, memory.pageCount > 0 {
        rest = range(next, 0xFF_FFFF)
        while let part = rest {
          let result = memory.release(part, maximumUnits: 30)
          pages += result.pages
          rest = result.rest
          slices += 1
          #expect(result.pages <= 30)
        }
        next += 0xFF_FFFF
      }
      #expect(pages == 100)
      #expect(slices >= 4)
    }
  }

  /// In a process of its own: balloons of other tests would be given the addresses.
  @Test func theEndGivesAllBack() async {
    await #expect(processExitsWith: .success) { try takeAndEnd() }
  }

  @Test func aBalloonIsNotLargerThanItsAddressSpace() throws {
    try withPinnedMemory(0) { memory in
      // 64 blocks for odd cases.
      var taken: UInt64 = 0
      #expect(throws: BalloonMemoryError.noAddressSpace) {
        var ranges: [PageRange] = []
        while taken < 100 { taken += try memory.take(1, small: true, &ranges) }
      }
      #expect(taken == 64)
    }
  }
}

private func takeAndEnd() throws {
  var addresses: Range<UInt> = 0..<0
  try withPinnedMemory(4096) { memory in
    addresses = memory.addresses
    _ = try PinnedMemoryTests.take(600, small: true, from: &memory)
    let resident = try residentKiB(memory.addresses)
    #expect(resident == 2400)
  }
  #expect(try residentKiB(addresses) == 0)
}
