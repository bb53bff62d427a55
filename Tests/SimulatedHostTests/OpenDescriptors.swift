// SPDX-License-Identifier: Apache-2.0

import Glibc
import SystemPackage

/// How many descriptors this process has open.
func openDescriptors() throws -> Int {
  guard let directory = unsafe opendir("/proc/self/fd") else { throw Errno(rawValue: errno) }
  defer { unsafe _ = closedir(directory) }
  var count = 0
  while unsafe readdir(directory) != nil { count += 1 }
  return count
}
