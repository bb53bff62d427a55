// SPDX-License-Identifier: Apache-2.0

import ArgumentParser
import CLinux
import Logging
import Platform
import ProgramSupport
import Synchronization
import SystemPackage
import VirtualMachine

/// A Linux guest of a simulated host.
struct MachineProgram: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "vmbus-vm",
    abstract:
      "Runs a Linux kernel in a small virtual machine, as a guest of a simulated Hyper-V host.",
    discussion: """
      The kernel is a stock one, and its own VMBus drivers use the host's devices. The machine's console \
      is standard input and output; Ctrl-] ends it. It ends when the guest powers off. With a command, \
      as in vmbus-vm --disk disk.img -- fdisk -l /dev/sda, it is the command's output that is printed.
      """,
    version: projectVersion)

  @Option(
    help: ArgumentHelp(
      "A bzImage, such as /boot/vmlinuz-VERSION, or the VERSION of an installed kernel. With a command, by default the running one.",
      valueName: "file|version"))
  var kernel: String?

  @Option(help: ArgumentHelp("The kernel's initial file system.", valueName: "file"))
  var initrd: String?

  @Option(
    help: ArgumentHelp("Added to the kernel's command line, console=ttyS0.", valueName: "words"))
  var append: [String] = []

  @Option(help: ArgumentHelp("Memory of the machine, such as 1G.", valueName: "size"))
  var memory = "512M"

  @Option(help: ArgumentHelp("Virtual processors, 1 to 16.", valueName: "count"))
  var cpus = 1

  @Option(
    help: ArgumentHelp("The socket of a running host (vmbus-host).", valueName: "path"))
  var host: String?

  @Option(
    help: ArgumentHelp(
      "What the machine hides from its host: off, vbs, or vbs-confidential, whose --host is a paravisor (vmbus-paravisor). A simulation, which needs a Linux of 6.12 or newer, and of 6.19 or newer for a confidential one.",
      valueName: "kind"))
  var isolation = GuestIsolation.off

  @OptionGroup var devices: HostProcess.Options
  @OptionGroup var system: GuestSystem.Options

  @Flag(help: "End when the guest resets, instead of starting it again.")
  var noReboot = false

  @Flag(help: "Only try whether KVM can run a machine here.")
  var check = false

  @Flag(name: [.short, .long], help: "Log more, on standard error.")
  var verbose = false

  func validate() throws {
    guard check || kernel != nil || !system.command.isEmpty else {
      throw ValidationError("--kernel or a command is needed.")
    }
    guard initrd == nil || system.command.isEmpty else {
      throw ValidationError("A command has an initial file system of its own: no --initrd.")
    }
    guard host == nil || devices.isEmpty else {
      throw ValidationError(
        "--host names a host that has its own devices: no --disk, no --nic, no --balloon.")
    }
  }

  func run() async throws {
    try Termination.handle()
    do throws(MachineError) { try VirtualMachine.checkKVM() } catch { throw Self.failure(error) }
    guard !check else { return print("KVM works here") }
    var configuration = try makeConfiguration()
    let output = try prepareCommand(&configuration)
    let process = devices.isEmpty ? nil : try HostProcess(devices, verbose: verbose)
    defer { process?.end() }
    let terminal = Terminal(isRaw: output == nil)
    defer { terminal.restore() }
    var end: MachineEnd
    repeat {
      var configuration = configuration
      configuration.hostPath = process?.path ?? host
      end = try await runOnce(configuration, terminal)
    } while end == .reset && !noReboot && output == nil
    if let output, end == .powerOff || end == .reset {
      guard let status = output.withLock({ $0.status }) else {
        throw ProgramFailure(.system, "the guest ended before the command did")
      }
      process?.end()
      vmbus_exit(status)
    }
    switch end {
    case .powerOff, .reset: break
    case .stopped: throw ProgramFailure(.unavailable, "the machine was stopped")
    case .hostGone: throw ProgramFailure(.unavailable, "the host is gone")
    case .crashed(let reason): throw ProgramFailure(.system, "the machine crashed: \(reason)")
    }
  }

  /// The kernel's file and its version, as far as that is known by its name.
  private func chosenKernel() throws -> (path: String, version: String) {
    let name: String
    if let kernel {
      name = kernel
    } else {
      let release = try readInput("/proc/sys/kernel/osrelease")
      name = String(decoding: release.filter { $0 != 0x0A }, as: UTF8.self)
    }
    guard name.contains("/") else { return ("/boot/vmlinuz-\(name)", name) }
    let file = name.split(separator: "/").last.map(String.init) ?? name
    return (name, file.hasPrefix("vmlinuz-") ? String(file.dropFirst("vmlinuz-".count)) : file)
  }

  /// With a command: makes its system, and takes its output from the console.
  private func prepareCommand(
    _ configuration: inout VirtualMachine.Configuration
  ) throws -> CommandOutput? {
    guard !system.command.isEmpty else { return nil }
    let version = try chosenKernel().version
    let guest = try GuestSystem(
      system, modules: system.modules ?? "/lib/modules/\(version)", disks: devices.disk.count,
      nics: devices.nic.count, isInteractive: Terminal.isThere)
    configuration.initrd = guest.archive
    configuration.commandLine += " quiet loglevel=1 panic=-1"
    let output = CommandOutput(FramedOutput(token: guest.token))
    configuration.console = { bytes in writeOutput(output.withLock { $0.take(bytes) }) }
    return output
  }

  private func makeConfiguration() throws -> VirtualMachine.Configuration {
    let kernel = try chosenKernel().path
    let file = try readInput(kernel)
    let image: BootImage
    do throws(BootImageError) {
      image = try BootImage(file)
    } catch {
      throw ProgramFailure(.data, "\(kernel): \(error)")
    }
    var configuration = VirtualMachine.Configuration(kernel: image)
    if let initrd { configuration.initrd = try readInput(initrd) }
    configuration.commandLine = (["console=ttyS0"] + append).joined(separator: " ")
    guard let size = byteCount(memory) else {
      throw ProgramFailure(.usage, "--memory: '\(memory)' is no size such as 512M")
    }
    configuration.memoryByteCount = Int(clamping: size)
    configuration.processorCount = cpus
    configuration.isolation = isolation
    var logger = Logger(label: "vmbus-vm", factory: StreamLogHandler.standardError(label:))
    logger.logLevel = verbose ? .debug : .warning
    configuration.logger = logger
    configuration.console = { writeOutput($0) }
    return configuration
  }

  /// One life of the machine: a reset makes a new one.
  private func runOnce(
    _ configuration: VirtualMachine.Configuration, _ terminal: Terminal
  ) async throws -> MachineEnd {
    let machine: VirtualMachine
    do throws(MachineError) {
      machine = try VirtualMachine(configuration)
    } catch {
      throw Self.failure(error)
    }
    terminal.attach { bytes in
      guard let bytes else { return machine.stop() }
      machine.type(bytes)
    }
    let signals = Task {
      try await Termination.next()
      if !Task.isCancelled { machine.stop() }
    }
    defer { signals.cancel() }
    // It blocks its thread, which must not be one of the few that tasks share.
    let result = Promise<Result<MachineEnd, MachineError>>()
    let runner: Worker
    do throws(Errno) {
      runner = try Worker(.init(name: "vm-runner", spinRounds: 0))
    } catch {
      throw ProgramFailure(.system, "no thread: \(error)")
    }
    runner.post {
      do throws(MachineError) {
        result.keep(.success(try machine.run()))
      } catch {
        result.keep(.failure(error))
      }
    }
    let outcome = await result.value()
    runner.stop()
    switch outcome {
    case .success(let end): return end
    case .failure(let error): throw Self.failure(error)
    }
  }

  static func failure(_ error: MachineError) -> ProgramFailure {
    let code: ProgramFailure.Code =
      switch error {
      case .noRights: .permission
      case .noKVM, .lacking, .unusable, .notRunning, .noHost, .host: .unavailable
      case .badKernel, .doesNotFit: .data
      case .commandLineTooLong, .badProcessorCount, .badMemorySize: .usage
      case .memory: .system
      }
    return ProgramFailure(code, "\(error)")
  }
}

extension GuestIsolation: ExpressibleByArgument {}

/// What the console's thread and the program share.
final class CommandOutput: Sendable {
  private let frame: Lock<FramedOutput>

  init(_ frame: FramedOutput) { self.frame = Lock(frame) }

  func withLock<Result: Sendable>(_ body: (inout FramedOutput) -> Result) -> Result {
    frame.withLock { body(&$0) }
  }
}
