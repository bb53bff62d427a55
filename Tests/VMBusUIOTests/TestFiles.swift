// SPDX-License-Identifier: Apache-2.0

import Foundation
import Glibc

/// A file of that size that can be cut off, as a kernel takes a ring away.
func makeRingFile(byteCount: Int) -> Int32 {
  var path = Array("/tmp/vmbus-ring.XXXXXX".utf8CString)
  let descriptor = unsafe mkstemp(&path)
  _ = unsafe unlink(path)
  _ = ftruncate(descriptor, byteCount)
  return descriptor
}

func cutOff(_ descriptor: Int32) { _ = ftruncate(descriptor, 0) }

func closeFile(_ descriptor: Int32) { _ = close(descriptor) }

func fileHasOnlyZeros(_ descriptor: Int32, from offset: Int) -> Bool {
  var word: UInt64 = 1
  return unsafe pread(descriptor, &word, 8, offset) == 8 && word == 0
}

/// What a descriptor is open on; empty when it is not open.
func pathOfFile(_ descriptor: Int32) -> String {
  var path = [CChar](repeating: 0, count: 256)
  let count = unsafe readlink("/proc/self/fd/\(descriptor)", &path, 255)
  return String(decoding: path.prefix(max(count, 0)).map { UInt8(bitPattern: $0) }, as: UTF8.self)
}

/// Whether a file is mapped at an address: another test's memory may lie there by now.
func isMapped(_ address: UInt, from file: Int32) -> Bool {
  guard let maps = try? String(contentsOfFile: "/proc/self/maps", encoding: .utf8) else {
    return false
  }
  let path = pathOfFile(file)
  // start-end rights offset device inode path
  return maps.split(separator: "\n").contains { line in
    let place = line.prefix { $0 != " " }.split(separator: "-").compactMap { UInt($0, radix: 16) }
    return place.count == 2 && place[0] <= address && address < place[1] && line.hasSuffix(path)
  }
}
