// SPDX-License-Identifier: Apache-2.0

import Foundation

/// The file of a device that makes the kernel send an event about it.
struct UEventFile {
  let path: String

  static let loopback = UEventFile(path: "/sys/class/net/lo/uevent")

  var isWritable: Bool { FileManager.default.isWritableFile(atPath: path) }

  func send(_ action: String) throws {
    let handle = try FileHandle(forWritingTo: URL(fileURLWithPath: path))
    try handle.write(contentsOf: Data(action.utf8))
    try handle.close()
  }
}
