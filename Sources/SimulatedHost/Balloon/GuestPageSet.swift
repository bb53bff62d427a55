// SPDX-License-Identifier: Apache-2.0

import BalloonProtocol
import VMBus

/// Pages that a guest has given to the host, as the numbers that the guest named: nothing is behind
/// them here. Ranges are sorted, and no two of them touch or overlap.
struct GuestPageSet: Sendable {
  private(set) var ranges: [Range<GPN>] = []
  private(set) var count: UInt64 = 0

  /// Adds a range.
  ///
  /// - Returns: false, with nothing added, when one of its pages is in the set already.
  mutating func insert(_ range: PageRange) -> Bool {
    let new = range.start..<range.end
    guard !new.isEmpty else { return true }
    var (low, high) = (0, ranges.count)
    while low < high {
      let middle = (low + high) / 2
      if ranges[middle].upperBound > new.lowerBound { high = middle } else { low = middle + 1 }
    }
    if low < ranges.count, ranges[low].lowerBound < new.upperBound { return false }
    count += range.count
    let joinsLeft = low > 0 && ranges[low - 1].upperBound == new.lowerBound
    let joinsRight = low < ranges.count && ranges[low].lowerBound == new.upperBound
    switch (joinsLeft, joinsRight) {
    case (false, false): ranges.insert(new, at: low)
    case (true, false): ranges[low - 1] = ranges[low - 1].lowerBound..<new.upperBound
    case (false, true): ranges[low] = new.lowerBound..<ranges[low].upperBound
    case (true, true):
      ranges[low - 1] = ranges[low - 1].lowerBound..<ranges[low].upperBound
      ranges.remove(at: low)
    }
    return true
  }

  /// Takes the last pages out, at most `limit` of them, as one range.
  mutating func removeLast(_ limit: UInt64) -> PageRange? {
    guard limit > 0, let last = ranges.popLast() else { return nil }
    let size = min(UInt64(last.count), limit, PageRange.maximumCount)
    let start = last.upperBound - size
    if start > last.lowerBound { ranges.append(last.lowerBound..<start) }
    count -= size
    return PageRange(start: start, count: size)
  }
}
