// SPDX-License-Identifier: Apache-2.0

import ArgumentParser
import BlockPrograms
import DriverProgram

/// The NVMe driver as a program.
struct NVMeProgram: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "vsc-nvme",
    abstract: "Lists, reads, writes, measures and exports namespaces of an NVMe controller.",
    version: projectVersion,
    subcommands: [
      ListCommand.self,
      InfoCommand<NamespaceOptions>.self, ReadCommand<NamespaceOptions>.self,
      WriteCommand<NamespaceOptions>.self, DiscardCommand<NamespaceOptions>.self,
      ZeroCommand<NamespaceOptions>.self, BenchCommand<NamespaceOptions>.self,
      ExportCommand<NamespaceOptions>.self,
    ])
}

await NVMeProgram.runProgram()
