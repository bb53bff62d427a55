// SPDX-License-Identifier: Apache-2.0

import BlockStorage
import Platform
import Synchronization
import VSC

/// A channel of a controller for those who do not know its memories.
struct ControllerChannel: Sendable {
  let worker: Worker
  let hand: @Sendable (Transfer) -> Void
  let drop: @Sendable () -> Void
  let readCounters: @Sendable (@escaping @Sendable (StorageCounters?) -> Void) -> Void

  init<Ring: Visibility, External: Visibility>(
    _ service: WorkerHandle<StorageService<Ring, External>>, _ life: ServiceLife
  ) {
    worker = service.worker
    hand = { transfer in
      service.perform { service in
        service.add(transfer)
      } orElse: {
        transfer.settle(life.endReason ?? .channel(.ended(.closed)))
      }
    }
    drop = { service.detach() }
    readCounters = { body in
      service.perform { service in
        body(service.counters)
      } orElse: {
        body(nil)
      }
    }
  }

  func counters() async -> StorageCounters? {
    let promise = Promise<StorageCounters?>()
    readCounters { promise.keep($0) }
    return await promise.value()
  }
}

/// The channels of a controller: each transfer goes to one of them.
final class ControllerChannels: Sendable {
  private let state = Lock<[ControllerChannel]>([])
  private let next = Lock<Int>(0)

  var all: [ControllerChannel] { state.withLock { $0 } }

  func add(_ channel: ControllerChannel) { state.withLock { $0.append(channel) } }

  /// To the channel of the worker on which the caller runs, or else to one after the other.
  func hand(_ transfer: Transfer) {
    let all = all
    guard let first = all.first else { return }
    if all.count == 1 { return first.hand(transfer) }
    if let own = all.first(where: { $0.worker.isCurrent }) { return own.hand(transfer) }
    let turn = next.withLock { next in
      next = (next &+ 1) % all.count
      return next
    }
    all[turn].hand(transfer)
  }
}
