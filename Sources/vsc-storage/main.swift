// SPDX-License-Identifier: Apache-2.0

import ArgumentParser
import BlockPrograms
import DriverProgram

/// The storage driver as a program.
struct StorageProgram: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "vsc-storage",
    abstract: "Reads, writes, measures and exports a disk of a Hyper-V host over VMBus.",
    version: projectVersion,
    subcommands: [
      ListCommand.self, InfoCommand<DiskOptions>.self, ReadCommand<DiskOptions>.self,
      WriteCommand<DiskOptions>.self, DiscardCommand<DiskOptions>.self,
      ZeroCommand<DiskOptions>.self, BenchCommand<DiskOptions>.self,
      ExportCommand<DiskOptions>.self,
    ])
}

await StorageProgram.runProgram()
