// SPDX-License-Identifier: Apache-2.0

public import ArgumentParser
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
/// program (exit code 69). As a service of systemd (`Type=notify`) it says when the driver has started, and that
/// its workers are not stuck (`WatchdogSec=`).
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
    try await whileOffered(Driver.deviceClass, options, label: Self._commandName) { device in
      try await untilTermination {
        try await driver.start(device)
        ServiceManager.own?.tell(.ready, .status("drives \(device.identity.instance)"))
        return await device.ended()
      }
    }
  }
}
