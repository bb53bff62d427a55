// SPDX-License-Identifier: Apache-2.0

import NetworkVSC
import PacketIO
import Platform
import Synchronization
import SystemPackage
import VSC

/// What the loops of all queues look at. It stays as it is while they run.
final class TapShared: Sendable {
  /// Of the interface, Ethernet header excluded: the largest that was agreed on.
  let mtu: Int
  let capture: FrameCapture?
  private let captureError = Lock<Errno?>(nil)

  init(mtu: Int, capture: FrameCapture?) {
    self.mtu = mtu
    self.capture = capture
  }

  func record(_ frame: RawSpan, _ offload: FrameOffload, _ direction: PcapngWriter.Direction) {
    guard let capture else { return }
    do throws(Errno) {
      try capture.record(frame, offload, direction: direction)
    } catch {
      // Traffic goes on without the file; the first reason is told at the end.
      captureError.withLock { $0 = $0 ?? error }
    }
  }

  var failure: Errno? { captureError.withLock { $0 } }
}

/// Joins each queue of a device with one of the TAP device, as they come.
final class TapUser: NetworkQueueUser {
  private typealias Asking = @Sendable (@escaping @Sendable (InterfaceReport.Tap?) -> Void) -> Void

  private let tap: TapDevice
  private let shared: TapShared
  private let loops = Lock<[Asking]>([])
  private let error = Lock<TapError?>(nil)

  init(_ tap: TapDevice, _ shared: TapShared) {
    self.tap = tap
    self.shared = shared
  }

  /// Why a queue was not joined.
  var failure: TapError? { error.withLock { $0 } }

  func attach<Ring: Visibility, External: Visibility>(
    _ queue: consuming sending NetworkQueue<Ring, External>, to worker: Worker
  ) {
    do throws(TapError) {
      try tap.addQueues(to: queue.number + 1)
      let tapQueue = try tap.queue(queue.number)
      let wait = TapWait(try tapQueue.makeWaitDescriptor())
      let handle = worker.attach(TapLoop(queue, tapQueue, wait, shared, worker))
      loops.withLock { loops in
        loops.append { answer in
          handle.perform({ answer($0.report) }, orElse: { answer(nil) })
        }
      }
    } catch {
      // Dropping the queue ends the device, and the program says why.
      self.error.withLock { $0 = $0 ?? error }
    }
  }

  /// What each queue did, by its number; nil for one that is over.
  func reports() async -> [InterfaceReport.Tap?] {
    var reports: [InterfaceReport.Tap?] = []
    for ask in loops.withLock({ $0 }) {
      let promise = Promise<InterfaceReport.Tap?>()
      ask { promise.keep($0) }
      reports.append(await promise.value())
    }
    return reports
  }
}
