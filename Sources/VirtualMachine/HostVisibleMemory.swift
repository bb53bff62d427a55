// SPDX-License-Identifier: Apache-2.0

import Platform
import Synchronization
import SystemPackage
import VMBus

/// The pages of an isolated machine that its guest has made host-visible: other memory than the private
/// pages of the same numbers, so that a page that is used with the wrong visibility carries nothing. It
/// is all that an untrusted host gets.
@safe
final class HostVisibleMemory: Sendable {
  let file: MemoryFile
  private let mapping: MappedMemory
  /// A bit for each page, by its place in the file.
  private let visible: Lock<[UInt64]>

  init(byteCount: Int) throws(Errno) {
    file = try MemoryFile(name: "vmbus-vm-visible", byteCount: byteCount)
    mapping = try file.map()
    visible = Lock([UInt64](repeating: 0, count: byteCount / 4096 / 64 + 1))
  }

  /// - Parameter offset: within the file.
  @unsafe
  func start(at offset: UInt64) -> UnsafeMutableRawPointer {
    unsafe mapping.start + Int(offset)
  }

  /// Whether a stretch of bytes within the file is visible; nil when some of it is and some is not.
  func isVisible(_ offset: UInt64, _ count: Int) -> Bool? {
    let pages = Int(offset / 4096)...Int((offset + UInt64(max(count, 1)) - 1) / 4096)
    return visible.withLock { words in
      let visible = pages.count { words[$0 / 64] >> UInt64($0 % 64) & 1 != 0 }
      if visible == 0 { return false }
      return visible == pages.count ? true : nil
    }
  }

  /// The page at that place of the file.
  func set(_ offset: UInt64, _ isVisible: Bool) {
    let page = Int(offset / 4096)
    visible.withLock { words in
      let bit: UInt64 = 1 << UInt64(page % 64)
      if isVisible { words[page / 64] |= bit } else { words[page / 64] &= ~bit }
    }
  }
}
