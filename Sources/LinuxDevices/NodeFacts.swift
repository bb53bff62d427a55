// SPDX-License-Identifier: Apache-2.0

import CLinux
import VMBus

/// What can be learned of a device node without opening it: opening it opens the channel.
public struct NodeFacts: Sendable, Equatable {
  /// Permission bits, as `chmod` takes them.
  public var mode: UInt32
  public var owner: UInt32
  public var group: UInt32
  /// Whether this process may read and write it.
  public var isAccessible: Bool
  /// The process that holds a lock on it. A driver locks the node that it drives.
  public var lockedBy: Int32?

  public init(
    mode: UInt32, owner: UInt32, group: UInt32, isAccessible: Bool, lockedBy: Int32? = nil
  ) {
    self.mode = mode
    self.owner = owner
    self.group = group
    self.isAccessible = isAccessible
    self.lockedBy = lockedBy
  }

  /// Looks at a node; nil when it is not there.
  public init?(ofNode path: String) throws(DiscoveryError) {
    var status = vmbus_file_status()
    let result = unsafe vmbus_file_status(path, &status)
    if result == -ENOENT { return nil }
    guard result >= 0 else { throw .unreadable(file: path, code: -result) }
    let isAccessible = unsafe vmbus_may_read_and_write(path) >= 0
    self.init(
      mode: status.mode & 0o7777, owner: status.owner, group: status.group,
      isAccessible: isAccessible)
    let file = LockTable.File(
      major: status.device_major, minor: status.device_minor, inode: status.inode)
    // Without /proc nobody can say who holds a lock; the driver's own attempt will tell.
    if let locks = try SysfsDirectory("/proc").textIfPresent("locks", limit: 1 << 20) {
      lockedBy = LockTable.holder(of: file, in: locks)
    }
  }
}

/// The text of `/proc/locks`.
package enum LockTable {
  package struct File: Equatable {
    package var major: UInt32
    package var minor: UInt32
    package var inode: UInt64

    package init(major: UInt32, minor: UInt32, inode: UInt64) {
      self.major = major
      self.minor = minor
      self.inode = inode
    }
  }

  /// The process that holds an `flock` on a file. A line is
  /// `1: FLOCK  ADVISORY  WRITE 1234 00:05:87 0 EOF`: number, kind, manner, access, process, device
  /// (hexadecimal) and inode, first byte, last byte. Waiting ones have an arrow after the number.
  package static func holder(of file: File, in text: String) -> Int32? {
    for line in text.split(separator: "\n") {
      let words = line.split(separator: " ", omittingEmptySubsequences: true)
      guard words.count >= 6, words[1] == "FLOCK", let process = Int32(words[4]) else { continue }
      let place = words[5].split(separator: ":", omittingEmptySubsequences: false)
      guard place.count == 3, let major = UInt32(place[0], radix: 16),
        let minor = UInt32(place[1], radix: 16), let inode = UInt64(place[2])
      else { continue }
      if File(major: major, minor: minor, inode: inode) == file { return process }
    }
    return nil
  }
}
