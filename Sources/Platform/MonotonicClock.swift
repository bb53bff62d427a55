// SPDX-License-Identifier: Apache-2.0

import CLinux

/// The clock of deadlines: nanoseconds since some moment before this process began.
public enum MonotonicClock {
  public static func now() -> UInt64 { vmbus_now() }

  /// The same clock as it was at the last tick, some milliseconds ago at most; costs a few
  /// cycles, so that a deadline can be set for each request.
  public static func coarse() -> UInt64 { vmbus_coarse_now() }
}
