// SPDX-License-Identifier: Apache-2.0

import CRevocation
import Dispatch
import Platform
import Synchronization
import SystemPackage
import VMBus
import VSC

/// An open channel of a device under uio_hv_generic.
///
/// Its descriptor of the device file is its own, so that its worker waits for interrupts with nobody
/// between. UIO counts them per device: the workers of all channels of a device wake, and each looks
/// at its own rings.
@safe
final class UIOChannelState: ChannelState, @unchecked Sendable {
  // `parts` is under its lock; the rest stays as it is.
  private let id: ChannelID
  private let isPrimary: Bool
  private let confidentiality: Confidentiality
  private let life: DeviceLife
  private let worker: Worker
  let descriptor: Int32
  private let doorbell: Doorbell
  private let ringStart: UnsafeMutableRawPointer
  /// Bytes of each of the two rings.
  private let ringByteCount: Int
  private let monitorPageStart: UnsafeMutableRawPointer?
  private let parts: Lock<Parts?>

  /// What the channel has of the system. The mappings are given back before the file: as long as
  /// there are any, closing it does not close the channel.
  struct Parts: ~Copyable, Sendable {
    /// The outgoing ring, then the incoming one.
    let ring: MappedMemory
    let monitorPage: MappedMemory?
    let file: DeviceFile

    var monitorPageStart: UnsafeMutableRawPointer? {
      switch monitorPage {
      case .some(let page): unsafe page.start
      case .none: nil
      }
    }
  }

  /// Takes over what was opened, and lets the worker wait for interrupts.
  ///
  /// - Parameter monitor: rings the doorbell, if there is one and its page is mapped.
  init(
    _ id: ChannelID, _ confidentiality: Confidentiality, _ life: DeviceLife, _ worker: Worker,
    _ opened: consuming sending Parts, monitor: MonitorID?, isPrimary: Bool = true
  ) throws(TransportError) {
    self.id = id
    self.isPrimary = isPrimary
    self.confidentiality = confidentiality
    self.life = life
    self.worker = worker
    descriptor = opened.file.rawValue
    unsafe ringStart = opened.ring.start
    ringByteCount = opened.ring.byteCount / 2
    unsafe monitorPageStart = opened.monitorPageStart
    // Safe: the page stays mapped until `release`.
    if let monitor, let page = unsafe monitorPageStart {
      doorbell = unsafe .monitor(MonitorTrigger(page: page, monitor: monitor))
    } else {
      doorbell = .deviceFile(descriptor: opened.file.rawValue)
    }
    parts = Lock(consume opened)
    super.init()
    do throws(Errno) {
      try guardMappings()
    } catch {
      unguardMappings()
      throw .system("guard of a mapping", code: error.rawValue, text: "\(error)")
    }
    worker.watch(descriptor) { [self] in takeInterrupts() }
  }

  /// For the framework, once; good until `release`.
  var raw: RawChannel {
    // Safe: the ring stays mapped until `release`, after which nobody has these.
    unsafe RawChannel(
      confidentiality: confidentiality, outgoing: ring(at: ringStart),
      incoming: ring(at: ringStart + ringByteCount),
      // Linux looks at no trailer, and QEMU's VMBus bridge writes none.
      trailerCheck: .ignore, doorbell: doorbell, state: self)
  }

  @unsafe
  private func ring(at start: UnsafeMutableRawPointer) -> BorrowedRingMemory {
    unsafe BorrowedRingMemory(
      start: start, byteCount: ringByteCount, pageBytes: SystemPage.byteCount)
  }

  // MARK: - Interrupts, on the worker's thread

  func takeInterrupts() {
    do throws(Errno) {
      guard try DeviceFile.takeInterrupts(descriptor) else { return }
      // Kernels before 6.18 mask the channel on each interrupt.
      unsafe ring(at: ringStart + ringByteCount).unmaskInterrupts()
    } catch {
      // The host took the device back, or somebody unbound it. The kernel frees the rings while a
      // mapping of the device file still reaches them: let go of them here, on the only thread that
      // uses them.
      worker.unwatch(descriptor)
      unsafe vmbus_revoke(ringStart)
      if let page = unsafe monitorPageStart { unsafe vmbus_revoke(page) }
      life.end(.rescinded)
    }
  }

  /// A mapping may be taken away under our hands: touching it then ends the channel instead of the
  /// process.
  private func guardMappings() throws(Errno) {
    let word = unsafe endWord.assumingMemoryBound(to: UInt32.self)
    let reason = ChannelEnd.rescinded.rawValue
    try checked(unsafe vmbus_guard(ringStart, 2 * ringByteCount, word, reason))
    guard let page = unsafe monitorPageStart else { return }
    try checked(unsafe vmbus_guard(page, MonitorPage.byteCount, word, reason))
  }

  private func unguardMappings() {
    unsafe vmbus_unguard(ringStart)
    if let page = unsafe monitorPageStart { unsafe vmbus_unguard(page) }
  }

  // MARK: - The end

  override func end(_ reason: ChannelEnd) {
    super.end(reason)
    // Wakes the worker, which polls and sees it.
    worker.post {}
  }

  override func release() {
    super.end(.closed)
    worker.unwatch(descriptor)
    // Once the worker has read this, it is not waiting for the descriptor, whose number may go to
    // another file. Closing waits for the host, which is nothing for a worker.
    worker.post { [self] in
      DispatchQueue.global().async { [self] in
        // A worker that did not sleep may not have seen that the device has gone.
        do throws(Errno) {
          _ = try DeviceFile.takeInterrupts(descriptor)
        } catch {
          life.end(.rescinded)
        }
        life.released(self, isPrimary: isPrimary)
        unguardMappings()
        parts.withLock { $0 = nil }
        life.closed(id)
      }
    }
  }
}
