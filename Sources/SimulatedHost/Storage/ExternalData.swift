// SPDX-License-Identifier: Apache-2.0

/// The guest memory that a packet's GPA range names, as a device of the host sees it.
///
/// The host's channel code makes one for each packet, over the pages that the guest lets the host
/// see. A device moves data piece by piece, so that a file is read straight into guest memory.
/// The guest may write the same memory at any time: nothing may be read from it twice.
public protocol ExternalData: ~Copyable, ~Escapable {
  /// Bytes of the range; zero for a packet without one.
  var byteCount: Int { get }

  /// The memory from `offset` on, as far as it lies in one piece, at most `maximum` bytes.
  ///
  /// At least one byte for an offset within the range and a positive maximum; else it throws.
  @_lifetime(&self)
  mutating func segment(
    at offset: Int, maximum: Int
  ) throws(ExternalDataError) -> MutableRawSpan
}

/// Guest memory that a device can't have.
public enum ExternalDataError: Error, Equatable, Sendable {
  /// The offset lies past the range's end.
  case outOfRange(offset: Int, byteCount: Int)
  /// The guest has not made this page visible to the host, or has no such page.
  case notVisible(page: UInt64)
}

extension ExternalDataError: CustomStringConvertible {
  public var description: String {
    switch self {
    case .outOfRange(let offset, let byteCount):
      "external data: offset \(offset) in a range of \(byteCount) bytes"
    case .notVisible(let page):
      "external data: guest page 0x\(String(page, radix: 16)) is not visible to the host"
    }
  }
}

extension ExternalData where Self: ~Copyable & ~Escapable {
  /// Copies `bytes` to the range, from `offset` on.
  @_lifetime(self: copy self)
  mutating func write(_ bytes: RawSpan, at offset: Int) throws(ExternalDataError) {
    var done = 0
    while done < bytes.byteCount {
      var piece = try segment(at: offset &+ done, maximum: bytes.byteCount &- done)
      let count = piece.byteCount
      guard count > 0 else { throw .outOfRange(offset: offset &+ done, byteCount: offset) }
      for index in 0..<count {
        // Safe: any bit pattern is a UInt8; the spans check the bounds.
        let byte = unsafe bytes.unsafeLoad(fromByteOffset: done &+ index, as: UInt8.self)
        piece.storeBytes(of: byte, toByteOffset: index, as: UInt8.self)
      }
      done &+= count
    }
  }
}

extension ExternalData where Self: ~Copyable & ~Escapable {
  /// Copies `count` bytes of the range, from `offset` on, to the start of `bytes`: for what is
  /// looked at more than once.
  @_lifetime(self: copy self)
  @_lifetime(bytes: copy bytes)
  mutating func read(
    into bytes: inout MutableRawSpan, count: Int, at offset: Int = 0
  ) throws(ExternalDataError) {
    var done = 0
    while done < min(count, bytes.byteCount) {
      let piece = try segment(
        at: offset &+ done, maximum: min(count, bytes.byteCount) &- done)
      let found = piece.byteCount
      guard found > 0 else { throw .outOfRange(offset: offset &+ done, byteCount: offset) }
      for index in 0..<found {
        // Safe: any bit pattern is a UInt8; the spans check the bounds.
        let byte = unsafe piece.bytes.unsafeLoad(fromByteOffset: index, as: UInt8.self)
        bytes.storeBytes(of: byte, toByteOffset: done &+ index, as: UInt8.self)
      }
      done &+= found
    }
  }
}

/// What a packet without a GPA range carries.
public struct NoExternalData: ExternalData, Sendable {
  public init() {}

  public var byteCount: Int { 0 }

  @_lifetime(&self)
  public mutating func segment(
    at offset: Int, maximum: Int
  ) throws(ExternalDataError) -> MutableRawSpan {
    throw .outOfRange(offset: offset, byteCount: 0)
  }
}

/// External data that lies in one piece.
public struct ContiguousExternalData: ExternalData, ~Copyable, ~Escapable {
  private var memory: MutableRawSpan

  @_lifetime(copy memory)
  public init(_ memory: consuming MutableRawSpan) { self.memory = memory }

  public var byteCount: Int { memory.byteCount }

  @_lifetime(&self)
  public mutating func segment(
    at offset: Int, maximum: Int
  ) throws(ExternalDataError) -> MutableRawSpan {
    let total = memory.byteCount
    guard offset >= 0, offset < total, maximum > 0 else {
      throw .outOfRange(offset: offset, byteCount: total)
    }
    return memory._mutatingExtracting(offset..<(offset &+ min(maximum, total &- offset)))
  }
}
