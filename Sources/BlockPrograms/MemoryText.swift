// SPDX-License-Identifier: Apache-2.0

import ProgramSupport
import VSC

extension DMAStatistics {
  /// For people: how much there is and how much of it was in use.
  var useText: String {
    var text =
      "\(humanBytes(Double(byteCount))), \(humanBytes(Double(inUse))) in use, "
      + "\(humanBytes(Double(highWater))) at most, \(waits) waits"
    if lost > 0 { text += ", \(humanBytes(Double(lost))) lost with the device" }
    return text
  }

  /// What was done to the bytes.
  var copyText: String {
    "\(copiedIn) bytes in, \(copiedOut) out, \(scrubbed) scrubbed"
  }
}
