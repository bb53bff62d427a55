// SPDX-License-Identifier: Apache-2.0

import Glibc

/// A file of that size that can be cut off, as a kernel takes a ring away.
public func makeRingFile(byteCount: Int) -> Int32 {
  var path = Array("/tmp/vmbus-ring.XXXXXX".utf8CString)
  let descriptor = unsafe mkstemp(&path)
  _ = unsafe unlink(path)
  _ = ftruncate(descriptor, byteCount)
  return descriptor
}

public func cutOff(_ descriptor: Int32) { _ = ftruncate(descriptor, 0) }

public func closeFile(_ descriptor: Int32) { _ = close(descriptor) }

public func fileHasOnlyZeros(_ descriptor: Int32, from offset: Int) -> Bool {
  var word: UInt64 = 1
  return unsafe pread(descriptor, &word, 8, offset) == 8 && word == 0
}

/// What a descriptor is open on; empty when it is not open.
public func pathOfFile(_ descriptor: Int32) -> String {
  var path = [CChar](repeating: 0, count: 256)
  let count = unsafe readlink("/proc/self/fd/\(descriptor)", &path, 255)
  return String(decoding: path.prefix(max(count, 0)).map { UInt8(bitPattern: $0) }, as: UTF8.self)
}

/// Whether a file is mapped at an address: another test's memory may lie there by now.
public func isMapped(_ address: UInt, from file: Int32) -> Bool {
  guard let maps = unsafe fopen("/proc/self/maps", "r") else { return false }
  defer { unsafe _ = fclose(maps) }
  let path = pathOfFile(file)
  var line = [CChar](repeating: 0, count: 1024)
  // start-end rights offset device inode path
  while unsafe fgets(&line, 1024, maps) != nil {
    let bytes = line.prefix { $0 != 0 && $0 != 10 }.map { UInt8(bitPattern: $0) }
    let text = String(decoding: bytes, as: UTF8.self)
    let place = text.prefix { $0 != " " }.split(separator: "-").compactMap { UInt($0, radix: 16) }
    if place.count == 2, place[0] <= address, address < place[1] { return text.hasSuffix(path) }
  }
  return false
}
