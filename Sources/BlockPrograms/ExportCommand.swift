// SPDX-License-Identifier: Apache-2.0

public import ArgumentParser
import BlockStorage
import CLinux
import Platform
import ProgramSupport
import SystemPackage

public struct ExportCommand<Source: DiskSource>: AsyncParsableCommand {
  public static var configuration: CommandConfiguration {
    CommandConfiguration(
      commandName: "export",
      abstract: "Serves the disk as NBD, through nbdkit.",
      discussion: """
        Use the disk with nbdcopy, qemu-img, fio or nbd-client, as nbd+unix:///?socket=PATH or
        nbd://localhost:PORT. It is served until SIGINT or SIGTERM.
        """)
  }

  public init() {}

  @OptionGroup public var disk: Source

  @Option(help: ArgumentHelp("The Unix socket to serve on.", valueName: "path"))
  var socket: String?

  @Option(help: ArgumentHelp("The TCP port to serve on, on this machine only.", valueName: "port"))
  var port: UInt16?

  @Flag(help: "Refuse writes.")
  var readOnly = false

  @Option(
    help: ArgumentHelp("Requests that each connection may have under way.", valueName: "count"))
  var threads: Int = 16

  @Option(
    help: ArgumentHelp(
      "The plugin; by default it lies beside this program, or in ../lib/swift-vmbus.",
      valueName: "file"))
  var plugin: String?

  public func validate() throws {
    guard (socket == nil) != (port == nil) else {
      throw ValidationError("Say either --socket PATH or --port PORT.")
    }
    guard port != 0 else { throw ValidationError("--port must be 1 to 65535.") }
    guard 1...1024 ~= threads else { throw ValidationError("--threads must be 1 to 1024.") }
  }

  public func run() async throws {
    let pluginArguments = try disk.pluginArguments()
    let plugin = plugin ?? Self.ownPlugin()
    guard unsafe access(plugin, R_OK) == 0 else {
      throw ProgramFailure(
        .unavailable,
        "\(plugin) is missing: install nbdkit-plugin-dev, build again with --manifest-cache none")
    }
    // What the disk is, and whether it is there at all: one clear line instead of nbdkit's.
    try await disk.withDisk { _ in }
    try Termination.handle()
    let command = try command(plugin, pluginArguments)
    // `--exit-with-parent` ends nbdkit with the thread that started it, so that must be one which
    // stays: the threads of Swift's pool come and go.
    let waiter = try Worker(.init(name: "nbdkit", spinRounds: 0))
    let child = try await withCheckedThrowingContinuation { continuation in
      waiter.post { continuation.resume(with: Result { try Self.start(command) }) }
    }
    let signals = Task {
      guard (try? await Termination.next()) != nil, !Task.isCancelled else { return }
      ServiceManager.own?.tell(.stopping)
      vmbus_terminate(child)
    }
    let code = await withCheckedContinuation { continuation in
      waiter.post { continuation.resume(returning: vmbus_wait_for_child(child)) }
    }
    waiter.stop()
    signals.cancel()
    if let socket { unsafe _ = unlink(socket) }
    guard code == 0 else { throw ProgramFailure(.unavailable, "nbdkit ended with code \(code)") }
  }

  /// Where it was built, or where scripts/install puts it.
  private static func ownPlugin() -> String {
    let names = ["libVSCStorageNBD.so", "../lib/swift-vmbus/libVSCStorageNBD.so"]
    let paths = names.map(siblingProgram)
    return paths.first { unsafe access($0, R_OK) == 0 } ?? paths[0]
  }

  private func command(_ plugin: String, _ pluginArguments: [String]) throws -> [String] {
    var command = ["nbdkit", "--foreground", "--exit-with-parent", "--threads", "\(threads)"]
    if readOnly { command.append("--readonly") }
    if disk.isVerbose { command.append("--verbose") }
    if let socket {
      try checkSocket(socket)
      command += ["--unix", socket]
    } else if let port {
      command += ["--ipaddr", "localhost", "--port", "\(port)"]
    }
    command.append(plugin)
    return command + pluginArguments
  }

  /// Starts nbdkit and returns its process id.
  private static func start(_ command: [String]) throws -> Int32 {
    var arguments = unsafe command.map { unsafe strdup($0) }
    unsafe arguments.append(nil)
    defer {
      for index in unsafe arguments.indices { unsafe free(arguments[index]) }
    }
    let child = unsafe vmbus_spawn(&arguments)
    guard child != -ENOENT else {
      throw ProgramFailure(.unavailable, "nbdkit is missing: install the package nbdkit")
    }
    guard child > 0 else { throw ProgramFailure(.system, "nbdkit: \(Errno(rawValue: -child))") }
    return child
  }

  /// nbdkit refuses a socket that is there. One that a killed server left is taken away, a living
  /// one and any other file are not.
  private func checkSocket(_ path: String) throws {
    switch unsafe vmbus_clear_stale_socket(path, Int32(SOCK_STREAM.rawValue)) {
    case 0: return
    case -EADDRINUSE: throw ProgramFailure(.unavailable, "\(path): another program listens there")
    case -EEXIST: throw ProgramFailure(.cannotCreate, "\(path): exists and is no socket")
    case let error: throw ProgramFailure(.cannotCreate, "\(path): \(Errno(rawValue: -error))")
    }
  }
}
