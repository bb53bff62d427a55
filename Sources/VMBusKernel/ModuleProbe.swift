// SPDX-License-Identifier: Apache-2.0

import CUserVSC
import Platform
import SystemPackage
import VMBus
import VMBusLinux
import VSC

/// What can be learned of a device by opening its node for a moment, which opens no channel. A driver that
/// comes in that moment tries again.
enum ModuleProbe: Sendable, Equatable {
  case facts(ModuleFacts)
  case obstacle(ModuleObstacle)

  init(node: String) {
    do throws(Errno) {
      let file = try KernelFile(path: node)
      switch try Self.facts(file) {
      case .success(let facts): self = .facts(facts)
      case .failure(let error): self = .obstacle(.facts(error))
      }
    } catch .resourceBusy {
      self = .obstacle(.inUse(node: node))
    } catch {
      self = .obstacle(.refused(node: node, code: error.rawValue))
    }
  }

  /// What the module says now.
  static func facts(
    _ file: borrowing KernelFile
  ) throws(Errno) -> Result<ModuleFacts, ModuleFactsError> {
    let info: hv_uservsc_info
    do throws(Errno) {
      info = try file.info()
    } catch .invalidArgument, .inappropriateIOCTLForDevice {
      // The structure has another size there.
      return .failure(.otherInterface)
    }
    guard let primary = try file.channel(0) else { throw .operationNotSupportedByDevice }
    do throws(ModuleFactsError) {
      return .success(try ModuleFacts(info, primary))
    } catch {
      return .failure(error)
    }
  }
}

/// Why a device cannot be driven through the module as things are, and what to do about it.
enum ModuleObstacle: Error, Sendable, Equatable {
  case binding(BindingObstacle)
  /// Another process has it, which took no lock.
  case inUse(node: String)
  case refused(node: String, code: Int32)
  case facts(ModuleFactsError)
}

extension ModuleObstacle: CustomStringConvertible {
  var description: String {
    switch self {
    case .binding(let obstacle): obstacle.description
    case .inUse(let node): "\(node) is in use by another process"
    case .refused(let node, let code): "\(node): \(Errno(rawValue: code))"
    case .facts(let error): error.description
    }
  }

  var remedy: String? {
    switch self {
    case .binding(let obstacle): obstacle.remedy
    case .inUse(let node): "end it first: fuser \(node)"
    case .refused: "look at the kernel's log (dmesg)"
    case .facts(.version), .facts(.otherInterface):
      "build and load the module of this package's version (kmod/)"
    case .facts: nil
    }
  }
}

extension VMBusDeviceRecord {
  /// The first thing that stands in the way of driving this device; nil when there is none.
  ///
  /// - Parameters:
  ///   - node: what is known of the node with that path, nil when it is not there.
  ///   - probe: not called while there is a node's obstacle.
  func obstacle(
    _ kernel: KernelFacts, node: (String) throws(DiscoveryError) -> NodeFacts?,
    probe: () -> ModuleProbe
  ) throws(DiscoveryError) -> ModuleObstacle? {
    if let obstacle = obstacle(to: KernelModuleDriver.name, kernel) { return .binding(obstacle) }
    if let obstacle = NodeFacts.obstacle(
      try node(moduleNode), node: moduleNode, subsystem: KernelModuleDriver.name)
    {
      return .binding(obstacle)
    }
    switch probe() {
    case .obstacle(let obstacle): return obstacle
    case .facts(let facts):
      do throws(ModuleFactsError) {
        _ = try facts.confidentiality()
        return nil
      } catch {
        return .facts(error)
      }
    }
  }
}
