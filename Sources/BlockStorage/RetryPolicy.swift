// SPDX-License-Identifier: Apache-2.0

/// How often, and after what time, a failed command is sent again.
public struct RetryPolicy: Equatable, Sendable {
  /// Attempts after the first one.
  public var limit: Int
  /// Nanoseconds before the first repetition; each further one waits twice as long.
  public var delay: UInt64
  /// Nanoseconds at most.
  public var maximumDelay: UInt64

  public init(
    limit: Int = 8, delay: UInt64 = 1_000_000, maximumDelay: UInt64 = 1_000_000_000
  ) {
    self.limit = limit
    self.delay = delay
    self.maximumDelay = maximumDelay
  }

  /// Nanoseconds to wait, or nil when the command must not be sent again.
  ///
  /// What was not executed can always be sent again. What was aborted may have been executed in
  /// part, so only a command that does the same when it is done twice is repeated.
  ///
  /// - Parameter attempts: repetitions so far.
  package func wait(_ error: StorageError, attempts: Int, isIdempotent: Bool) -> UInt64? {
    guard attempts < limit else { return nil }
    if case .rejected(let status) = error, status.isFinal { return nil }
    switch error.failure {
    case .unitAttention: return 0
    case .busy: break
    // A unit needs more than a moment.
    case .becomingReady: return min(maximumDelay, backOff(attempts, from: delay &* 16))
    case .aborted: guard isIdempotent else { return nil }
    default: return nil
    }
    return backOff(attempts, from: delay)
  }

  private func backOff(_ attempts: Int, from delay: UInt64) -> UInt64 {
    let (wait, overflow) = delay.multipliedReportingOverflow(by: 1 << UInt64(min(attempts, 30)))
    return overflow ? maximumDelay : min(wait, maximumDelay)
  }
}
