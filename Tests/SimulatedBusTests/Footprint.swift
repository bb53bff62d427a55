// SPDX-License-Identifier: Apache-2.0

import FoundationEssentials

/// What this process has of the system now.
struct Footprint: Equatable, CustomStringConvertible {
  let descriptors: Int
  /// Mappings of files: memory that is shared with a host.
  let sharedMappings: Int
  /// Threads whose name begins with a word.
  let threads: Int

  init(threads prefix: String) throws {
    let manager = FileManager.default
    descriptors = try manager.contentsOfDirectory(atPath: "/proc/self/fd").count
    sharedMappings = try Self.text("/proc/self/maps").split(separator: "\n").filter {
      $0.contains("/memfd:")
    }.count
    threads = try manager.contentsOfDirectory(atPath: "/proc/self/task").filter { thread in
      let name = try? Self.text("/proc/self/task/\(thread)/comm")
      return name?.hasPrefix(prefix) == true
    }.count
  }

  private static func text(_ path: String) throws -> String {
    String(decoding: try Data(contentsOf: URL(filePath: path)), as: UTF8.self)
  }

  var description: String {
    "\(descriptors) descriptors, \(sharedMappings) shared mappings, \(threads) threads"
  }
}
