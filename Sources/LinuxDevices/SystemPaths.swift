// SPDX-License-Identifier: Apache-2.0

/// Where the system tells of its devices: other places in tests.
public struct SystemPaths: Sendable, Equatable {
  public var sysfs: String
  public var devices: String
  public var processes: String
  /// What paths of all else begin with: empty but in tests.
  public var root: String

  public init(
    sysfs: String = "/sys", devices: String = "/dev", processes: String = "/proc", root: String = ""
  ) {
    self.sysfs = sysfs
    self.devices = devices
    self.processes = processes
    self.root = root
  }

  /// All of it below one directory.
  public init(below root: String) {
    self.init(
      sysfs: "\(root)/sys", devices: "\(root)/dev", processes: "\(root)/proc", root: root)
  }
}
