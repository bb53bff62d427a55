// SPDX-License-Identifier: Apache-2.0

import Glibc
import Testing

/// A directory that is removed with its files at the end of a test.
struct TemporaryDirectory: ~Copyable {
  let path: String

  init() {
    var template = Array("/tmp/vmbus-disk-XXXXXX".utf8CString)
    path = unsafe String(cString: mkdtemp(&template))
  }

  /// Writes the one image of the directory, and returns its path.
  func disk(_ bytes: [UInt8]) -> String {
    let descriptor = unsafe open(diskPath, O_CREAT | O_WRONLY | O_TRUNC, 0o600)
    let written = unsafe write(descriptor, bytes, bytes.count)
    #expect(written == bytes.count)
    close(descriptor)
    return diskPath
  }

  private var diskPath: String { "\(path)/disk" }

  func resize(_ byteCount: Int) {
    let result = unsafe truncate(diskPath, byteCount)
    #expect(result == 0)
  }

  /// Bytes that the image takes in the file system.
  var allocatedBytes: Int {
    var status = stat()
    let result = unsafe stat(diskPath, &status)
    #expect(result == 0)
    return Int(status.st_blocks) * 512
  }

  func setMode(_ mode: mode_t) {
    let result = unsafe chmod(diskPath, mode)
    #expect(result == 0)
  }

  func makeFIFO() {
    let result = unsafe mkfifo("\(path)/fifo", 0o600)
    #expect(result == 0)
  }

  /// Permissions do not bind root.
  static var isRoot: Bool { geteuid() == 0 }

  deinit {
    for name in ["disk", "fifo"] { unsafe unlink("\(path)/\(name)") }
    unsafe rmdir(path)
  }
}
