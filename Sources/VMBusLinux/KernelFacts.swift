// SPDX-License-Identifier: Apache-2.0

import VMBus

/// What matters of the kernel.
public struct KernelFacts: Sendable, Equatable {
  public var release: KernelRelease
  /// The drivers of the bus, loaded or built in.
  public var drivers: Set<String>

  public init(release: KernelRelease, drivers: Set<String>) {
    self.release = release
    self.drivers = drivers
  }

  public static func running(
    _ paths: SystemPaths = SystemPaths()
  ) throws(DiscoveryError) -> KernelFacts {
    KernelFacts(
      release: try SysfsDirectory("\(paths.processes)/sys/kernel").value(
        "osrelease", "a kernel release", KernelRelease.init),
      drivers: Set(try SysfsDirectory("\(paths.sysfs)/bus/vmbus").names(in: "drivers")))
  }
}

/// The first two numbers of a kernel's release.
public struct KernelRelease: Sendable, Equatable, Comparable, CustomStringConvertible {
  public var major: Int
  public var minor: Int

  public init(_ major: Int, _ minor: Int) {
    self.major = major
    self.minor = minor
  }

  /// Reads `6.12.107-cloud-amd64`, `7.2-rc1` and the like.
  public init?(_ text: String) {
    let parts = text.split(separator: ".", maxSplits: 2, omittingEmptySubsequences: false)
    guard parts.count >= 2, let major: Int = SysfsNumber.decimal(parts[0]),
      let minor: Int = SysfsNumber.decimal(parts[1].prefix { $0.isNumber })
    else { return nil }
    self.init(major, minor)
  }

  public static func < (left: KernelRelease, right: KernelRelease) -> Bool {
    (left.major, left.minor) < (right.major, right.minor)
  }

  public var description: String { "\(major).\(minor)" }
}
