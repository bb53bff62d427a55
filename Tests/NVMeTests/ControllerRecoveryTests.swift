// SPDX-License-Identifier: Apache-2.0

import Testing

@testable import NVMe

/// Scripts of events, the illegal ones included.
@Suite struct ControllerRecoveryTests {
  private func late(
    _ recovery: inout ControllerRecovery, queue: UInt16 = 1, hasFailed: Bool = false,
    completed: UInt64 = 0, now: UInt64 = 0
  ) -> ControllerRecovery.Action {
    recovery.late(
      queue: queue, identifier: 9, hasFailed: hasFailed, completed: completed, now: now)
  }

  @Test func abortFirst() {
    var recovery = ControllerRecovery(grace: 100)
    #expect(recovery.deadline == .max)
    var action = late(&recovery, now: 10)
    #expect(action == .abort(queue: 1, identifier: 9))
    #expect(recovery.deadline == 110)
    // A second one meanwhile waits for the first.
    action = late(&recovery, now: 11)
    #expect(action == .none)
    action = recovery.aborted(true, completed: 0)
    #expect(action == .none)
    action = recovery.expire(now: 109, missing: 1, completed: 0)
    #expect(action == .none)
    // All came back.
    action = recovery.expire(now: 110, missing: 0, completed: 1)
    #expect(action == .none)
    #expect(recovery.deadline == .max)
  }

  @Test func thenReset() {
    var recovery = ControllerRecovery(grace: 100)
    _ = late(&recovery)
    var action = recovery.aborted(false, completed: 0)
    #expect(action == .reset)
    #expect(recovery.isResetting)
    // Nothing else is done meanwhile.
    action = late(&recovery, hasFailed: true)
    #expect(action == .none)
    action = recovery.aborted(false, completed: 0)
    #expect(action == .none)
    action = recovery.expire(now: .max, missing: 5, completed: 0)
    #expect(action == .none)
    action = recovery.resetEnded(true)
    #expect(action == .none)
    #expect(!recovery.isResetting)
  }

  @Test func aFailureThatIsSeenResets() {
    var recovery = ControllerRecovery(grace: 100)
    var action = recovery.looked(hasFailed: false)
    #expect(action == .none)
    action = recovery.looked(hasFailed: true)
    #expect(action == .reset)
    // It is not ready while it is reset.
    action = recovery.looked(hasFailed: true)
    #expect(action == .none)
    _ = recovery.resetEnded(true)
    // An abort under way has no answer to wait for.
    _ = late(&recovery)
    action = recovery.looked(hasFailed: true)
    #expect(action == .reset)
    #expect(recovery.deadline == .max)
    action = recovery.aborted(false, completed: 0)
    #expect(action == .none)
  }

  @Test func oneThatFailsAfterEachResetIsGivenUp() {
    var recovery = ControllerRecovery(grace: 100, limit: 2)
    for _ in 0..<2 {
      for _ in 0..<2 {
        let action = recovery.looked(hasFailed: true)
        #expect(action == .reset)
        _ = recovery.resetEnded(true)
      }
      // A look at one that works is a new beginning.
      let action = recovery.looked(hasFailed: false)
      #expect(action == .none)
    }
    for expected in [ControllerRecovery.Action.reset, .reset, .giveUp, .none] {
      let action = recovery.looked(hasFailed: true)
      #expect(action == expected)
      if expected == .reset { _ = recovery.resetEnded(true) }
    }
    let action = recovery.looked(hasFailed: false)
    #expect(action == .none)
  }

  @Test func missingRequestsReset() {
    var recovery = ControllerRecovery(grace: 100)
    _ = late(&recovery)
    _ = recovery.aborted(true, completed: 0)
    let action = recovery.expire(now: 100, missing: 1, completed: 0)
    #expect(action == .reset)
  }

  @Test func aFailedControllerIsResetAtOnce() {
    var recovery = ControllerRecovery(grace: 100)
    var action = late(&recovery, hasFailed: true)
    #expect(action == .reset)
    _ = recovery.resetEnded(true)
    // The admin queue's own requests can't be aborted.
    action = late(&recovery, queue: 0, completed: 1)
    #expect(action == .reset)
  }

  @Test func vainResetsGiveUp() {
    var recovery = ControllerRecovery(grace: 100, limit: 2)
    for _ in 0..<2 {
      let action = late(&recovery, hasFailed: true, completed: 7)
      #expect(action == .reset)
      _ = recovery.resetEnded(true)
    }
    // Progress counts anew.
    var action = late(&recovery, hasFailed: true, completed: 8)
    #expect(action == .reset)
    _ = recovery.resetEnded(true)
    action = late(&recovery, hasFailed: true, completed: 8)
    #expect(action == .reset)
    _ = recovery.resetEnded(true)
    action = late(&recovery, hasFailed: true, completed: 8)
    #expect(action == .giveUp)
    // It is over: nothing is done any more.
    action = late(&recovery, hasFailed: true, completed: 9)
    #expect(action == .none)
    action = recovery.resetEnded(true)
    #expect(action == .none)
  }

  @Test func aFailedResetGivesUp() {
    var recovery = ControllerRecovery(grace: 100)
    // One that nobody asked for.
    var action = recovery.resetEnded(false)
    #expect(action == .none)
    action = recovery.aborted(false, completed: 0)
    #expect(action == .none)
    _ = late(&recovery, hasFailed: true)
    action = recovery.resetEnded(false)
    #expect(action == .giveUp)
  }
}
