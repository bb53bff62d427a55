// SPDX-License-Identifier: Apache-2.0

import CLinux

/// The block devices that a device gives the system, and which of them are in use.
package struct DisksInUse {
  private let paths: SystemPaths
  /// Names of disks and their partitions, with "major:minor".
  private var devices: [(name: String, number: String, directory: SysfsDirectory)] = []

  /// - Parameter device: the device's own directory.
  package init(below device: SysfsDirectory, _ paths: SystemPaths) throws(DiscoveryError) {
    self.paths = paths
    try find(in: device, depth: 0)
  }

  /// Directories alone: links lead away, to other devices.
  private mutating func find(in directory: SysfsDirectory, depth: Int) throws(DiscoveryError) {
    // A disk of a controller lies eight directories down; what is deeper is none.
    guard depth < 12 else { return }
    for name in try directory.names(in: ".") {
      let below = directory.directory(name)
      guard Self.isDirectory(below.path) else { continue }
      if try below.linkedName("subsystem") == "block" {
        try note(name, below)
      }
      try find(in: below, depth: depth + 1)
    }
  }

  private mutating func note(
    _ name: String, _ directory: SysfsDirectory
  ) throws(DiscoveryError) {
    // One path of several to a namespace of NVMe, which has no number: the disk lies elsewhere.
    if let disk = Self.sharedDisk(name) {
      let shared = SysfsDirectory("\(paths.sysfs)/block/\(disk)")
      guard shared.exists else { return }
      try noteWithPartitions(disk, shared)
    } else {
      try noteWithPartitions(name, directory)
    }
  }

  private mutating func noteWithPartitions(
    _ name: String, _ directory: SysfsDirectory
  ) throws(DiscoveryError) {
    guard !devices.contains(where: { $0.name == name }),
      let number = try directory.textIfPresent("dev")
    else { return }
    devices.append((name, number, directory))
    for part in try directory.names(in: ".") where part.hasPrefix(name) {
      try noteWithPartitions(part, directory.directory(part))
    }
  }

  /// nvme0n1 for nvme0c3n1.
  static func sharedDisk(_ name: String) -> String? {
    guard name.hasPrefix("nvme"), let c = name.firstIndex(of: "c"),
      let n = name[c...].firstIndex(of: "n")
    else { return nil }
    return String(name[..<c] + name[n...])
  }

  private static func isDirectory(_ path: String) -> Bool {
    var bytes: UInt8 = 0
    // A link's name can be read as a link.
    guard unsafe vmbus_read_link(path, &bytes, 1) < 0 else { return false }
    var status = vmbus_file_status()
    return unsafe vmbus_file_status(path, &status) == 0 && status.mode & 0xF000 == 0x4000
  }

  // MARK: - Uses

  /// What the system uses of them, for people: "nvme0n1p1 (mounted at /)".
  package var uses: [String] {
    get throws(DiscoveryError) {
      let processes = SysfsDirectory(paths.processes)
      // A service may have a view of its own (`PrivateTmp=`): what the first process sees is the system's. Root
      // alone may ask for that.
      var mounted = try? processes.textIfPresent("1/mountinfo", limit: 1 << 20)
      if mounted == nil {
        mounted = try processes.textIfPresent("self/mountinfo", limit: 1 << 20)
      }
      let mounts = Self.mounts(mounted ?? "")
      let swaps = try processes.textIfPresent("swaps", limit: 1 << 16) ?? ""
      var uses: [String] = []
      for (name, number, directory) in devices {
        let node = "\(paths.devices)/\(name)"
        let holders = try directory.names(in: "holders")
        if let place = mounts[number] ?? mounts[node] {
          uses.append("\(name) (mounted at \(place))")
        } else if swaps.split(separator: "\n").contains(where: { $0.hasPrefix("\(node) ") }) {
          uses.append("\(name) (swap)")
        } else if !holders.isEmpty {
          uses.append("\(name) (part of \(holders.joined(separator: ", ")))")
        } else if unsafe vmbus_disk_is_free(node) == -EBUSY {
          // File systems of several devices show in no list by their number.
          uses.append("\(name) (in use)")
        }
      }
      return uses
    }
  }

  /// Where devices were mounted first, by "major:minor" and by what was mounted. A line is
  /// `36 35 98:0 /root /mnt options optional - type source superoptions`.
  static func mounts(_ text: String) -> [String: String] {
    var mounts: [String: String] = [:]
    for line in text.split(separator: "\n") {
      let words = line.split(separator: " ")
      guard words.count > 5 else { continue }
      let place = String(words[4])
      mounts[String(words[2])] = mounts[String(words[2])] ?? place
      if let dash = words.firstIndex(of: "-"), dash + 2 < words.endIndex {
        mounts[String(words[dash + 2])] = mounts[String(words[dash + 2])] ?? place
      }
    }
    return mounts
  }
}
