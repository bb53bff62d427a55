// SPDX-License-Identifier: Apache-2.0

import ArgumentParser
import SimulatedHost
import StorageProtocol

/// `DISK:FAULT...`
struct FaultArgument: ExpressibleByArgument {
  enum Kind {
    /// Of the completions of the disk's controller.
    case channel(FaultPlan)
    /// Of the disk's commands.
    case command(StorageFault)
    /// The newest version that its controller accepts; with nil it accepts none.
    case version(StorageVersion?)
  }

  let disk: Int
  let kind: Kind

  init?(argument: String) {
    let parts = argument.split(separator: ":", maxSplits: 1)
    guard parts.count == 2, let disk = Int(parts[0]), disk >= 0 else { return nil }
    self.disk = disk
    let text = String(parts[1])
    if let plan = FaultPlan(text) {
      kind = .channel(plan)
    } else if let fault = StorageFault(text) {
      kind = .command(fault)
    } else if text.hasPrefix("version=") {
      let number = text.dropFirst("version=".count)
      let version = StorageVersion(number)
      guard version != nil || number == "none" else { return nil }
      kind = .version(version)
    } else {
      return nil
    }
  }
}
