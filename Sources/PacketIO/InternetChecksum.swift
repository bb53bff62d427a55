// SPDX-License-Identifier: Apache-2.0

/// The one's complement sum of RFC 1071 over 16-bit words, most significant byte first.
public struct InternetChecksum: Equatable, Sendable {
  /// Of 32-bit words as the machine loads them: the sum does not depend on their byte order, but for
  /// the order of the two bytes of the result.
  @usableFromInline var sum: UInt64 = 0

  @inlinable
  public init() {}

  /// Adds bytes that begin at an even place of what is summed; with an odd count a zero byte follows.
  @inlinable
  public mutating func add(_ bytes: RawSpan) {
    let count = bytes.byteCount
    var offset = 0
    // 2^32 words fit before the sum could overflow: more than any frame has.
    while offset &+ 8 <= count {
      // Safe: within the span, as the condition says; so are the loads below.
      let word = unsafe bytes.unsafeLoadUnaligned(
        fromUncheckedByteOffset: offset, as: UInt64.self)
      sum &+= (word & 0xFFFF_FFFF) &+ (word >> 32)
      offset &+= 8
    }
    while offset &+ 2 <= count {
      sum &+= UInt64(
        unsafe bytes.unsafeLoadUnaligned(fromUncheckedByteOffset: offset, as: UInt16.self))
      offset &+= 2
    }
    if offset < count {
      let byte = unsafe bytes.unsafeLoadUnaligned(
        fromUncheckedByteOffset: offset, as: UInt8.self)
      sum &+= UInt64(UInt16(littleEndian: UInt16(byte)))
    }
  }

  /// Adds a 16-bit word.
  @inlinable
  public mutating func add(_ word: UInt16) { sum &+= UInt64(word.bigEndian) }

  /// The sum, folded to 16 bits.
  @inlinable
  public var folded: UInt16 {
    var value = sum
    while value > 0xFFFF { value = (value & 0xFFFF) &+ (value >> 16) }
    return UInt16(truncatingIfNeeded: value).bigEndian
  }

  /// What is stored: the complement of the sum.
  @inlinable
  public var checksum: UInt16 { ~folded }

  /// Whether what was summed, its stored checksum included, is right.
  @inlinable
  public var isRight: Bool { folded == 0xFFFF }
}

extension RawSpan {
  /// The 16-bit integer at an offset, most significant byte first; nil where there is none.
  @inlinable
  public func bigEndian16(at offset: Int) -> UInt16? {
    guard offset >= 0, byteCount >= 2, offset <= byteCount &- 2 else { return nil }
    // Safe: checked just above.
    return unsafe UInt16(
      bigEndian: unsafeLoadUnaligned(fromUncheckedByteOffset: offset, as: UInt16.self))
  }

  /// The byte at an offset; nil where there is none.
  @inlinable
  public func byte(at offset: Int) -> UInt8? {
    guard offset >= 0, offset < byteCount else { return nil }
    // Safe: checked just above.
    return unsafe unsafeLoadUnaligned(fromUncheckedByteOffset: offset, as: UInt8.self)
  }
}

extension MutableRawSpan {
  /// Stores a 16-bit integer, most significant byte first; returns false where there is no room.
  @inlinable
  @_lifetime(self: copy self)
  @discardableResult
  public mutating func storeBigEndian16(_ value: UInt16, at offset: Int) -> Bool {
    guard offset >= 0, byteCount >= 2, offset <= byteCount &- 2 else { return false }
    storeBytes(of: value.bigEndian, toByteOffset: offset, as: UInt16.self)
    return true
  }
}
