// SPDX-License-Identifier: Apache-2.0

/// Where a disk's bytes are kept. Several workers may use one at the same time.
///
/// What overlapping reads and writes see is the guest's affair; neither leaves the disk's bounds.
public protocol BlockBackend: ~Copyable, Sendable {
  /// What the disk is called in errors and listings.
  var name: String { get }
  /// It may change while workers use the disk: see `refresh`.
  var byteCount: UInt64 { get }
  var isReadOnly: Bool { get }

  /// Fills `target` from `offset` (bytes) on.
  @_lifetime(target: copy target)
  func read(at offset: UInt64, into target: inout MutableRawSpan) throws(BlockError)
  func write(at offset: UInt64, from source: RawSpan) throws(BlockError)
  /// Returns when everything written before is on stable storage.
  func flush() throws(BlockError)

  /// Makes `count` bytes from `offset` on read as zeros, and gives back the room that they took
  /// where that is possible.
  func discard(at offset: UInt64, count: UInt64) throws(BlockError)
  /// Whether the bytes at `offset` take room, and how many bytes from there on are alike. Offsets
  /// on the disk only.
  func allocation(at offset: UInt64) throws(BlockError) -> BlockAllocation
  /// Looks at the size anew. Returns whether it has changed.
  func refresh() throws(BlockError) -> Bool
}

/// A run of bytes that all take room, or that all take none.
public struct BlockAllocation: Equatable, Sendable {
  public var isAllocated: Bool
  public var byteCount: UInt64

  public init(isAllocated: Bool, byteCount: UInt64) {
    self.isAllocated = isAllocated
    self.byteCount = byteCount
  }
}

/// Why bytes of a disk could not be moved.
public enum BlockError: Error, Equatable, Sendable {
  case outOfRange
  case readOnly
  /// The file is shorter than it was when it was opened.
  case ended(offset: UInt64)
  /// A system call failed with this `errno`.
  case system(Int32)
  case data(ExternalDataError)
}

extension BlockBackend where Self: ~Copyable {
  /// Throws unless `count` bytes at `offset` lie on the disk.
  func check(_ offset: UInt64, _ count: Int) throws(BlockError) {
    guard count >= 0 else { throw .outOfRange }
    try check(offset, UInt64(count))
  }

  func check(_ offset: UInt64, _ count: UInt64) throws(BlockError) {
    // Once: it may change meanwhile.
    let byteCount = byteCount
    guard offset <= byteCount, count <= byteCount &- offset else { throw .outOfRange }
  }

  /// Writes zeros, piece by piece: for what can't be given back.
  func writeZeros(at offset: UInt64, count: UInt64) throws(BlockError) {
    let zeros = InlineArray<4096, UInt8>(repeating: 0)
    let bytes = zeros.span
    var done: UInt64 = 0
    while done < count {
      let piece = Int(min(count &- done, 4096))
      // Safe: any bit pattern is a UInt8.
      try write(at: offset &+ done, from: unsafe bytes.bytes.extracting(first: piece))
      done &+= UInt64(piece)
    }
  }

  /// Reads `count` bytes at `offset` into the start of the external data.
  func read<Data: ExternalData & ~Copyable & ~Escapable>(
    at offset: UInt64, count: Int, into data: inout Data
  ) throws(BlockError) {
    try check(offset, count)
    var done = 0
    while done < count {
      var piece = try data.piece(at: done, maximum: count &- done)
      let moved = piece.byteCount
      try read(at: offset &+ UInt64(done), into: &piece)
      done &+= moved
    }
  }

  /// Writes the first `count` bytes of the external data at `offset`.
  func write<Data: ExternalData & ~Copyable & ~Escapable>(
    at offset: UInt64, count: Int, from data: inout Data
  ) throws(BlockError) {
    try check(offset, count)
    var done = 0
    while done < count {
      done &+= try write(
        at: offset &+ UInt64(done), piece: data.piece(at: done, maximum: count &- done))
    }
  }

  /// A piece as a constant would be put into a box, which is an allocation for each write.
  private func write(
    at offset: UInt64, piece: borrowing MutableRawSpan
  ) throws(BlockError) -> Int {
    try write(at: offset, from: piece.bytes)
    return piece.byteCount
  }
}

extension ExternalData where Self: ~Copyable & ~Escapable {
  /// A segment that is never empty, so that a loop over pieces ends.
  @_lifetime(&self)
  fileprivate mutating func piece(
    at offset: Int, maximum: Int
  ) throws(BlockError) -> MutableRawSpan {
    let total = byteCount
    do throws(ExternalDataError) {
      let piece = try segment(at: offset, maximum: maximum)
      guard piece.byteCount > 0 else {
        throw .outOfRange(offset: offset, byteCount: total)
      }
      return piece
    } catch {
      throw .data(error)
    }
  }
}
