// SPDX-License-Identifier: Apache-2.0

import CLinux
import Synchronization
public import SystemPackage

/// The signals that ask a program to end: SIGINT and SIGTERM.
public enum Termination {
  /// From now on they do not end the process, but `wait`.
  public static func handle() throws(Errno) { try checked(vmbus_catch_termination()) }

  /// Waits for the next one. It blocks the calling thread.
  public static func wait() -> Int32 { vmbus_wait_for_termination() }

  /// Waits for the next one on a thread of its own, or until the task is cancelled.
  public static func next() async throws(Errno) {
    let worker = try Worker(.init(name: "signals", spinRounds: 0))
    let descriptor = unsafe vmbus_termination_fd().pointee
    let waiter = Waiter()
    await withTaskCancellationHandler {
      await withCheckedContinuation { continuation in
        waiter.wait(continuation)
        worker.watch(descriptor) {
          // Read in blocking mode: it is ready, or this would not be called.
          EventDescriptor.drain(descriptor)
          waiter.end()
        }
      }
    } onCancel: {
      waiter.end()
    }
    worker.stop()
  }
}

/// Resumes one waiter once, whichever of the two comes first.
private final class Waiter: Sendable {
  private struct State {
    var continuation: CheckedContinuation<Void, Never>?
    var hasEnded = false
  }

  private let state = Lock(State())

  func wait(_ continuation: CheckedContinuation<Void, Never>) {
    let hasEnded = state.withLock { state in
      if !state.hasEnded { state.continuation = continuation }
      return state.hasEnded
    }
    if hasEnded { continuation.resume() }
  }

  func end() {
    let continuation = state.withLock { state in
      state.hasEnded = true
      let continuation = state.continuation
      state.continuation = nil
      return continuation
    }
    continuation?.resume()
  }
}
