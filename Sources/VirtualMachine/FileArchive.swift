// SPDX-License-Identifier: Apache-2.0

/// An initial file system: an archive that the kernel unpacks at its start (cpio, "newc" form; see
/// Linux's Documentation/driver-api/early-userspace/buffer-format.rst).
public struct FileArchive: Sendable {
  private var contents: [UInt8] = []
  private var directories: Set<String> = []
  private var number: UInt32 = 1

  private static let directoryMode: UInt32 = 0o040755
  private static let fileMode: UInt32 = 0o100755
  private static let deviceMode: UInt32 = 0o020600

  public init() {}

  /// Adds a file that may be executed, and the directories above it.
  ///
  /// - Parameter path: with or without a slash in front.
  public mutating func addFile(_ path: String, _ bytes: some Collection<UInt8>) {
    let parts = path.split(separator: "/").map(String.init)
    for count in 1..<max(parts.count, 1) {
      addDirectory(parts.prefix(count).joined(separator: "/"))
    }
    add(parts.joined(separator: "/"), mode: Self.fileMode, bytes)
  }

  public mutating func addDirectory(_ path: String) {
    guard directories.insert(path).inserted else { return }
    add(path, mode: Self.directoryMode, [])
  }

  /// The console, which the kernel opens for the first process.
  public mutating func addConsole() {
    addDirectory("dev")
    add("dev/console", mode: Self.deviceMode, [], device: (5, 1))
  }

  /// The whole archive.
  public var bytes: [UInt8] {
    var copy = self
    copy.add("TRAILER!!!", mode: 0, [])
    return copy.contents
  }

  private mutating func add(
    _ name: String, mode: UInt32, _ bytes: some Collection<UInt8>,
    device: (major: UInt32, minor: UInt32) = (0, 0)
  ) {
    let path = Array(name.utf8) + [0]
    // Inode, mode, owner, group, links, time, size, device of the file, device that it is, length of
    // the name, checksum.
    let fields: [UInt32] = [
      number, mode, 0, 0, 1, 0, UInt32(truncatingIfNeeded: bytes.count), 0, 0, device.major,
      device.minor, UInt32(truncatingIfNeeded: path.count), 0,
    ]
    number += 1
    contents += Array("070701".utf8)
    for field in fields {
      let digits = String(field, radix: 16, uppercase: true)
      contents += Array((String(repeating: "0", count: 8 - digits.count) + digits).utf8)
    }
    contents += path
    pad()
    contents += bytes
    pad()
  }

  /// Header with name, and content, end at multiples of four bytes.
  private mutating func pad() {
    while contents.count & 3 != 0 { contents.append(0) }
  }
}
