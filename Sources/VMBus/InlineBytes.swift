// SPDX-License-Identifier: Apache-2.0

extension WireLayout {
  /// Writes `byteCount` bytes at `offset` of an array in place, which has room for them.
  @inlinable
  public func write<let count: Int>(
    into array: inout InlineArray<count, UInt8>, at offset: Int = 0
  ) {
    var span = array.mutableSpan
    // Safe: any bit pattern is a UInt8.
    var bytes = unsafe span.mutableBytes
    write(into: &bytes, at: offset)
  }
}
