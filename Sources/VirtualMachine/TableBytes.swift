// SPDX-License-Identifier: Apache-2.0

/// Bytes of a known size that are filled in field by field, little-endian.
struct TableBytes {
  private(set) var bytes: [UInt8]

  init(count: Int) { bytes = [UInt8](repeating: 0, count: count) }

  mutating func set<T: FixedWidthInteger>(_ offset: Int, _ value: T) {
    for byte in 0..<MemoryLayout<T>.size {
      bytes[offset + byte] = UInt8(truncatingIfNeeded: value >> T(truncatingIfNeeded: 8 * byte))
    }
  }

  mutating func set(_ offset: Int, _ values: some Collection<UInt8>) {
    bytes.replaceSubrange(offset..<offset + values.count, with: values)
  }

  mutating func set(_ offset: Int, _ text: String) { set(offset, Array(text.utf8)) }

  /// Makes the sum of the first `count` bytes 0 by the byte at `offset`.
  mutating func setChecksum(_ offset: Int, count: Int) {
    bytes[offset] = 0
    bytes[offset] = 0 &- bytes[..<count].reduce(0, &+)
  }
}
