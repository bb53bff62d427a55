// SPDX-License-Identifier: Apache-2.0

public import ArgumentParser
import Logging
import Platform
public import VSC

/// Turns a driver into a program: arguments, logging, signals, exit codes.
///
///     @main struct Echo: DriverProgram {
///       @OptionGroup var options: DriverOptions
///       func makeDriver() -> EchoVSC { EchoVSC() }
///     }
///
/// The program drives its device until it is told to end (SIGINT, SIGTERM: exit code 0). A device of
/// this machine that goes away is driven again when it comes back; that of a simulated host ends the
/// program (exit code 69).
public protocol DriverProgram: AsyncParsableCommand {
  associatedtype Driver: VSC

  var options: DriverOptions { get }

  func makeDriver() throws -> Driver
}

extension DriverProgram {
  public static func main() async { await runProgram() }

  public func run() async throws {
    try Termination.handle()
    let driver = try makeDriver()
    try await withBus(options) { bus in
      var transport = try choose(bus, Driver.deviceClass, options.device)
      while true {
        let found = try FoundDevice(transport, options)
        let end = try await found.use { device in
          try await untilTermination {
            try await driver.start(device)
            return await device.ended()
          }
        }
        guard let end else { return }
        guard let next = try await replacement(for: transport, gone: end, on: bus) else { return }
        transport = next
      }
    }
  }

  /// The same device, when the host offers it again; nil when the program is to end.
  private func replacement(
    for transport: any DeviceTransport, gone end: ChannelEnd, on bus: any DeviceBus
  ) async throws -> (any DeviceTransport)? {
    let instance = transport.identity.instance
    guard end == .rescinded, bus.bringsBack else {
      throw ProgramFailure(.unavailable, "the device is gone: \(end)")
    }
    options.makeLogger(Self._commandName).warning("\(end): waiting for \(instance) to come back")
    return try await untilTermination { try await bus.comesBack(instance) } ?? nil
  }
}

/// The result of `body`, or nil when SIGINT or SIGTERM comes before.
func untilTermination<Result: Sendable>(
  _ body: @escaping @Sendable () async throws -> Result
) async throws -> Result? {
  try await withThrowingTaskGroup(of: Result?.self) { group in
    group.addTask {
      try await Termination.next()
      return nil
    }
    group.addTask { try await body() }
    defer { group.cancelAll() }
    return try await group.next() ?? nil
  }
}
