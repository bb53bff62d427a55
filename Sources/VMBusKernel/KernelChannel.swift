// SPDX-License-Identifier: Apache-2.0

import Dispatch
import Platform
import Synchronization
import SystemPackage
import VMBus
import VSC

/// An open channel of a device under the module, with an event and a doorbell of its own.
@safe
final class KernelChannelState: ChannelState, @unchecked Sendable {
  // `parts` is under its lock; the rest stays as it is.
  private let id: ChannelID
  private let number: UInt16
  private let confidentiality: Confidentiality
  private let life: DeviceLife
  private let session: KernelSession
  private let worker: Worker
  private let event: EventDescriptor
  private let ringStart: UnsafeMutableRawPointer
  /// Bytes of each of the two rings.
  private let ringByteCount: Int
  /// The outgoing ring, then the incoming one.
  private let ring: Lock<MappedMemory?>

  /// Takes over what was opened, and lets the worker wait for interrupts.
  init(
    _ id: ChannelID, _ number: UInt16, _ confidentiality: Confidentiality, _ life: DeviceLife,
    _ session: KernelSession, _ worker: Worker, ring: consuming sending MappedMemory,
    event: consuming EventDescriptor
  ) {
    self.id = id
    self.number = number
    self.confidentiality = confidentiality
    self.life = life
    self.session = session
    self.worker = worker
    unsafe ringStart = ring.start
    ringByteCount = ring.byteCount / 2
    self.ring = Lock(ring)
    let descriptor = event.rawValue
    self.event = event
    super.init()
    worker.watch(descriptor) { [self] in self.event.drain() }
  }

  /// For the framework, once; good until `release`.
  var raw: RawChannel {
    // Safe: the ring stays mapped until `release`, after which nobody has these; and the session,
    // which this object has, keeps descriptor and status page.
    unsafe RawChannel(
      confidentiality: confidentiality, outgoing: half(at: ringStart),
      incoming: half(at: ringStart + ringByteCount),
      // Linux looks at no trailer, and QEMU's VMBus bridge writes none.
      trailerCheck: .ignore,
      doorbell: .moduleFile(
        ModuleSignal(
          descriptor: session.file.rawValue, channel: UInt32(number), status: session.status.start)),
      state: self)
  }

  @unsafe
  private func half(at start: UnsafeMutableRawPointer) -> BorrowedRingMemory {
    unsafe BorrowedRingMemory(
      start: start, byteCount: ringByteCount, pageBytes: SystemPage.byteCount)
  }

  // MARK: - The end

  override func end(_ reason: ChannelEnd) {
    super.end(reason)
    // Wakes the worker, which polls and sees it.
    worker.post {}
  }

  override func release() {
    super.end(.closed)
    worker.unwatch(event.rawValue)
    // Once the worker has read this, it is not waiting for the event, whose number may go to another
    // file. Closing waits for the host, which is nothing for a worker.
    worker.post { [self] in
      DispatchQueue.global().async { [self] in
        // A worker that did not sleep may not have seen that the device has gone.
        session.look()
        life.released(self, isPrimary: number == 0)
        ring.withLock { $0 = nil }
        session.close(number) { [life, id] in life.closed(id) }
      }
    }
  }
}
