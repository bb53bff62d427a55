// SPDX-License-Identifier: Apache-2.0

import Foundation

/// A directory of the test's own with files as sysfs has them; it goes away with its owner.
public final class SysfsTree: Sendable {
  private let root: URL

  public init() throws {
    root = FileManager.default.temporaryDirectory
      .appendingPathComponent("vmbus-sysfs-\(UUID().uuidString)")
    try FileManager.default.createDirectory(at: root, withIntermediateDirectories: true)
  }

  deinit { try? FileManager.default.removeItem(at: root) }

  public var path: String { root.path }

  /// Writes files, each with the newline that the kernel puts at the end.
  public func write(_ files: [String: String]) throws {
    for (name, text) in files { try Data((text + "\n").utf8).write(to: place(name)) }
  }

  public func makeEmptyFile(_ name: String, byteCount: UInt64) throws {
    let file = try place(name)
    try Data().write(to: file)
    let handle = try FileHandle(forWritingTo: file)
    try handle.truncate(atOffset: byteCount)
    try handle.close()
  }

  public func makeDirectory(_ name: String) throws {
    try FileManager.default.createDirectory(
      at: root.appendingPathComponent(name), withIntermediateDirectories: true)
  }

  public func link(_ name: String, to target: String) throws {
    try FileManager.default.createSymbolicLink(
      atPath: place(name).path, withDestinationPath: target)
  }

  public func remove(_ name: String) throws {
    try FileManager.default.removeItem(at: root.appendingPathComponent(name))
  }

  private func place(_ name: String) throws -> URL {
    let file = root.appendingPathComponent(name)
    try FileManager.default.createDirectory(
      at: file.deletingLastPathComponent(), withIntermediateDirectories: true)
    return file
  }
}
