// SPDX-License-Identifier: Apache-2.0

import Platform
import Synchronization

/// What a service tells those who are on other threads: that it is ready, and that it is over.
final class ServiceLife: Sendable {
  let started = Promise<Result<DiskInformation, StorageError>>()
  private let state = Lock(State())

  private struct State {
    var reason: StorageError?
    var waiting: [CheckedContinuation<Void, Never>] = []
  }

  /// Why there is no service any more, or nil while there is.
  var endReason: StorageError? { state.withLock { $0.reason } }

  func ready(_ disk: DiskInformation) { started.keep(.success(disk)) }

  func end(_ error: StorageError) {
    let waiting = state.withLock { state in
      state.reason = state.reason ?? error
      defer { state.waiting = [] }
      return state.waiting
    }
    started.keep(.failure(error))
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
