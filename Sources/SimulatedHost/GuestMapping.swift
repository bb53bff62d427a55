// SPDX-License-Identifier: Apache-2.0

import Platform
import Synchronization

/// Pages from all over a guest's memory, mapped behind each other.
@safe
struct GuestMapping: ~Copyable, Sendable {
  private let memory: MappedMemory
  private let pieces: MappedPieces
  private let pieceCount: Int

  /// Takes over a mapping whose pieces have been counted.
  init(_ memory: consuming MappedMemory, _ pieceCount: Int, of pieces: MappedPieces) {
    self.memory = memory
    self.pieceCount = pieceCount
    self.pieces = pieces
  }

  deinit { pieces.giveBack(pieceCount) }

  var byteCount: Int { memory.byteCount }

  /// The memory, as long as this value lives.
  @unsafe
  var start: UnsafeMutableRawPointer { unsafe memory.start }
}

/// How many mappings there are of pages that lie apart in their guest.
///
/// Guests take the pages of their buffers one by one: a receive buffer of 16 MiB has up to 4096
/// pieces, and a host can't ask for fewer. But Linux lets a process have 65,530 mappings
/// (vm.max_map_count), all guests together; without any left the host could not even start a thread.
final class MappedPieces: Sendable {
  private let count = Atomic<Int>(0)
  private let limit: Int
  private let whole: MappedPieces?

  static let processLimit = 49_152
  /// For all buffers and rings of one guest, so that it leaves some to the others.
  static let guestLimit = 24_576
  private static let ofProcess = MappedPieces(limit: processLimit, of: nil)

  /// - Parameter whole: what counts these too.
  init(limit: Int, of whole: MappedPieces?) {
    self.limit = limit
    self.whole = whole
  }

  /// Those of one guest.
  convenience init(limit: Int = guestLimit) { self.init(limit: limit, of: .ofProcess) }

  var current: Int { count.load(ordering: .relaxed) }

  /// Counts more of them. Returns false, and counts none, where they would be too many.
  func take(_ more: Int) -> Bool {
    guard count.add(more, ordering: .relaxed).newValue <= limit else {
      count.subtract(more, ordering: .relaxed)
      return false
    }
    guard whole?.take(more) ?? true else {
      count.subtract(more, ordering: .relaxed)
      return false
    }
    return true
  }

  func giveBack(_ pieces: Int) {
    count.subtract(pieces, ordering: .relaxed)
    whole?.giveBack(pieces)
  }
}
