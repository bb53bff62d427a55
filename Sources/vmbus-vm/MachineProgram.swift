// SPDX-License-Identifier: Apache-2.0

import ArgumentParser
import Logging
import Platform
import ProgramSupport
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
      is standard input and output; Ctrl-] ends it. It ends when the guest powers off.
      """,
    version: projectVersion)

  @Option(help: ArgumentHelp("A bzImage, such as /boot/vmlinuz-VERSION.", valueName: "file"))
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

  @OptionGroup var devices: HostProcess.Options

  @Flag(help: "End when the guest resets, instead of starting it again.")
  var noReboot = false

  @Flag(help: "Only try whether KVM can run a machine here.")
  var check = false

  @Flag(name: [.short, .long], help: "Log more, on standard error.")
  var verbose = false

  func validate() throws {
    guard check || kernel != nil else { throw ValidationError("--kernel is needed.") }
    guard host == nil || devices.isEmpty else {
      throw ValidationError(
        "--host names a host that has its own devices: no --disk, no --balloon.")
    }
  }

  func run() async throws {
    try Termination.handle()
    do throws(MachineError) { try VirtualMachine.checkKVM() } catch { throw Self.failure(error) }
    guard !check else { return print("KVM works here") }
    guard let kernel else { return }
    let configuration = try makeConfiguration(kernel)
    let process = devices.isEmpty ? nil : try HostProcess(devices, verbose: verbose)
    defer { process?.end() }
    let terminal = Terminal()
    defer { terminal.restore() }
    var end: MachineEnd
    repeat {
      var configuration = configuration
      configuration.hostPath = process?.path ?? host
      end = try await runOnce(configuration, terminal)
    } while end == .reset && !noReboot
    switch end {
    case .powerOff, .reset: break
    case .stopped: throw ProgramFailure(.unavailable, "the machine was stopped")
    case .hostGone: throw ProgramFailure(.unavailable, "the host is gone")
    case .crashed(let reason): throw ProgramFailure(.system, "the machine crashed: \(reason)")
    }
  }

  private func makeConfiguration(_ kernel: String) throws -> VirtualMachine.Configuration {
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
