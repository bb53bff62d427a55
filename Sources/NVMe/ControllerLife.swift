// SPDX-License-Identifier: Apache-2.0

import BlockStorage
import Platform
import Synchronization
import VSC

/// What the queues of a controller share with those who are on other threads: whether it lives, what is
/// to be done about it, and how that ended.
final class ControllerLife: Sendable {
  /// What a queue asks for; the controller's own task does it.
  enum Need: Sendable {
    case reset
    /// The namespaces changed.
    case rescan
    case end(StorageError)
  }

  /// Ends with the controller: every queue looks at it.
  let state = ChannelState()
  let needs: AsyncStream<Need>
  private let sink: AsyncStream<Need>.Continuation
  /// Completions of all queues, and requests that timed out and are still with the controller.
  let completed = Atomic<UInt64>(0)
  let missing = Atomic<Int>(0)
  private let shared = Lock(State())

  private struct State {
    var reason: StorageError?
    var waiting: [CheckedContinuation<Void, Never>] = []
  }

  init() { (needs, sink) = AsyncStream<Need>.makeStream(bufferingPolicy: .bufferingNewest(16)) }

  func ask(_ need: Need) { sink.yield(need) }

  var endReason: StorageError? { shared.withLock { $0.reason } }

  /// The first reason stays. Returns whether this was it.
  @discardableResult
  func end(_ error: StorageError) -> Bool {
    let (isFirst, waiting) = shared.withLock { shared in
      let result = (shared.reason == nil, shared.waiting)
      shared.reason = shared.reason ?? error
      shared.waiting = []
      return result
    }
    var reason = ChannelEnd.hostGone
    if case .channel(.ended(let end)) = error { reason = end }
    state.end(reason)
    sink.finish()
    for continuation in waiting { continuation.resume() }
    return isFirst
  }

  func waitUntilEnded() async {
    await withCheckedContinuation { continuation in
      let isOver = shared.withLock { shared in
        if shared.reason == nil { shared.waiting.append(continuation) }
        return shared.reason != nil
      }
      if isOver { continuation.resume() }
    }
  }
}
