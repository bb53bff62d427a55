// SPDX-License-Identifier: Apache-2.0

import FoundationEssentials

/// What this process has of the system now.
public struct Footprint: Equatable, CustomStringConvertible {
  public let descriptors: Int
  /// Mappings of memory that is shared with a host, simulated or real.
  public let sharedMappings: Int
  /// Threads whose name begins with a word.
  public let threads: Int

  public init(threads prefix: String) throws {
    let manager = FileManager.default
    descriptors = try manager.contentsOfDirectory(atPath: "/proc/self/fd").count
    sharedMappings = try Self.text("/proc/self/maps").split(separator: "\n").filter { line in
      ["/memfd:", "/dev/uio", "/ring"].contains { line.contains($0) }
    }.count
    threads = try manager.contentsOfDirectory(atPath: "/proc/self/task").filter { thread in
      let name = try? Self.text("/proc/self/task/\(thread)/comm")
      return name?.hasPrefix(prefix) == true
    }.count
  }

  /// Whether this is not more than what was there before. (It may be less: what was just being given
  /// back counts still.)
  public func isWithin(_ before: Footprint) -> Bool {
    descriptors <= before.descriptors && sharedMappings <= before.sharedMappings
      && threads <= before.threads
  }

  private static func text(_ path: String) throws -> String {
    String(decoding: try Data(contentsOf: URL(filePath: path)), as: UTF8.self)
  }

  public var description: String {
    "\(descriptors) descriptors, \(sharedMappings) shared mappings, \(threads) threads"
  }
}
