// SPDX-License-Identifier: Apache-2.0

/// Arithmetic and copies that both ends of a ring share. Offsets are never a peer's: they are
/// counted here, or were checked when they were read.
@usableFromInline
enum RingMath {
  /// Bytes from one index on to another, round the end.
  @inlinable
  @inline(__always)
  static func distance(from start: Int, to end: Int, _ size: Int) -> Int {
    end >= start ? end &- start : size &- (start &- end)
  }

  /// Bytes that a packet can take at most in a ring of `size` bytes: eight bytes always stay free,
  /// since equal indices mean empty, and a descriptor counts to 65535 * 8.
  static func maximumPacketByteCount(_ size: Int) -> Int { min(size &- 8, 65535 * 8 + 8) }

  /// Whether the first four bytes of a descriptor have a type that there is, and leave room for
  /// the descriptor and, with types 7 and 9, for 8 bytes of ranges before the payload.
  ///
  /// The two forms that have nothing before the payload are nearly all packets there are. The rest
  /// is told by a bit of a constant: a `switch` would become a jump through a table.
  @inlinable
  @inline(__always)
  static func isKnown(_ head: UInt32) -> Bool {
    if head == 2 << 16 | 6 || head == 2 << 16 | 11 { return true }
    let type = UInt64(head & 0xffff)
    let known: UInt64 = 1 << 6 | 1 << 7 | 1 << 9 | 1 << 11
    let ranged: UInt64 = 1 << 7 | 1 << 9
    return type < 64 && known &>> type & 1 != 0
      && UInt64(head >> 16) >= 2 &+ (ranged &>> type & 1)
  }

  @unsafe
  @inlinable
  @inline(__always)
  static func store(_ value: UInt64, _ target: UnsafeMutableRawPointer) {
    unsafe target.storeBytes(of: value.littleEndian, as: UInt64.self)
  }

  /// Reads 8 bytes that the peer may be writing: atomic, so that no compiler may read them twice,
  /// nor read what was copied before this from the ring again.
  @unsafe
  @inlinable
  @inline(__always)
  static func load(_ source: UnsafeMutableRawPointer) -> UInt64 {
    UInt64(littleEndian: unsafe RingWord64(source).loadRelaxed())
  }

  @unsafe
  @inlinable
  @inline(__always)
  static func copy(_ bytes: RawSpan, to target: UnsafeMutableRawPointer) {
    unsafe bytes.withUnsafeBytes { source in
      guard let start = source.baseAddress else { return }
      unsafe copy(from: start, to: target, source.count)
    }
  }

  /// The ranges of a packet; a call of its own, to keep `write` short where there are none.
  @unsafe
  @usableFromInline
  @inline(never)
  static func copyRanges(_ bytes: RawSpan, to target: UnsafeMutableRawPointer) {
    unsafe copy(bytes, to: target)
  }

  /// Copies `count` bytes between places that do not overlap. Short packets are the many, and a
  /// call costs more than their bytes: up to 128 bytes are copied here.
  @unsafe
  @inlinable
  @inline(__always)
  static func copy(
    from source: UnsafeRawPointer, to target: UnsafeMutableRawPointer, _ count: Int
  ) {
    if _slowPath(count > 128) {
      unsafe target.copyMemory(from: source, byteCount: count)
    } else if count > 64 {
      // The second half may overlap the first.
      unsafe move(SIMD64<UInt8>.self, source, target, 0)
      unsafe move(SIMD64<UInt8>.self, source, target, count &- 64)
    } else if count > 32 {
      unsafe move(SIMD32<UInt8>.self, source, target, 0)
      unsafe move(SIMD32<UInt8>.self, source, target, count &- 32)
    } else if count >= 16 {
      unsafe move(SIMD16<UInt8>.self, source, target, 0)
      unsafe move(SIMD16<UInt8>.self, source, target, count &- 16)
    } else if count == 8 {
      unsafe move(UInt64.self, source, target, 0)
    } else {
      unsafe target.copyMemory(from: source, byteCount: count)
    }
  }

  @unsafe
  @inlinable
  @inline(__always)
  static func move<T: BitwiseCopyable>(
    _ type: T.Type, _ source: UnsafeRawPointer, _ target: UnsafeMutableRawPointer, _ offset: Int
  ) {
    let value = unsafe source.loadUnaligned(fromByteOffset: offset, as: T.self)
    unsafe target.storeBytes(of: value, toByteOffset: offset, as: T.self)
  }
}

/// Ring sizes are our own or the kernel's, and checked once.
@usableFromInline
func checkedRingSize(_ byteCount: Int) throws(RingError) -> Int {
  guard byteCount >= 4096, byteCount < 1 << 31, byteCount & 4095 == 0 else {
    throw .badSize(byteCount)
  }
  return byteCount
}

/// The peer's index, checked at every load: in range and a multiple of 8.
@inlinable
@inline(__always)
func checkedIndex(_ index: UInt32, _ size: Int) throws(RingError) -> Int {
  guard Int(index) < size, index & 7 == 0 else { throw .badIndex(index, ringByteCount: size) }
  return Int(index)
}
