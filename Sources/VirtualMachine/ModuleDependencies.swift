// SPDX-License-Identifier: Apache-2.0

/// Which modules of a kernel need which, as `modules.dep` says it.
public struct ModuleDependencies: Sendable {
  private struct Module {
    let path: String
    /// All that it needs, and what those need, the last one to be loaded first.
    let needed: [String]
  }

  private let modules: [String: Module]

  public init(parsing text: String) {
    var modules: [String: Module] = [:]
    for line in text.split(separator: "\n") {
      let parts = line.split(separator: ":", maxSplits: 1)
      guard let path = parts.first.map(String.init) else { continue }
      let needed = parts.count == 2 ? parts[1].split(separator: " ").map(String.init) : []
      modules[Self.name(path)] = Module(path: path, needed: needed)
    }
    self.modules = modules
  }

  /// The paths of modules and of all that they need, in the order in which they are to be loaded. A
  /// module that is not there is built in, or this kernel has not got it.
  public func loadOrder(_ names: [String]) -> [String] {
    var order: [String] = []
    for name in names {
      guard let module = modules[Self.name(name)] else { continue }
      for path in module.needed.reversed() + [module.path] where !order.contains(path) {
        order.append(path)
      }
    }
    return order
  }

  /// `hv_vmbus` of `kernel/drivers/hv/hv-vmbus.ko.xz`: the two signs mean the same.
  private static func name(_ path: String) -> String {
    let file = path.split(separator: "/").last ?? ""
    let name = file.split(separator: ".").first ?? ""
    return String(name.map { $0 == "-" ? "_" : $0 })
  }
}
