// SPDX-License-Identifier: Apache-2.0

import CLinux
import SystemPackage

/// The path of another program of the project, which lies beside this one.
public func siblingProgram(_ name: String) -> String {
  guard let own = try? readLink("/proc/self/exe"), let slash = own.lastIndex(of: "/") else {
    return name
  }
  return own[...slash] + name
}

private func readLink(_ path: String) throws(Errno) -> String {
  var buffer = [CChar](repeating: 0, count: 4096)
  let count = unsafe readlink(path, &buffer, buffer.count - 1)
  guard count > 0 else { throw .noSuchFileOrDirectory }
  return String(decoding: buffer.prefix(count).map { UInt8(bitPattern: $0) }, as: UTF8.self)
}

/// Runs another program in place of this one, with all signals as they are by default. Returns
/// only when that failed, with one line that says why.
public func replaceProcess(_ command: [String]) -> String {
  guard let program = command.first else { return "no program" }
  var arguments = unsafe command.map { unsafe strdup($0) }
  unsafe arguments.append(nil)
  let error = unsafe vmbus_exec(&arguments)
  return "\(program): \(Errno(rawValue: error))"
}
