// SPDX-License-Identifier: Apache-2.0

import ArgumentParser
import DriverProgram
import FoundationEssentials
import Platform
import ProgramSupport

/// Starts a simulated host in the foreground: what a newcomer needs to try the rest.
struct Simulate: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Runs a simulated host with some disks, until Ctrl-C.",
    discussion: """
      The same as vmbus-host, with something to begin with: without --disk, one disk of 64 MiB in
      memory. In another terminal: vmbusctl list --host PATH, vsc-storage info --host PATH.
      With --confidential a paravisor stands before the host, with a disk of its own that lies on the
      host, encrypted: vmbusctl list --host PATH --machine confidential.
      """)

  @Option(help: ArgumentHelp("The Unix socket to listen on.", valueName: "path"))
  var socket = "/tmp/vmbus-host.sock"

  @Option(help: ArgumentHelp("A disk, as vmbus-host takes it.", valueName: "file[,option...]"))
  var disk: [String] = []

  @Option(
    help: ArgumentHelp(
      "A machine whose host is not trusted: snp, tdx or vbs; off by default.", valueName: "kind"))
  var confidential = ConfidentialKind.off

  @Flag(name: [.short, .long], help: "Log more, on standard error.")
  var verbose = false

  func run() async throws {
    let disks = disk.isEmpty ? ["memory:64M"] : disk
    var command = [siblingProgram("vmbus-host"), "--socket", socket]
    for disk in disks { command += ["--disk", disk] }
    if verbose { command.append("--verbose") }
    if confidential != .off { return try runParavisor(disks) }
    printError("simulated host at \(socket) with \(disks.count) disk(s); Ctrl-C ends it")
    throw ProgramFailure(.unavailable, replaceProcess(command))
  }

  /// The host listens beside the path, and the paravisor at it.
  private func runParavisor(_ disks: [String]) throws {
    try Termination.handle()
    let (hostSocket, keyPath) = (socket + ".host", socket + ".key")
    let key = (0..<64).map { _ in UInt8.random(in: 0 ... .max) }
    guard
      FileManager.default.createFile(
        atPath: keyPath, contents: Data(key), attributes: [.posixPermissions: 0o600])
    else { throw ProgramFailure(.cannotCreate, "\(keyPath): can't be written") }
    defer { try? FileManager.default.removeItem(atPath: keyPath) }
    let more = verbose ? ["--verbose"] : []
    let host = try ChildProcess(
      "vmbus-host",
      ["--socket", hostSocket, "--disk", "memory:64M,vtl=2"] + disks.flatMap { ["--disk", $0] }
        + more)
    defer { host.end() }
    try host.waitUntilItListens(at: hostSocket)
    let paravisor = try ChildProcess(
      "vmbus-paravisor",
      [
        "--socket", socket, "--host", hostSocket, "--isolation", confidential.rawValue, "--disk",
        "0,key=\(keyPath)",
      ] + more)
    defer { paravisor.end() }
    try paravisor.waitUntilItListens(at: socket)
    printError(
      "paravisor (\(confidential.rawValue)) at \(socket), with \(disks.count) disk(s) of the host and an encrypted one; Ctrl-C ends it"
    )
    _ = Termination.wait()
  }
}

/// What hides the machine's memory from its host.
enum ConfidentialKind: String, ExpressibleByArgument, CaseIterable {
  case snp
  case tdx
  case vbs
  case off
}
