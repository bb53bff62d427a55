// SPDX-License-Identifier: Apache-2.0

import ArgumentParser
import ProgramSupport

/// A host of this machine's own: vmbus-host as a child, which ends with it.
struct HostProcess {
  /// What is handed on to it.
  struct Options: ParsableArguments {
    @Option(
      help: ArgumentHelp(
        "A disk of a host that is started for this machine, as vmbus-host takes it.",
        valueName: "file[,option...]"))
    var disk: [String] = []

    @Option(
      help: ArgumentHelp(
        "A network device of that host, as vmbus-host takes it: tap=NAME, switch.",
        valueName: "kind[,option...]"))
    var nic: [String] = []

    @Option(help: ArgumentHelp("Dynamic memory, as vmbus-host takes it.", valueName: "MiB"))
    var balloon: Int?

    @Option(
      help: ArgumentHelp("Integration components, as vmbus-host takes them.", valueName: "list"))
    var integration: String?

    @Option(
      help: ArgumentHelp(
        "A further argument of vmbus-host: --host-argument=--capture=FILE.", valueName: "argument"))
    var hostArgument: [String] = []

    var isEmpty: Bool {
      disk.isEmpty && nic.isEmpty && balloon == nil && integration == nil && hostArgument.isEmpty
    }
  }

  let path: String
  private let process: ChildProcess

  init(_ options: Options, verbose: Bool) throws {
    path = "/tmp/vmbus-vm-\(UInt64.random(in: 0 ... .max)).sock"
    var arguments = ["--socket", path]
    for disk in options.disk { arguments += ["--disk", disk] }
    for nic in options.nic { arguments += ["--nic", nic] }
    if let balloon = options.balloon { arguments += ["--balloon", "\(balloon)"] }
    if let integration = options.integration { arguments += ["--integration", integration] }
    arguments += options.hostArgument
    if verbose { arguments.append("--verbose") }
    process = try ChildProcess("vmbus-host", arguments)
    try process.waitUntilItListens(at: path)
  }

  func end() { process.end() }
}
