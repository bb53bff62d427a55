// SPDX-License-Identifier: Apache-2.0

import CLinux
import SimulatedLink
import Testing
import VMBus

@testable import Platform
@testable import SimulatedHost

/// What a guest's rings and buffers take of the mappings that a process may have.
@Suite struct GuestMappingTests {
  /// Guest memory whose pages begin with their own number.
  struct Bed {
    let memory: GuestMemory
    let pieces: MappedPieces
    static let pageCount = 8192

    init(limit: Int = MappedPieces.guestLimit) throws {
      let file = try MemoryFile(name: "test", byteCount: Self.pageCount * 4096)
      let guest = try file.map()
      for page in 0..<Self.pageCount {
        unsafe guest.start.storeBytes(of: UInt64(page), toByteOffset: page * 4096, as: UInt64.self)
      }
      var region = LinkRegion()
      region.pageCount = UInt64(Self.pageCount)
      pieces = MappedPieces(limit: limit)
      let message = SocketMessage(bytes: [], descriptors: [vmbus_duplicate(file.owned.rawValue)])
      memory = try GuestMemory([region], fileCount: 1, from: message, mappedPieces: pieces)
    }
  }

  static func numbers(of mapping: borrowing GuestMapping) -> [GPN] {
    stride(from: 0, to: mapping.byteCount, by: 4096).map {
      unsafe mapping.start.load(fromByteOffset: $0, as: UInt64.self)
    }
  }

  /// As many pages as Linux's receive buffer has, none behind another.
  @Test func pagesThatLieApartLieBehindEachOtherHere() throws {
    let bed = try Bed()
    let pages: [GPN] = stride(from: 8190, through: 0, by: -2).map { GPN($0) }
    #expect(pages.count == 4096)
    do {
      let mapping = try bed.memory.map(pages, in: .hostVisible)
      let found = Self.numbers(of: mapping)
      #expect(found == pages)
      #expect(bed.pieces.current == 4096)
    }
    #expect(bed.pieces.current == 0)
  }

  @Test func pagesBehindEachOtherAreOnePiece() throws {
    let bed = try Bed()
    let mapping = try bed.memory.map([7, 8, 9, 100, 101, 10] as [GPN], in: .hostVisible)
    let found = Self.numbers(of: mapping)
    #expect(found == [7, 8, 9, 100, 101, 10])
    #expect(bed.pieces.current == 3)
  }

  @Test func aGuestTakesNoMoreThanItsShare() throws {
    let bed = try Bed(limit: 5)
    let other = try Bed()
    let apart: [GPN] = [1, 3, 5]
    let first = try bed.memory.map(apart, in: .hostVisible)
    #expect(throws: GuestMemoryError.tooFragmented(pieces: 3)) {
      _ = try bed.memory.map(apart, in: .hostVisible)
    }
    // What was refused is not counted.
    #expect(bed.pieces.current == 3)
    let second = try bed.memory.map([1, 2, 3, 5] as [GPN], in: .hostVisible)
    #expect(bed.pieces.current == 5)
    let third = try other.memory.map(apart, in: .hostVisible)
    #expect([first.byteCount, second.byteCount, third.byteCount] == [12288, 16384, 12288])
  }

  @Test func allGuestsTogetherTakeNoMoreThanTheProcessHas() {
    let process = MappedPieces(limit: 100, of: nil)
    let guests = (0..<3).map { _ in MappedPieces(limit: 60, of: process) }
    #expect(!guests[0].take(61) && process.current == 0)
    #expect(guests[0].take(60) && guests[1].take(40))
    #expect(!guests[2].take(1) && guests[2].current == 0)
    guests[0].giveBack(20)
    #expect(guests[2].take(20) && process.current == 100)
  }
}
