// SPDX-License-Identifier: Apache-2.0

internal import Platform
import Synchronization

/// A disk of a controller, as its channels and its users share it: what it is, whether it is still
/// there, and the order of writes to the same blocks.
///
/// A write to a part of a block fetches it, changes it and writes it back. Another write to that
/// block, on whichever channel, must not come between: it waits until the first one is over.
package final class StorageUnit: Sendable {
  private struct State {
    var information: DiskInformation
    var end: StorageError?
    var waiting: [CheckedContinuation<Void, Never>] = []
    /// Writes that were handed to a channel.
    var active: [Transfer] = []
    /// Writes that wait for one of those, in the order in which they came.
    var parked: [Transfer] = []
    /// Writes of parts of blocks among them.
    var partial = 0
  }

  /// A LUN, or the id of an NVMe namespace.
  package let number: UInt32
  package var lun: UInt8 { UInt8(truncatingIfNeeded: number) }
  private let state: Lock<State>
  private let hand: @Sendable (Transfer) -> Void

  /// - Parameter hand: gives a transfer to a channel.
  package init(
    _ information: DiskInformation, number: UInt32, hand: @escaping @Sendable (Transfer) -> Void
  ) {
    self.number = number
    self.hand = hand
    state = Lock(State(information: information))
  }

  package var information: DiskInformation { state.withLock { $0.information } }

  package func update(_ information: DiskInformation) {
    state.withLock { $0.information = information }
  }

  /// The disk refused to fill blocks: it is not asked again.
  package func forgetFill() {
    state.withLock {
      $0.information.provisioning.canFill = false
      $0.information.provisioning.canFillByUnmap = false
    }
  }

  // MARK: - The end

  package var endReason: StorageError? { state.withLock { $0.end } }

  package func end(_ error: StorageError) {
    let (waiting, parked) = state.withLock { state in
      state.end = state.end ?? error
      defer {
        state.waiting = []
        state.parked = []
      }
      return (state.waiting, state.parked)
    }
    for transfer in parked { transfer.outcome.keep(error) }
    for continuation in waiting { continuation.resume() }
  }

  package func waitUntilEnded() async {
    await withCheckedContinuation { continuation in
      let isOver = state.withLock { state in
        if state.end == nil { state.waiting.append(continuation) }
        return state.end != nil
      }
      if isOver { continuation.resume() }
    }
  }

  // MARK: - The order of writes

  /// Hands a transfer to a channel, now or when its blocks are free.
  package func begin(_ transfer: Transfer) {
    let (error, mayStart) = state.withLock { state -> (StorageError?, Bool) in
      if let error = state.end { return (error, false) }
      guard transfer.isOrdered else { return (nil, true) }
      let isPartial = transfer.isPartial
      if isPartial { state.partial += 1 }
      if isPartial || state.partial > 0,
        state.active.contains(where: { transfer.meets($0) })
          || state.parked.contains(where: { transfer.meets($0) })
      {
        state.parked.append(transfer)
        return (nil, false)
      }
      transfer.isActive = true
      state.active.append(transfer)
      return (nil, true)
    }
    if let error {
      transfer.outcome.keep(error)
    } else if mayStart {
      hand(transfer)
    }
  }

  /// A transfer is over: those that waited for it are handed on.
  package func leave(_ transfer: Transfer) {
    guard transfer.isOrdered else { return }
    let next = state.withLock { state -> [Transfer] in
      guard transfer.isActive, let index = state.active.firstIndex(where: { $0 === transfer })
      else { return [] }
      transfer.isActive = false
      state.active.swapAt(index, state.active.count - 1)
      state.active.removeLast()
      if transfer.isPartial { state.partial -= 1 }
      if state.parked.isEmpty { return [] }
      var ready: [Transfer] = []
      var left: [Transfer] = []
      for waiting in state.parked {
        if state.active.contains(where: { waiting.meets($0) })
          || left.contains(where: { waiting.meets($0) })
        {
          left.append(waiting)
        } else {
          waiting.isActive = true
          state.active.append(waiting)
          ready.append(waiting)
        }
      }
      state.parked = left
      return ready
    }
    for transfer in next { hand(transfer) }
  }
}

extension Transfer {
  private var blockMask: UInt64 { UInt64(geometry.blockByteCount) &- 1 }

  /// Whether it writes a part of a block.
  fileprivate var isPartial: Bool {
    (offset | (offset &+ UInt64(byteCount))) & blockMask != 0
  }

  /// Whether both touch a block of which one of them writes a part.
  fileprivate func meets(_ other: Transfer) -> Bool {
    guard isPartial || other.isPartial else { return false }
    let mask = blockMask
    let (end, otherEnd) = (offset &+ UInt64(byteCount), other.offset &+ UInt64(other.byteCount))
    return other.offset & ~mask < (end &+ mask) & ~mask
      && offset & ~mask < (otherEnd &+ mask) & ~mask
  }
}
