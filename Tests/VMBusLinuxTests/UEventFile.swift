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

  /// The kernel makes it a little larger than nothing.
  static func makeReceiveBufferSmall(_ socket: Int32) throws {
    var size: Int32 = 1
    let result = unsafe setsockopt(
      socket, SOL_SOCKET, SO_RCVBUF, &size, socklen_t(MemoryLayout<Int32>.size))
    guard result == 0 else { throw CocoaError(.fileWriteUnknown) }
  }
}
