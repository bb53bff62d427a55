// SPDX-License-Identifier: Apache-2.0

/// What is done about a controller that does not answer, as a value without I/O: the late request is
/// aborted, then the controller is reset, and one that makes no progress from reset to reset is given up.
struct ControllerRecovery {
  enum Action: Equatable {
    case none
    /// Send; the outcome goes to `aborted`.
    case abort(queue: UInt16, identifier: UInt16)
    /// The outcome goes to `resetEnded`.
    case reset
    case giveUp
  }

  private enum Stage: Equatable {
    case idle
    /// A request was to be aborted, and may come back until then.
    case aborting(until: UInt64)
    case resetting
    case over
  }

  private var stage = Stage.idle
  /// Nanoseconds for a request that was aborted.
  private let grace: UInt64
  /// Resets in a row between which nothing was completed.
  private var vainResets = 0
  private let limit: Int
  /// Completions that there were at the last reset.
  private var completed: UInt64 = 0
  /// Looks in a row that found the controller failed, with a reset between each two.
  private var failures = 0

  /// - Parameter limit: resets in a row after which a controller that completes nothing is given up.
  init(grace: UInt64, limit: Int = 3) {
    self.grace = grace
    self.limit = limit
  }

  var isResetting: Bool { stage == .resetting }

  /// When `expire` is to be called.
  var deadline: UInt64 {
    if case .aborting(let until) = stage { return until }
    return .max
  }

  /// A request is late.
  ///
  /// - Parameters:
  ///   - queue: 0 for the admin queue: nothing can be aborted then.
  ///   - hasFailed: the controller says so itself, or is not ready any more.
  ///   - completed: completions of requests so far.
  mutating func late(
    queue: UInt16, identifier: UInt16, hasFailed: Bool, completed: UInt64, now: UInt64
  ) -> Action {
    switch stage {
    case .idle:
      if hasFailed || queue == 0 { return reset(completed) }
      stage = .aborting(until: now &+ grace)
      return .abort(queue: queue, identifier: identifier)
    case .aborting:
      return hasFailed || queue == 0 ? reset(completed) : .none
    case .resetting, .over: return .none
    }
  }

  /// The controller's status was looked at.
  ///
  /// - Parameter hasFailed: the controller says so itself, or is not ready any more.
  mutating func looked(hasFailed: Bool) -> Action {
    switch stage {
    case .resetting, .over: return .none
    case .idle, .aborting: break
    }
    failures = hasFailed ? failures + 1 : 0
    guard hasFailed else { return .none }
    guard failures <= limit else {
      stage = .over
      return .giveUp
    }
    stage = .resetting
    return .reset
  }

  /// The abort was answered.
  ///
  /// - Parameter succeeded: the controller has ended the request, and its completion is there or comes.
  mutating func aborted(_ succeeded: Bool, completed: UInt64) -> Action {
    guard case .aborting = stage, !succeeded else { return .none }
    return reset(completed)
  }

  /// - Parameter missing: requests that timed out and are still with the controller.
  mutating func expire(now: UInt64, missing: Int, completed: UInt64) -> Action {
    guard case .aborting(let until) = stage, now >= until else { return .none }
    if missing > 0 { return reset(completed) }
    stage = .idle
    return .none
  }

  private mutating func reset(_ completed: UInt64) -> Action {
    vainResets = completed == self.completed ? vainResets + 1 : 1
    self.completed = completed
    guard vainResets <= limit else {
      stage = .over
      return .giveUp
    }
    stage = .resetting
    return .reset
  }

  mutating func resetEnded(_ succeeded: Bool) -> Action {
    guard stage == .resetting else { return .none }
    stage = succeeded ? .idle : .over
    return succeeded ? .none : .giveUp
  }
}
