// SPDX-License-Identifier: Apache-2.0

import Glibc

/// Whether both hold the same bytes: many megabytes of them, without a call for each byte.
public func areEqual(_ one: RawSpan, _ other: RawSpan) -> Bool {
  guard one.byteCount == other.byteCount else { return false }
  return unsafe one.withUnsafeBytes { one in
    unsafe other.withUnsafeBytes { other in
      guard let first = one.baseAddress, let second = other.baseAddress else { return true }
      return unsafe memcmp(first, second, one.count) == 0
    }
  }
}
