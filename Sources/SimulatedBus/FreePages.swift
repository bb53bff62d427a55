// SPDX-License-Identifier: Apache-2.0

/// Stretches of pages that nobody uses.
struct FreePages {
  /// By page index, sorted, no two of them adjacent.
  private(set) var stretches: [Range<Int>]

  init(_ stretches: [Range<Int>] = []) { self.stretches = stretches }

  /// Takes pages behind each other out of it.
  mutating func take(_ count: Int) -> Range<Int>? {
    guard let index = stretches.firstIndex(where: { $0.count >= count }) else { return nil }
    let start = stretches[index].lowerBound
    stretches[index] = start + count..<stretches[index].upperBound
    if stretches[index].isEmpty { stretches.remove(at: index) }
    return start..<start + count
  }

  /// Puts pages back that were not in it.
  mutating func insert(_ pages: Range<Int>) {
    let index = stretches.firstIndex { $0.lowerBound > pages.lowerBound } ?? stretches.count
    stretches.insert(pages, at: index)
    if index + 1 < stretches.count,
      stretches[index].upperBound == stretches[index + 1].lowerBound
    {
      stretches[index] = stretches[index].lowerBound..<stretches[index + 1].upperBound
      stretches.remove(at: index + 1)
    }
    if index > 0, stretches[index - 1].upperBound == stretches[index].lowerBound {
      stretches[index - 1] = stretches[index - 1].lowerBound..<stretches[index].upperBound
      stretches.remove(at: index)
    }
  }
}
