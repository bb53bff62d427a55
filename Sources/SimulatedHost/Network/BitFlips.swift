// SPDX-License-Identifier: Apache-2.0

/// A hostile host's dice: flips bits of what is sent, always the same ones for a seed.
public struct BitFlips: Sendable, Equatable {
  private var state: UInt64
  /// One in so many structures is hit.
  public let oneIn: UInt64
  /// How many bits were flipped.
  public private(set) var count: UInt64 = 0

  public init(seed: UInt64, oneIn: UInt64 = 16) {
    // Any seed but zero does.
    state = seed &* 0x9E37_79B9_7F4A_7C15 | 1
    self.oneIn = max(oneIn, 1)
  }

  /// xorshift64*.
  mutating func next() -> UInt64 {
    state ^= state >> 12
    state ^= state << 25
    state ^= state >> 27
    return state &* 0x2545_F491_4F6C_DD1D
  }

  private mutating func hits() -> Bool {
    guard (next() >> 32) % oneIn == 0 else { return false }
    count &+= 1
    return true
  }

  /// Flips a bit, or overwrites four bytes with a number that lengths dislike.
  @_lifetime(bytes: copy bytes)
  mutating func flip(_ bytes: inout MutableRawSpan, count: Int) {
    guard count >= 4, count <= bytes.byteCount, hits() else { return }
    let dice = next() >> 16
    let offset = Int(truncatingIfNeeded: dice % UInt64(count &- 3))
    if dice & 1 << 40 == 0 {
      let value = bytes.bytes.byteAt(offset) ^ (1 << UInt8(truncatingIfNeeded: dice >> 41 & 7))
      bytes.storeBytes(of: value, toByteOffset: offset, as: UInt8.self)
    } else {
      let values: InlineArray<8, UInt32> = [
        0, 1, 7, 0x7FFF_FFFF, 0x8000_0000, 0xFFFF_FFFF, 0xFFFF_FFF8, 0x0001_0000,
      ]
      bytes.storeBytes(
        of: values[Int(dice >> 41 & 7)].littleEndian, toByteOffset: offset & ~3, as: UInt32.self)
    }
  }

  mutating func flip(_ value: inout UInt64) {
    guard hits() else { return }
    value ^= 1 << (next() >> 58)
  }
}

extension RawSpan {
  fileprivate func byteAt(_ offset: Int) -> UInt8 {
    guard offset >= 0, offset < byteCount else { return 0 }
    // Safe: checked just above.
    return unsafe unsafeLoad(fromByteOffset: offset, as: UInt8.self)
  }
}
