// SPDX-License-Identifier: Apache-2.0

import ArgumentParser
import DriverProgram

/// The network driver as a program.
struct NetworkProgram: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "vsc-network",
    abstract: "Joins a network device of a Hyper-V host, over VMBus, to this system.",
    version: projectVersion,
    subcommands: [InfoCommand.self, TapCommand.self, PcapCommand.self, BenchCommand.self])
}

await NetworkProgram.runProgram()
