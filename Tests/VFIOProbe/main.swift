// SPDX-License-Identifier: Apache-2.0

import Glibc
import VFIOPCI

func flushOutput() { fflush(nil) }

do {
  try await run(Array(CommandLine.arguments.dropFirst()))
} catch {
  print("\(error)")
  if let remedy = (error as? PCIBindingError)?.remedy { print(remedy) }
  exit(1)
}
