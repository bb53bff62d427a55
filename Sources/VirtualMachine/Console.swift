// SPDX-License-Identifier: Apache-2.0

import Platform
import Synchronization
import SystemPackage

/// Gathers what the guest sends byte by byte, and hands it on from a thread of its own: a reader who
/// is slow does not slow down the guest's processors.
final class Console: Sendable {
  private let worker: Worker
  private let pending = Lock<[UInt8]>([])
  private let take: @Sendable ([UInt8]) -> Void

  init(_ take: @escaping @Sendable ([UInt8]) -> Void) throws(Errno) {
    worker = try Worker(.init(name: "vm-console", spinRounds: 0))
    self.take = take
  }

  func put(_ byte: UInt8) {
    let isFirst = pending.withLock { pending in
      pending.append(byte)
      return pending.count == 1
    }
    if isFirst { worker.post { [weak self] in self?.flush() } }
  }

  private func flush() {
    let bytes = pending.withLock { pending in
      let bytes = pending
      pending = []
      return bytes
    }
    if !bytes.isEmpty { take(bytes) }
  }

  /// Hands on the rest; nothing comes after it.
  func finish() {
    worker.stop()
    flush()
  }
}
