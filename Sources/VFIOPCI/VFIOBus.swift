// SPDX-License-Identifier: Apache-2.0

public import LinuxDevices
public import PCIFunction
import Platform
import Synchronization
import SystemPackage
import VMBus
import VSC

/// What all functions of this machine share.
final class VFIOMachine: Sendable {
  let paths: SystemPaths
  let wantedWay: VFIOWay?
  /// Nil where it can't be read: then no function without an IOMMU can be used by its group.
  let pageMap: PageMap?
  let isIsolated: Bool

  init(_ configuration: VFIOBus.Configuration) {
    paths = configuration.paths
    wantedWay = configuration.way
    pageMap = try? PageMap()
    // What is not known to be plain counts as isolated.
    isIsolated = if case .none = Isolation.current { false } else { true }
  }
}

/// The PCI functions of this machine, as far as Linux gives them to user space: those that are bound to
/// vfio-pci can be used, and of all others it can be told why not.
public final class VFIOBus: PCIBus {
  public struct Configuration: Sendable {
    /// Nil for the best way that the kernel offers for a function.
    public var way: VFIOWay?
    public var paths = SystemPaths()

    public init() {}
  }

  private let machine: VFIOMachine

  /// Opens what needs privileges: call it before they are dropped.
  public init(_ configuration: Configuration = Configuration()) {
    machine = VFIOMachine(configuration)
  }

  public var name: String { "this machine's PCI" }

  public var functions: [any PCIFunction] {
    get throws(PCIError) {
      do throws(DiscoveryError) {
        return try PCIRecord.all(machine.paths).map { VFIOFunction($0, on: machine) }
      } catch {
        throw .transport(.unusable(reason: "\(error)"))
      }
    }
  }
}
