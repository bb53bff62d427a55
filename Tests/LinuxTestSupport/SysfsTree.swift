// SPDX-License-Identifier: Apache-2.0

import Foundation
package import VMBusLinux

/// A directory of the test's own with files as sysfs has them; it goes away with its owner.
public final class SysfsTree {
  private let root: URL

  public init() throws {
    root = FileManager.default.temporaryDirectory
      .appendingPathComponent("vmbus-sysfs-\(UUID().uuidString)")
    try FileManager.default.createDirectory(at: root, withIntermediateDirectories: true)
  }

  deinit { try? FileManager.default.removeItem(at: root) }

  public var path: String { root.path }
  package var directory: SysfsDirectory { SysfsDirectory(path) }

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

extension SysfsTree {
  public static let scsi = "ba6163d9-04a1-4d29-b605-72e2ffb1dc7f"
  public static let instance = "f8b3781a-1e82-4818-a1c3-63d806ec15bb"

  /// A SCSI controller with a subchannel, bound to `uio_hv_generic`.
  public static func controller() throws -> SysfsTree {
    let tree = try SysfsTree()
    try tree.write([
      "device_id": "{\(instance)}", "class_id": "{\(scsi)}", "id": "9", "state": "2",
      "driver_override": "uio_hv_generic", "channels/9/subchannel_id": "0",
      "channels/31/subchannel_id": "1", "channels/31/monitor_id": "12",
    ])
    try tree.makeEmptyFile("channels/9/ring", byteCount: 4 << 20)
    try tree.link("driver", to: "../../../bus/vmbus/drivers/uio_hv_generic")
    return tree
  }
}
