// SPDX-License-Identifier: Apache-2.0

import CVFIO
import Dispatch
import PCIFunction
import Platform
import Synchronization
import SystemPackage
import VMBus
import VSC

/// The interrupt vectors of an open function, and who is woken by them.
final class VFIOInterrupts: Sendable {
  private let descriptor: Int32
  /// MSI-X, MSI, or none.
  private let kind: UInt32?
  let count: Int
  private let vectors = Lock<[Vector]>([])

  private final class Vector: Sendable {
    let event: EventDescriptor
    let worker: Worker

    init(_ worker: Worker) throws(Errno) {
      event = try EventDescriptor()
      self.worker = worker
    }

    func watch() {
      // The worker keeps the vector for as long as it watches.
      worker.watch(event.rawValue) { [self] in event.drain() }
    }

    func unwatch() { worker.unwatch(event.rawValue) }
  }

  init(_ descriptor: Int32) {
    self.descriptor = descriptor
    let extended = vmbus_vfio_interrupt_count(descriptor, VMBUS_VFIO_MSIX)
    let plain = vmbus_vfio_interrupt_count(descriptor, VMBUS_VFIO_MSI)
    if extended > 0 {
      kind = VMBUS_VFIO_MSIX
      count = Int(extended)
    } else if plain > 0 {
      // Several of these would share a processor and a mask.
      kind = VMBUS_VFIO_MSI
      count = 1
    } else {
      kind = nil
      count = 0
    }
  }

  /// One vector for each worker, in place of those that were.
  func enable(_ workers: [Worker]) throws(PCIError) {
    guard workers.count <= count else {
      throw .noVectors(asked: workers.count, available: count)
    }
    try disable()
    guard let kind, !workers.isEmpty else { return }
    var made: [Vector] = []
    do throws(Errno) {
      for worker in workers { made.append(try Vector(worker)) }
    } catch {
      throw .transport(.system("eventfd", code: error.rawValue, text: "\(error)"))
    }
    let events = made.map { $0.event.rawValue }
    let result = unsafe vmbus_vfio_enable_interrupts(
      descriptor, kind, events, UInt32(events.count))
    guard result >= 0 else {
      throw .transport(VFIOCall.failed("VFIO_DEVICE_SET_IRQS", -result))
    }
    for vector in made { vector.watch() }
    vectors.withLock { $0 = made }
  }

  func disable() throws(PCIError) {
    let before = vectors.withLock { vectors in
      let before = vectors
      vectors = []
      return before
    }
    for vector in before { vector.unwatch() }
    guard let kind, !before.isEmpty else { return }
    let result = vmbus_vfio_disable_interrupts(descriptor, kind)
    guard result >= 0 else {
      throw .transport(VFIOCall.failed("VFIO_DEVICE_SET_IRQS", -result))
    }
  }
}

/// Waits for what the kernel tells of an open function: that its device has failed, that it is to be given
/// back.
final class VFIOEvent: @unchecked Sendable {
  // Made here, ended here; Dispatch's objects may be used from any thread.
  private let source: any DispatchSourceRead

  /// - Returns: nil when this kernel or function does not tell.
  init?(_ descriptor: Int32, _ index: UInt32, _ happened: @escaping @Sendable () -> Void) {
    guard vmbus_vfio_interrupt_count(descriptor, index) > 0,
      let event = try? EventDescriptor()
    else { return nil }
    let raw = event.rawValue
    var events = [raw]
    guard unsafe vmbus_vfio_enable_interrupts(descriptor, index, &events, 1) >= 0 else {
      return nil
    }
    let keeper = Keeper(event)
    source = DispatchSource.makeReadSource(fileDescriptor: raw)
    source.setEventHandler {
      EventDescriptor.drain(raw)
      happened()
    }
    source.setCancelHandler { _ = keeper }
    source.activate()
  }

  private final class Keeper: Sendable {
    let event: EventDescriptor
    init(_ event: consuming EventDescriptor) { self.event = event }
  }

  deinit { source.cancel() }
}
