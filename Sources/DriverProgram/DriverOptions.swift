// SPDX-License-Identifier: Apache-2.0

public import ArgumentParser
public import Logging
public import SimulatedBus
public import VFIOPCI
import VSC

/// The arguments that every driver program has: where its device is, and how it is driven.
public struct DriverOptions: ParsableArguments, Sendable {
  @Option(
    help: ArgumentHelp(
      "The socket of a simulated host. Without it, devices are those of this machine.",
      valueName: "path"))
  public var host: String?

  @Option(help: "What this machine is to the simulated host: plain, isolated or confidential.")
  public var machine: Machine = .isolated

  @Flag(
    help:
      "Refuse the host's connection where the paravisor gives no confidential one, with a simulated host."
  )
  public var requireConfidential = false

  @Option(
    help: ArgumentHelp(
      "The device: its instance GUID, its relid, or its place among those of its class, from 0; a PCI function by its address.",
      valueName: "device"))
  public var device: String?

  @Option(
    help: ArgumentHelp(
      "Processors for the polling workers, such as 0,2-3. By default one worker on any.",
      valueName: "list"))
  public var cpu: CPUList?

  @Option(
    help: ArgumentHelp(
      "Rounds without work before a worker sleeps; 0 never polls idly.", valueName: "rounds"))
  public var spin: Int = 2000

  @Option(
    help: ArgumentHelp("MiB of memory of each kind, with a simulated host.", valueName: "MiB"))
  public var memory: Int = 256

  @Option(
    help:
      "Your word on the memory that a channel uses, where this machine can't tell: host-visible, ring or ring+external."
  )
  public var confidentiality: StatedConfidentiality?

  @Option(
    help:
      "The way to a PCI function of this machine: iommufd, group, iommufd-noiommu or noiommu. By default the best one."
  )
  public var vfio: VFIOWay?

  @Flag(name: [.short, .long], help: "Log more, on standard error.")
  public var verbose = false

  public init() {}

  public func validate() throws {
    guard spin >= 0 else { throw ValidationError("--spin must be 0 or more.") }
    guard 1...65536 ~= memory else {
      throw ValidationError("--memory must be 1 to 65536 MiB.")
    }
  }

  /// A logger as the arguments ask for it.
  public func makeLogger(_ label: String) -> Logger {
    var logger = Logger(label: label, factory: StreamLogHandler.standardError(label:))
    logger.logLevel = verbose ? .debug : .warning
    return logger
  }
}

extension DriverOptions {
  /// The same for the nbdkit plugin.
  public var pluginArguments: [String] {
    var arguments = ["machine=\(machine.rawValue)"]
    if let host { arguments.append("host=\(host)") }
    if let device { arguments.append("device=\(device)") }
    if let vfio { arguments.append("vfio=\(vfio.rawValue)") }
    if let confidentiality { arguments.append("confidentiality=\(confidentiality.rawValue)") }
    if let cpu { arguments.append("cpu=" + cpu.numbers.map(String.init).joined(separator: ",")) }
    return arguments + ["spin=\(spin)", "memory=\(memory)"]
  }
}

extension Machine: ExpressibleByArgument {}
extension VFIOWay: ExpressibleByArgument {}

/// `Confidentiality` as people write it.
public enum StatedConfidentiality: String, ExpressibleByArgument, CaseIterable, Sendable {
  case hostVisible = "host-visible"
  case ring
  case ringAndExternal = "ring+external"

  var confidentiality: Confidentiality {
    switch self {
    case .hostVisible: .hostVisible
    case .ring: .ring
    case .ringAndExternal: .ringAndExternalMemory
    }
  }
}
