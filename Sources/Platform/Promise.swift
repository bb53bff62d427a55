// SPDX-License-Identifier: Apache-2.0

import Dispatch
import Synchronization

/// A value that one side will give and the other waits for, as a task or as a thread.
public final class Promise<Value: Sendable>: Sendable {
  private enum State {
    case empty
    case task(CheckedContinuation<Value, Never>)
    case thread(DispatchSemaphore)
    case kept(Value)
  }

  private let state = Lock(State.empty)

  public init() {}

  /// Gives the value. The first one counts; returns whether this was it.
  @discardableResult
  public func keep(_ value: Value) -> Bool {
    let before = state.withLock { state in
      let before = state
      if case .kept = before { return before }
      state = .kept(value)
      return before
    }
    switch before {
    case .empty: return true
    case .kept: return false
    case .task(let continuation): continuation.resume(returning: value)
    case .thread(let semaphore): semaphore.signal()
    }
    return true
  }

  public var isKept: Bool {
    state.withLock { state in
      if case .kept = state { return true }
      return false
    }
  }

  /// Suspends until the value is there. One side may wait, once.
  public func value() async -> Value {
    let value = await withCheckedContinuation { continuation in
      let kept = state.withLock { state -> Value? in
        if case .kept(let value) = state { return value }
        state = .task(continuation)
        return nil
      }
      if let kept { continuation.resume(returning: kept) }
    }
    // ThreadSanitizer sees no order between one who resumes and one who is resumed; it sees locks.
    return state.withLock { _ in value }
  }

  /// Blocks the thread until the value is there.
  public func wait() -> Value {
    let semaphore = DispatchSemaphore(value: 0)
    while true {
      let kept = state.withLock { state -> Value? in
        if case .kept(let value) = state { return value }
        state = .thread(semaphore)
        return nil
      }
      if let kept { return kept }
      semaphore.wait()
    }
  }
}
