// SPDX-License-Identifier: Apache-2.0

/// A cursor over bytes of a peer, whose every access can throw and none can trap.
///
/// The bytes must be a private copy: a reader over memory that the peer can still write would
/// see a different value at each look.
public struct WireReader: ~Escapable {
  @usableFromInline let bytes: RawSpan
  @usableFromInline var position: Int
  @usableFromInline let name: WireName

  /// - Parameter name: what the bytes are, for the error text.
  @inlinable
  @_lifetime(copy bytes)
  public init(_ bytes: RawSpan, name: WireName) {
    self.bytes = bytes
    self.position = 0
    self.name = name
  }

  /// Bytes that are left.
  @inlinable public var remaining: Int { bytes.byteCount &- position }

  /// Reads one little-endian integer.
  @inlinable
  public mutating func read<T: FixedWidthInteger & BitwiseCopyable>(
    _ type: T.Type = T.self
  ) throws(WireError) -> T {
    let size = MemoryLayout<T>.size
    guard remaining >= size else {
      throw .tooShort(name, needed: position &+ size, found: bytes.byteCount)
    }
    // Safe: the range was checked just above, and every bit pattern is a T.
    let value = unsafe bytes.unsafeLoadUnaligned(fromUncheckedByteOffset: position, as: T.self)
    position &+= size
    return T(littleEndian: value)
  }

  /// Reads a whole structure.
  @inlinable
  public mutating func read<T: WireLayout>(_ type: T.Type = T.self) throws(WireError) -> T {
    let value = try T(parsing: rest)
    position &+= T.byteCount
    return value
  }

  /// Passes over `count` bytes.
  @inlinable
  public mutating func skip(_ count: Int) throws(WireError) {
    guard count >= 0, remaining >= count else {
      throw .tooShort(name, needed: position &+ max(count, 0), found: bytes.byteCount)
    }
    position &+= count
  }

  /// What has not been read yet.
  @inlinable public var rest: RawSpan {
    @_lifetime(copy self)
    get { bytes.extracting(droppingFirst: position) }
  }

  /// Reads `count` bytes as a part of the same memory.
  @inlinable
  @_lifetime(copy self)
  public mutating func take(_ count: Int) throws(WireError) -> RawSpan {
    guard count >= 0, remaining >= count else {
      throw .tooShort(name, needed: position &+ max(count, 0), found: bytes.byteCount)
    }
    let part = bytes.extracting(position..<(position &+ count))
    position &+= count
    return part
  }
}
