// SPDX-License-Identifier: Apache-2.0

public import LinuxDevices
public import VMBus
import VMBusLinux

/// Looks at all that drivers in user space need of a machine. Nothing is opened, written or loaded.
public struct Doctor: Sendable {
  let paths: SystemPaths
  let isolation: Isolation

  public init(_ paths: SystemPaths = SystemPaths(), isolation: Isolation = .current) {
    self.paths = paths
    self.isolation = isolation
  }

  /// From the bottom up: what comes first is put right first.
  public var findings: [Finding] {
    machine + kernel + modules + [isolationFinding] + udev + systemd + rights + [hugePages]
      + vmbusDevices + functions
  }

  // MARK: - What the checks share

  var bus: SysfsDirectory { SysfsDirectory("\(paths.sysfs)/bus/vmbus") }

  /// A file that need not be there, or that need not be ours to read.
  func text(_ directory: String, _ name: String, limit: Int = 1 << 16) -> String? {
    (try? SysfsDirectory(directory).textIfPresent(name, limit: limit)) ?? nil
  }

  func exists(_ path: String) -> Bool { SysfsDirectory(paths.root + path).exists }

  var isHyperV: Bool { if case .none(.notHyperV) = isolation { false } else { true } }

  var kernelName: String? { text("\(paths.processes)/sys/kernel", "osrelease") }

  var release: KernelRelease? { kernelName.flatMap { KernelRelease($0) } }

  func isLoaded(_ driver: String) -> Bool { bus.directory("drivers/\(driver)").exists }
}
