// SPDX-License-Identifier: Apache-2.0

import CLinux
package import LinuxDevices
import VMBus

/// A process that has a device's node open, or mapped.
public struct NodeHolder: Sendable, Equatable {
  public var process: Int32
  public var name: String
  /// The service of systemd's that it belongs to, if it does to one.
  public var service: String?

  public init(process: Int32, name: String, service: String? = nil) {
    self.process = process
    self.name = name
    self.service = service
  }

  /// What ends it. A service would be started again.
  var remedy: String { service.map { "systemctl stop \($0)" } ?? "kill \(process)" }

  static func list(_ holders: [NodeHolder]) -> String {
    holders.map { "process \($0.process) (\($0.name))" }.joined(separator: ", ")
  }

  /// Who has a node open. Without root's rights that is said of one's own processes alone.
  package static func holders(
    of node: String, _ paths: SystemPaths
  ) throws(DiscoveryError) -> [NodeHolder] {
    guard let wanted = FileIdentity(node) else { return [] }
    let processes = SysfsDirectory(paths.processes)
    var found: [NodeHolder] = []
    for name in try processes.names(in: ".") {
      guard let process: Int32 = SysfsNumber.decimal(name) else { continue }
      let directory = processes.directory(name)
      // Processes end while they are looked at, and those of others can't be.
      guard has(directory, wanted) || hasMapped(directory, node) else { continue }
      let command = (try? directory.textIfPresent("comm")) ?? "?"
      found.append(NodeHolder(process: process, name: command, service: service(of: directory)))
    }
    return found.sorted { $0.process < $1.process }
  }

  /// The last part of the process's control group: `0::/system.slice/NAME.service`.
  private static func service(of process: SysfsDirectory) -> String? {
    let groups = (try? process.textIfPresent("cgroup")) ?? ""
    let line = groups.split(separator: "\n").first { $0.hasPrefix("0::") }
    let name = line?.split(separator: "/").last.map(String.init)
    guard let name, name.hasSuffix(".service"), !name.hasPrefix("user@") else { return nil }
    return name
  }

  private static func has(_ process: SysfsDirectory, _ file: FileIdentity) -> Bool {
    guard let descriptors = try? process.names(in: "fd") else { return false }
    return descriptors.contains { FileIdentity("\(process.path)/fd/\($0)") == file }
  }

  /// A mapping keeps the file open when its descriptor is closed. A line is
  /// `7f00-7f40 rw-s 00000000 00:05 87 /dev/uio0`.
  private static func hasMapped(_ process: SysfsDirectory, _ node: String) -> Bool {
    guard let maps = try? process.textIfPresent("maps", limit: 1 << 20) else { return false }
    return maps.split(separator: "\n").contains { $0.hasSuffix(" \(node)") }
  }
}

/// Which file a path leads to. A device's node may lie in several places: its number tells.
private enum FileIdentity: Equatable {
  case device(isBlock: Bool, major: UInt32, minor: UInt32)
  case file(major: UInt32, minor: UInt32, inode: UInt64)

  init?(_ path: String) {
    var status = vmbus_file_status()
    guard unsafe vmbus_file_status(path, &status) == 0 else { return nil }
    self =
      switch status.mode & 0o170000 {
      case 0o020000, 0o060000:
        .device(
          isBlock: status.mode & 0o170000 == 0o060000, major: status.number_major,
          minor: status.number_minor)
      default:
        .file(
          major: status.device_major, minor: status.device_minor, inode: status.inode)
      }
  }
}
