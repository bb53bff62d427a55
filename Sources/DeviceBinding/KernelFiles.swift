// SPDX-License-Identifier: Apache-2.0

import CLinux
import SystemPackage

/// Writes a text to a file of the system.
package typealias SystemWriter = @Sendable (_ path: String, _ text: String) throws(Errno) -> Void

func writeSystemFile(_ path: String, _ text: String) throws(Errno) {
  let bytes = Array(text.utf8)
  let result = unsafe vmbus_write_file(path, bytes, bytes.count)
  guard result == 0 else { throw Errno(rawValue: -result) }
}

extension Errno {
  /// The kernel's own ENOTSUPP, which no program is meant to see.
  static let notSupportedByKernel = Errno(rawValue: 524)
}
