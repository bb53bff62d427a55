// SPDX-License-Identifier: Apache-2.0

import ArgumentParser
import DriverProgram

/// Starts a simulated host in the foreground: what a newcomer needs to try the rest.
struct Simulate: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Runs a simulated host with some disks, until Ctrl-C.",
    discussion: """
      The same as vmbus-host, with something to begin with: without --disk, one disk of 64 MiB in
      memory. In another terminal: vmbusctl list --host PATH, vsc-storage info --host PATH.
      """)

  @Option(help: ArgumentHelp("The Unix socket to listen on.", valueName: "path"))
  var socket = "/tmp/vmbus-host.sock"

  @Option(help: ArgumentHelp("A disk, as vmbus-host takes it.", valueName: "file[,option...]"))
  var disk: [String] = []

  @Flag(name: [.short, .long], help: "Log more, on standard error.")
  var verbose = false

  func run() async throws {
    let disks = disk.isEmpty ? ["memory:64M"] : disk
    var command = [siblingProgram("vmbus-host"), "--socket", socket]
    for disk in disks { command += ["--disk", disk] }
    if verbose { command.append("--verbose") }
    printError("simulated host at \(socket) with \(disks.count) disk(s); Ctrl-C ends it")
    throw ProgramFailure(.unavailable, replaceProcess(command))
  }
}
