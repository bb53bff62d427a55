// SPDX-License-Identifier: Apache-2.0

import Glibc
import Platform
import Synchronization
import SystemPackage

/// A named pipe whose lines are commands: `echo rescan > host.control`.
final class ControlPipe: Sendable {
  private let descriptor: OwnedDescriptor
  private let path: String
  private let worker: Worker

  /// A line whose end has not come.
  private final class Pending: Sendable {
    let bytes = Lock<[UInt8]>([])
  }

  /// Makes the pipe anew; it goes with this object.
  ///
  /// - Throws: `fileExists` when something else than a pipe is there.
  init(path: String, _ execute: @escaping @Sendable (String) -> Void) throws(Errno) {
    // Safe: the path is a terminated string for the time of each call.
    if unsafe mkfifo(path, 0o600) != 0 {
      guard errno == EEXIST, ControlPipe.isPipe(path) else { throw Errno(rawValue: errno) }
    }
    // For writing too, so that the pipe has no end when a writer has.
    let opened = unsafe open(path, O_RDWR | O_NONBLOCK | O_CLOEXEC)
    guard opened >= 0 else { throw Errno(rawValue: errno) }
    descriptor = OwnedDescriptor(owning: opened)
    self.path = path
    worker = try Worker(.init(name: "vmbus-commands", spinRounds: 0))
    let pending = Pending()
    worker.watch(opened) {
      for line in ControlPipe.lines(opened, pending) { execute(line) }
    }
  }

  func close() {
    worker.stop()
    unsafe unlink(path)
  }

  private static func isPipe(_ path: String) -> Bool {
    var status = stat()
    return unsafe lstat(path, &status) == 0 && status.st_mode & S_IFMT == S_IFIFO
  }

  /// The whole lines that have come; what follows the last one is kept.
  private static func lines(_ descriptor: Int32, _ pending: Pending) -> [String] {
    pending.bytes.withLock { bytes in
      var buffer = [UInt8](repeating: 0, count: 4096)
      while true {
        let count = unsafe read(descriptor, &buffer, buffer.count)
        guard count > 0 else { break }
        bytes += buffer.prefix(count)
      }
      var lines: [String] = []
      while let end = bytes.firstIndex(of: 0x0A) {
        lines.append(String(decoding: bytes[..<end], as: UTF8.self))
        bytes.removeSubrange(...end)
      }
      // A line without an end is no command.
      if bytes.count > 65536 { bytes.removeAll() }
      return lines
    }
  }
}
