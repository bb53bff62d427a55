// SPDX-License-Identifier: Apache-2.0

import CLinux
import Glibc
import Platform
import SystemPackage

/// Another program of the project that runs as long as this one needs it.
public struct ChildProcess: Sendable {
  private let name: String
  private let process: Int32
  private static let secondsToStart = 10

  /// Starts it.
  ///
  /// - Parameter arguments: without the program's name.
  public init(_ program: String, _ arguments: [String]) throws {
    name = program
    let command = [siblingProgram(program)] + arguments
    var words = unsafe command.map { unsafe strdup($0) }
    unsafe words.append(nil)
    defer { for index in 0..<command.count { unsafe free(words[index]) } }
    process = unsafe vmbus_spawn(&words)
    guard process > 0 else {
      throw ProgramFailure(.unavailable, "\(command[0]): \(Errno(rawValue: -process))")
    }
  }

  /// Returns when somebody listens at the path; ends the child when nobody does in time.
  public func waitUntilItListens(at path: String) throws {
    for _ in 0..<Self.secondsToStart * 20 {
      if (try? PacketSocket(connectingTo: path)) != nil { return }
      // It says itself what is wrong with its arguments.
      if let status = status {
        throw ProgramFailure(.unavailable, "\(name) ended with status \(status)")
      }
      vmbus_sleep_milliseconds(50)
    }
    end()
    throw ProgramFailure(.unavailable, "\(name) does not listen")
  }

  /// Its status when it has ended.
  private var status: Int32? {
    var status: Int32 = 0
    guard unsafe waitpid(process, &status, WNOHANG) == process else { return nil }
    return status & 0x7F == 0 ? status >> 8 & 0xFF : 128 + status & 0x7F
  }

  public func end() {
    vmbus_terminate(process)
    _ = vmbus_wait_for_child(process)
  }
}
