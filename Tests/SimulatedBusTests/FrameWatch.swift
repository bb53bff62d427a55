// SPDX-License-Identifier: Apache-2.0

import Glibc
import VSC

/// Looks at all that the host can see, and counts the bytes of frames there.
///
/// A frame's payload is one byte, over and over, that is in no header: so the bytes of the frames under way
/// can be counted wherever they lie, and there must be that many. Headers may stay where they were.
final class FrameWatch {
  let view: HostView
  /// Pages without the boundary bit.
  let uses: [(pages: Range<GPN>, use: String)]
  private let secrets: [UInt8]
  /// Of each secret the bytes in each page that has any.
  private var counts: [[GPN: Int]]
  private(set) var leaks: [String] = []
  private(set) var looks = 0
  /// The most that was found of each secret.
  private(set) var largest: [Int]

  init(_ view: HostView, _ uses: [(pages: Range<GPN>, use: String)], secrets: [UInt8]) {
    self.view = view
    self.uses = uses
    self.secrets = secrets
    counts = Array(repeating: [:], count: secrets.count)
    largest = Array(repeating: 0, count: secrets.count)
  }

  /// - Parameter expected: bytes of the first secrets; of the others there are to be none.
  func look(_ expected: [Int]) {
    looks += 1
    view.look { change in
      let use = uses.first { $0.pages.contains(change.page) }?.use
      for index in secrets.indices {
        let count = unsafe Self.count(secrets[index], in: change.content)
        counts[index][change.page] = Self.hasFrames(use) && count > 0 ? count : nil
      }
      if unsafe !change.isVisible || !mayHold(change.content, use) {
        leaks.append("page 0x\(String(change.page, radix: 16)), used for \(use ?? "nothing")")
      }
    }
    for index in secrets.indices {
      let (found, wanted) = (
        counts[index].values.reduce(0, +), index < expected.count ? expected[index] : 0
      )
      largest[index] = max(largest[index], found)
      if found != wanted {
        leaks.append("\(found) bytes of frames of device \(index), where \(wanted) are under way")
      }
    }
  }

  /// By the C library's loops: a test's own are slow where nothing is optimised.
  private static func count(_ byte: UInt8, in page: UnsafeRawBufferPointer) -> Int {
    var text = unsafe page + [0]
    let count = text.count - 1
    let accepted = [CChar(bitPattern: byte), 0]
    return unsafe text.withUnsafeMutableBytes { bytes in
      guard var position = bytes.baseAddress else { return 0 }
      let end = unsafe position + count
      var found = 0
      while let start = unsafe memchr(position, Int32(byte), end - position) {
        let run = unsafe strspn(start.assumingMemoryBound(to: CChar.self), accepted)
        found += run
        unsafe position = start + run
      }
      return found
    }
  }

  private static func hasFrames(_ use: String?) -> Bool { use == "DMA" || use == "buffer" }

  private func mayHold(_ content: UnsafeRawBufferPointer, _ use: String?) -> Bool {
    switch use {
    // A packet or a message has such a byte now and then, but not eight.
    case "ring", "SynIC":
      !secrets.contains { unsafe contains(content, Array(repeating: $0, count: 8)) }
    default: Self.hasFrames(use)
    }
  }
}
