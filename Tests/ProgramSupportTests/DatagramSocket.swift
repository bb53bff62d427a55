// SPDX-License-Identifier: Apache-2.0

import Glibc

/// What a service manager has: a Unix datagram socket, of a path or of the abstract kind (`@NAME`).
final class DatagramSocket: Sendable {
  private let descriptor: Int32

  /// - Throws: errno as a number.
  init(at name: String) throws(POSIXFailure) {
    let descriptor = socket(AF_UNIX, Int32(SOCK_DGRAM.rawValue), 0)
    guard descriptor >= 0 else { throw POSIXFailure(code: errno) }
    self.descriptor = descriptor
    var address = sockaddr_un()
    address.sun_family = sa_family_t(AF_UNIX)
    var bytes = Array(name.utf8)
    if name.hasPrefix("@") { bytes[0] = 0 }
    // Safe: sun_path is what the structure ends with, and names of tests are shorter.
    let offset = MemoryLayout.offset(of: \sockaddr_un.sun_path) ?? 2
    unsafe withUnsafeMutableBytes(of: &address) { room in
      for (index, byte) in bytes.enumerated() { unsafe room[offset + index] = byte }
    }
    let length = socklen_t(offset + bytes.count)
    let result = unsafe withUnsafePointer(to: &address) { pointer in
      unsafe pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
        unsafe bind(descriptor, $0, length)
      }
    }
    guard result == 0 else { throw POSIXFailure(code: errno) }
  }

  deinit { _ = close(descriptor) }

  /// The next datagram as text; empty when none comes for a minute. Its task sleeps meanwhile: a thread that
  /// waited here might be the one that the sender needs.
  func receive() async -> String {
    for _ in 0..<6000 where isEmpty { try? await Task.sleep(for: .milliseconds(10)) }
    var bytes = [UInt8](repeating: 0, count: 4096)
    let count = unsafe recv(descriptor, &bytes, bytes.count, Int32(MSG_DONTWAIT))
    return String(decoding: bytes.prefix(max(count, 0)), as: UTF8.self)
  }

  /// Whether nothing has come.
  var isEmpty: Bool {
    var waiting = pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0)
    return unsafe poll(&waiting, 1, 0) == 0
  }
}

struct POSIXFailure: Error {
  let code: Int32
}

/// A path in a directory of its own, which goes with the value.
final class TemporarySocketPath: Sendable {
  let directory: String
  var path: String { directory + "/notify" }

  init() {
    var template = Array("/tmp/vmbus-notify.XXXXXX".utf8CString)
    directory = unsafe mkdtemp(&template).map { unsafe String(cString: $0) } ?? "/tmp"
  }

  deinit {
    unsafe unlink(path)
    unsafe rmdir(directory)
  }
}

let ownProcess = getpid()
let parentProcess = getppid()

/// Holds a thread up.
@safe
final class Gate: @unchecked Sendable {
  private let semaphore = UnsafeMutablePointer<sem_t>.allocate(capacity: 1)

  init() { unsafe sem_init(semaphore, 0, 0) }

  deinit {
    unsafe sem_destroy(semaphore)
    unsafe semaphore.deallocate()
  }

  func wait() { unsafe sem_wait(semaphore) }
  func open() { unsafe sem_post(semaphore) }
}
