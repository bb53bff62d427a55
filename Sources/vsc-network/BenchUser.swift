// SPDX-License-Identifier: Apache-2.0

import DriverProgram
import NetworkProtocol
import NetworkVSC
import Platform
import Synchronization
import VSC

/// Starts and ends a measurement on all queues of a device.
final class BenchUser: NetworkQueueUser {
  private struct Loop: Sendable {
    var begin: @Sendable (BenchPlan.Run, MACAddress) -> Void
    var end: @Sendable (Promise<BenchPart?>) -> Void
    var progress: @Sendable (Promise<UInt64>) -> Void
  }

  private let loops = Lock<[Loop]>([])

  func attach<Ring: Visibility, External: Visibility>(
    _ queue: consuming sending NetworkQueue<Ring, External>, to worker: Worker
  ) {
    let handle = worker.attach(BenchLoop(queue))
    let loop = Loop(
      begin: { plan, own in handle.perform { $0.begin(plan, from: own) } },
      end: { promise in
        handle.perform({ promise.keep($0.end()) }, orElse: { promise.keep(nil) })
      },
      progress: { promise in
        handle.perform({ promise.keep($0.progress) }, orElse: { promise.keep(0) })
      })
    loops.withLock { $0.append(loop) }
  }

  func begin(_ plan: BenchPlan.Run, from own: MACAddress) {
    for loop in loops.withLock({ $0 }) { loop.begin(plan, own) }
  }

  /// What each queue did; those that are over are left out.
  func end() async -> [BenchPart] {
    var parts: [BenchPart] = []
    for loop in loops.withLock({ $0 }) {
      let promise = Promise<BenchPart?>()
      loop.end(promise)
      if let part = await promise.value() { parts.append(part) }
    }
    return parts
  }

  /// Frames so far.
  func progress() async -> UInt64 {
    var sum: UInt64 = 0
    for loop in loops.withLock({ $0 }) {
      let promise = Promise<UInt64>()
      loop.progress(promise)
      sum &+= await promise.value()
    }
    return sum
  }
}
