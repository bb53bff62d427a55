// SPDX-License-Identifier: Apache-2.0

import ArgumentParser
import DeviceBinding
import DriverProgram
import Glibc
import Platform
import ProgramSupport

/// Which device changes hands, and how.
struct BindingOptions: ParsableArguments {
  @Argument(
    help:
      "An instance GUID, a relid, a class with its place (scsi or scsi:1), a network interface, or the address of a PCI function (0000:00:02.0)."
  )
  var device: String

  @Flag(help: "Do it although the system uses the device, or a program has it open.")
  var force = false

  @Flag(help: "Print JSON.")
  var json = false
}

struct Bind: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Gives a device to user space.",
    discussion: """
      A VMBus device goes to uio_hv_generic or hv_uservsc, a PCI function to vfio-pci. A device that the \
      system uses (a mounted disk, the default route, an interface with a virtual function) is refused \
      with the reason. What fails, or is ended by Ctrl-C, is undone. It needs root.
      """)

  @OptionGroup var options: BindingOptions

  @Option(
    help:
      "uio_hv_generic or hv_uservsc, for a VMBus device. By default hv_uservsc where it is loaded.")
  var driver: BindableDriver?

  func run() async throws {
    let (driver, force) = (driver, options.force)
    try await change(options) { binder, device in
      if case .pci = device, driver != nil {
        throw ProgramFailure(
          .usage, "--driver is for VMBus devices: a PCI function goes to vfio-pci")
      }
      return try await binder.bind(device, to: driver, force: force)
    }
  }
}

struct Unbind: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Takes a device from its driver, and gives it to none.",
    discussion: """
      Refused while the system uses the device or a program has it open: Linux never closes a channel whose \
      device is taken from uio_hv_generic while it is open. It needs root.
      """)

  @OptionGroup var options: BindingOptions

  func run() async throws {
    let force = options.force
    try await change(options) { binder, device in
      try await binder.unbind(device, force: force)
    }
  }
}

struct Restore: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Gives a device back to the kernel's driver.",
    discussion: """
      Nobody keeps the device for a driver any more (driver_override), and the kernel chooses one. Refused \
      while a program has the device open. It needs root.
      """)

  @OptionGroup var options: BindingOptions

  func run() async throws {
    let force = options.force
    try await change(options) { binder, device in
      try await binder.restore(device, force: force)
    }
  }
}

extension BindableDriver: ExpressibleByArgument {}

/// Changes who has a device, and tells what came of it. SIGINT and SIGTERM end the waiting.
private func change(
  _ options: BindingOptions,
  _ body: @escaping @Sendable (DeviceBinder, NamedDevice) async throws -> BindingOutcome
) async throws {
  let device: NamedDevice
  do throws(NamedDeviceError) {
    device = try NamedDevice(options.device)
  } catch {
    if case .noName = error { throw ProgramFailure(.usage, "\(error)") }
    throw ProgramFailure(.unavailable, "\(error)")
  }
  try Termination.handle()
  let binder = DeviceBinder(connection: sessionOverSSH)
  let work = Task { try await body(binder, device) }
  let signals = Task {
    try await Termination.next()
    work.cancel()
  }
  let result = await work.result
  signals.cancel()
  do {
    report(try result.get(), json: options.json)
  } catch let error as BindingError {
    throw ProgramFailure(
      error.isPermission ? .permission : .unavailable,
      "\(error)" + (error.remedy.map { " (\($0))" } ?? ""))
  }
}

private func report(_ outcome: BindingOutcome, json: Bool) {
  for warning in outcome.warnings { printError("vmbusctl: done all the same: \(warning)") }
  if json, let text = try? jsonText(OutcomeReport(outcome)) {
    print(text)
    return
  }
  let driver = outcome.driver ?? "no driver"
  let node = outcome.node.map { " (\($0))" } ?? ""
  print(
    outcome.isChanged
      ? "\(outcome.device): from \(outcome.previousDriver ?? "no driver") to \(driver)\(node)"
      : "\(outcome.device): with \(driver)\(node) already, nothing to do")
}

/// An outcome as programs like it: every key is there.
private struct OutcomeReport: Encodable {
  let outcome: BindingOutcome

  init(_ outcome: BindingOutcome) { self.outcome = outcome }

  private enum Keys: String, CodingKey {
    case device, driver, node, changed, warnings
    case previousDriver = "previous_driver"
  }

  func encode(to encoder: any Encoder) throws {
    var container = encoder.container(keyedBy: Keys.self)
    try container.encode(outcome.device, forKey: .device)
    try container.encode(outcome.driver, forKey: .driver)
    try container.encode(outcome.previousDriver, forKey: .previousDriver)
    try container.encode(outcome.node, forKey: .node)
    try container.encode(outcome.isChanged, forKey: .changed)
    try container.encode(outcome.warnings, forKey: .warnings)
  }
}

/// What sshd said of this session.
private var sessionOverSSH: String? {
  guard let text = unsafe getenv("SSH_CONNECTION") else { return nil }
  return unsafe String(cString: text)
}
