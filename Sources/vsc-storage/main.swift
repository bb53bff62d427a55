// SPDX-License-Identifier: Apache-2.0

import ArgumentParser
import DriverProgram

/// The storage driver as a program.
struct StorageProgram: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "vsc-storage",
    abstract: "Reads, writes, measures and exports a disk of a Hyper-V host over VMBus.",
    version: projectVersion,
    subcommands: [
      ListCommand.self, InfoCommand.self, ReadCommand.self, WriteCommand.self, DiscardCommand.self,
      ZeroCommand.self, BenchCommand.self, ExportCommand.self,
    ])
}

await StorageProgram.runProgram()
