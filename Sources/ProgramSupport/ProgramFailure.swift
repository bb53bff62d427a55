// SPDX-License-Identifier: Apache-2.0

public import ArgumentParser
import CLinux

/// Ends a program with one clear line on standard error and an exit code that means something
/// (those of sysexits.h).
public struct ProgramFailure: Error, CustomStringConvertible, Sendable {
  public enum Code: Int32, Sendable {
    /// The arguments are wrong.
    case usage = 64
    /// The data is not what it should be.
    case data = 65
    /// An input file is missing or can't be read.
    case noInput = 66
    /// A device, a host or a program that is needed is not there, or went away.
    case unavailable = 69
    /// The operating system refused something.
    case system = 71
    /// An output file can't be written.
    case cannotCreate = 73
    /// An I/O request failed.
    case io = 74
    /// Permission is missing.
    case permission = 77
  }

  public let code: Code
  public let description: String

  public init(_ code: Code, _ description: String) {
    self.code = code
    self.description = description
  }
}

extension ParsableCommand {
  /// Runs the command and ends the process with the right exit code. Use it as `main`.
  public static func runProgram() async -> Never {
    vmbus_print_by_lines()
    do {
      var command = try parseAsRoot()
      if var asynchronous = command as? any AsyncParsableCommand {
        try await asynchronous.run()
      } else {
        try command.run()
      }
      vmbus_exit(0)
    } catch let failure as ProgramFailure {
      printError("\(_commandName): \(failure)")
      vmbus_exit(failure.code.rawValue)
    } catch {
      // Wrong arguments get one line, as every failure; help and the version are no failures.
      guard exitCode(for: error) == .validationFailure else { exit(withError: error) }
      printError("\(_commandName): \(message(for: error)) (see --help)")
      vmbus_exit(ExitCode.validationFailure.rawValue)
    }
  }
}

/// One line on standard error.
public func printError(_ line: String) {
  var bytes = Array(line.utf8)
  bytes.append(UInt8(ascii: "\n"))
  _ = unsafe write(2, bytes, bytes.count)
}
