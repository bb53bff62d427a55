// SPDX-License-Identifier: Apache-2.0

import Synchronization
import VMBus

/// Which pages of a stretch of guest memory are host-visible. The guest changes it page by page, on
/// the control thread, while device threads look.
@safe
struct VisibilityMap: @unchecked Sendable {
  // All accesses are atomic.
  private let words: UnsafeMutablePointer<Atomic<UInt64>>
  private let wordCount: Int

  init(pageCount: UInt64) {
    wordCount = Int((pageCount + 63) / 64)
    unsafe words = .allocate(capacity: max(wordCount, 1))
    for word in 0..<max(wordCount, 1) { unsafe (words + word).initialize(to: Atomic(0)) }
  }

  func deallocate() { unsafe words.deallocate() }

  /// - Parameter index: of a page within the stretch.
  func isVisible(_ index: UInt64) -> Bool { run(from: index, visible: true) > 0 }

  /// How many pages from there on are of one kind: as far as one word tells, so 64 at most.
  func run(from index: UInt64, visible: Bool) -> UInt64 {
    let word = Int(index >> 6)
    guard word < wordCount else { return 0 }
    let bits = unsafe words[word].load(ordering: .relaxed) >> (index & 63)
    let same = visible ? bits : ~bits
    return min(UInt64((~same).trailingZeroBitCount), 64 &- (index & 63))
  }

  /// - Parameter pages: within the stretch.
  func set(_ pages: Range<UInt64>, visible: Bool) {
    for page in pages where page >> 6 < UInt64(wordCount) {
      let bit = UInt64(1) << (page & 63)
      let word = Int(page >> 6)
      if visible {
        unsafe words[word].bitwiseOr(bit, ordering: .relaxed)
      } else {
        unsafe words[word].bitwiseAnd(~bit, ordering: .relaxed)
      }
    }
  }
}
