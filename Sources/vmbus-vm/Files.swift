// SPDX-License-Identifier: Apache-2.0

import ProgramSupport
import SystemPackage

/// A whole file.
func readInput(_ path: String) throws -> [UInt8] {
  do {
    let file = try FileDescriptor.open(FilePath(path), .readOnly)
    return try file.closeAfter {
      var bytes: [UInt8] = []
      // Files of /proc tell no size.
      var buffer = [UInt8](repeating: 0, count: 1 << 20)
      while true {
        let count = unsafe try buffer.withUnsafeMutableBytes { unsafe try file.read(into: $0) }
        guard count > 0 else { return bytes }
        bytes += buffer.prefix(count)
      }
    }
  } catch {
    throw ProgramFailure(.noInput, "\(path): \(error)")
  }
}

/// All of it to standard output, or nothing more when nobody reads it.
func writeOutput(_ bytes: [UInt8]) { _ = try? FileDescriptor.standardOutput.writeAll(bytes) }

/// Bytes as people write them: 512M, 1G.
func byteCount(_ text: String) -> UInt64? {
  let units: [Character: UInt64] = ["K": 1 << 10, "M": 1 << 20, "G": 1 << 30]
  let unit = text.last.flatMap { units[Character($0.uppercased())] }
  guard let number = UInt64(unit == nil ? text : String(text.dropLast())) else { return nil }
  let (bytes, overflow) = number.multipliedReportingOverflow(by: unit ?? 1)
  return overflow ? nil : bytes
}
