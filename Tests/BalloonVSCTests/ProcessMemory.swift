// SPDX-License-Identifier: Apache-2.0

import CLinux

@testable import BalloonVSC

/// Memory of a balloon in a part of this process's address space, in KiB: of mappings that no child
/// gets ("dc"), since others may be given the addresses when the balloon is gone.
func residentKiB(_ addresses: Range<UInt>) throws -> Int {
  var buffer = [UInt8](repeating: 0, count: 8 << 20)
  let count = unsafe vmbus_read_file("/proc/self/smaps", &buffer, buffer.count)
  let text = String(decoding: buffer.prefix(max(Int(count), 0)), as: UTF8.self)
  var isInside = false
  var (resident, sum) = (0, 0)
  for line in text.split(separator: "\n") {
    let words = line.split(separator: " ", omittingEmptySubsequences: true)
    guard let first = words.first else { continue }
    if first.contains("-"), let start = UInt(first.prefix { $0 != "-" }, radix: 16) {
      isInside = addresses.contains(start)
    } else if first == "Rss:", words.count > 1 {
      resident = Int(words[1]) ?? 0
    } else if isInside, first == "VmFlags:", words.contains("dc") {
      sum += resident
    }
  }
  return sum
}

/// Why this process can't take memory for a balloon, or nil when it can.
func balloonProblem() -> BalloonMemoryError? {
  do throws(BalloonMemoryError) {
    _ = try PinnedMemory.open(maximumPageCount: 512)
    return nil
  } catch {
    return error
  }
}

/// Makes memory for a body, and gives all of it back.
func withPinnedMemory(
  _ maximum: UInt64, _ body: (inout PinnedMemory) throws -> Void
) throws {
  var memory = try PinnedMemory.open(maximumPageCount: maximum)
  try body(&memory)
}
