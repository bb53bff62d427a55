// SPDX-License-Identifier: Apache-2.0

import ArgumentParser
import CLinux
import Platform
import ProgramSupport
import SystemPackage

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
  private let process: Int32
  private static let secondsToStart = 10

  init(_ options: Options, verbose: Bool) throws {
    path = "/tmp/vmbus-vm-\(UInt64.random(in: 0 ... .max)).sock"
    var command = [siblingProgram("vmbus-host"), "--socket", path]
    for disk in options.disk { command += ["--disk", disk] }
    for nic in options.nic { command += ["--nic", nic] }
    if let balloon = options.balloon { command += ["--balloon", "\(balloon)"] }
    if let integration = options.integration { command += ["--integration", integration] }
    command += options.hostArgument
    if verbose { command.append("--verbose") }
    var arguments = unsafe command.map { unsafe strdup($0) }
    unsafe arguments.append(nil)
    defer { for index in 0..<command.count { unsafe free(arguments[index]) } }
    process = unsafe vmbus_spawn(&arguments)
    guard process > 0 else {
      throw ProgramFailure(.unavailable, "\(command[0]): \(Errno(rawValue: -process))")
    }
    try waitUntilItListens()
  }

  private func waitUntilItListens() throws {
    for _ in 0..<Self.secondsToStart * 20 {
      if (try? PacketSocket(connectingTo: path)) != nil { return }
      // It says itself what is wrong with its arguments.
      if let status = ended() {
        throw ProgramFailure(.unavailable, "vmbus-host ended with status \(status)")
      }
      vmbus_sleep_milliseconds(50)
    }
    end()
    throw ProgramFailure(.unavailable, "vmbus-host does not listen")
  }

  /// The child's status when it has ended.
  private func ended() -> Int32? {
    var status: Int32 = 0
    guard unsafe waitpid(process, &status, WNOHANG) == process else { return nil }
    return status & 0x7F == 0 ? status >> 8 & 0xFF : 128 + status & 0x7F
  }

  func end() {
    vmbus_terminate(process)
    _ = vmbus_wait_for_child(process)
  }
}
