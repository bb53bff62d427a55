// SPDX-License-Identifier: Apache-2.0

import BlockStorage
import Platform
import Synchronization

/// What the channels of a controller tell those who are on other threads: that the protocol is
/// agreed on, what the host told unasked, and that all is over.
final class ServiceLife: Sendable {
  let started = Promise<Result<StorageAgreement, StorageError>>()
  private let state = Lock(State())

  private struct State {
    var reason: StorageError?
    var waiting: [CheckedContinuation<Void, Never>] = []
    var whenEnded: [@Sendable (StorageError) -> Void] = []
    var whenSignalled: (@Sendable (StorageEvents) -> Void)?
  }

  /// Why there is no service any more, or nil while there is.
  var endReason: StorageError? { state.withLock { $0.reason } }

  func ready(_ agreement: StorageAgreement) { started.keep(.success(agreement)) }

  /// `body` is called, by any thread, for what the host tells from now on.
  func whenSignalled(_ body: @escaping @Sendable (StorageEvents) -> Void) {
    state.withLock { $0.whenSignalled = body }
  }

  func signal(_ events: StorageEvents) { state.withLock { $0.whenSignalled }?(events) }

  /// `body` is called once, when all is over, or at once.
  func whenEnded(_ body: @escaping @Sendable (StorageError) -> Void) {
    let reason = state.withLock { state in
      if state.reason == nil { state.whenEnded.append(body) }
      return state.reason
    }
    if let reason { body(reason) }
  }

  /// A channel is over, and with it the controller. The first reason stays.
  func end(_ error: StorageError) {
    let (bodies, waiting) = state.withLock { state in
      let result = (state.whenEnded, state.waiting)
      state.reason = state.reason ?? error
      state.whenEnded = []
      state.waiting = []
      state.whenSignalled = nil
      return result
    }
    started.keep(.failure(error))
    for body in bodies { body(error) }
    for continuation in waiting { continuation.resume() }
  }

  func waitUntilEnded() async {
    await withCheckedContinuation { continuation in
      let isOver = state.withLock { state in
        if state.reason == nil { state.waiting.append(continuation) }
        return state.reason != nil
      }
      if isOver { continuation.resume() }
    }
  }
}
