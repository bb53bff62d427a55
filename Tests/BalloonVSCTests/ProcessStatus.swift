// SPDX-License-Identifier: Apache-2.0

@testable import BalloonVSC

/// A number of `/proc/self/status`, in KiB.
func processStatus(_ name: String) throws -> Int {
  for line in try readFile("/proc/self/status").split(separator: "\n")
  where line.hasPrefix(name + ":") {
    let words = line.split { $0 == " " || $0 == "\t" }
    return words.count > 1 ? Int(words[1]) ?? -1 : -1
  }
  return -1
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
