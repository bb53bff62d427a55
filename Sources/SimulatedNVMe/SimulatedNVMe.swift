// SPDX-License-Identifier: Apache-2.0

import CLinux
import Platform
public import SimulatedHost
import Synchronization
public import SystemPackage

/// A simulated NVMe device that drivers join over a Unix socket, one after the other: from this process
/// or from another, it is the same to it.
public final class SimulatedNVMe: Sendable {
  private let worker: Worker
  private let shared: Shared
  private let gone = Promise<Void>()
  public let path: String

  final class Shared: Sendable {
    struct State {
      var statistics = NVMeStatistics()
      var orders: [Order] = []
    }

    let state = Lock(State())
    let hasOrders = Atomic<Bool>(false)
  }

  enum Order {
    case refreshSizes
    case remove
    case fault(NVMeFault)
  }

  /// A namespace of the device.
  public final class Namespace {
    let image: DiskImage
    let blockByteCount: Int
    /// As the driver was told last.
    var blockCount: UInt64

    /// - Parameter blockByteCount: 512 or 4096; the image is a multiple of it.
    public init(_ image: consuming DiskImage, blockByteCount: Int = 512) {
      self.blockByteCount = blockByteCount
      blockCount = image.byteCount / UInt64(blockByteCount)
      self.image = image
    }
  }

  /// Listens at `path`.
  ///
  /// - Parameters:
  ///   - namespaces: by their ids, from 1 on; at most 1024.
  ///   - cpu: of the device's thread.
  ///   - spinRounds: rounds without work before that thread takes naps.
  public init(
    path: String, _ settings: NVMeSettings = NVMeSettings(), cpu: Int? = nil,
    spinRounds: Int = 2000, _ namespaces: sending [Namespace]
  ) throws(Errno) {
    let listener = try PacketListener(path: path)
    self.path = path
    let device = try NVMeDevice(settings, namespaces)
    shared = Shared()
    worker = try Worker(.init(name: "nvme", cpu: cpu, spinRounds: .max))
    let server = DeviceServer(device, listener, shared, spinRounds: spinRounds)
    let gone = gone
    _ = worker.attach(server) { gone.keep(()) }
  }

  public var statistics: NVMeStatistics { shared.state.withLock { $0.statistics } }

  /// The images may have other sizes now: the driver is told.
  public func refreshSizes() { order(.refreshSizes) }

  /// Takes the function away from its driver.
  public func remove() { order(.remove) }

  public func inject(_ fault: NVMeFault) { order(.fault(fault)) }

  private func order(_ order: Order) {
    shared.state.withLock { $0.orders.append(order) }
    shared.hasOrders.store(true, ordering: .releasing)
  }

  public func stop() { worker.stop() }
}

/// The device's thread: rounds of the device, and what its driver says in between.
private struct DeviceServer: Pollable, ~Copyable {
  private let device: NVMeDevice
  private let listener: PacketListener
  private let shared: SimulatedNVMe.Shared
  private let spinRounds: Int
  private var socket: PacketSocket?
  private var idleRounds = 0
  private var rounds = 0

  init(
    _ device: NVMeDevice, _ listener: consuming PacketListener, _ shared: SimulatedNVMe.Shared,
    spinRounds: Int
  ) {
    self.device = device
    self.listener = listener
    self.shared = shared
    self.spinRounds = spinRounds
  }

  mutating func poll(budget: Int) -> Int? {
    if shared.hasOrders.load(ordering: .acquiring) { obey() }
    rounds &+= 1
    let work = device.poll()
    idleRounds = work > 0 ? 0 : idleRounds &+ 1
    // Doorbells are words in memory: nothing wakes this thread for them, so it naps briefly.
    if idleRounds > spinRounds || rounds & 255 == 0 { listen(naps: idleRounds > spinRounds) }
    return 1
  }

  /// Waits a moment for the driver to say something, or to come.
  private mutating func listen(naps: Bool) {
    device.statistics.refusedAccesses = device.windows.refused
    let statistics = device.statistics
    shared.state.withLock { $0.statistics = statistics }
    if let driver = socket.take() {
      let isReady = vmbus_wait_for_input(driver.rawValue, naps ? 50_000 : 0)
      if !isReady || device.answer(driver) { socket = .some(driver) } else { device.detach() }
    } else if vmbus_wait_for_input(listener.owned.rawValue, 1_000_000) {
      socket = try? listener.accept()
    }
  }

  private mutating func obey() {
    shared.hasOrders.store(false, ordering: .relaxed)
    let orders = shared.state.withLock { state in
      defer { state.orders = [] }
      return state.orders
    }
    for order in orders {
      switch order {
      case .fault(let fault): device.faults.append(fault)
      case .refreshSizes: device.refreshSizes()
      case .remove:
        // What is left of it reads as all ones.
        device.detach()
        device.vanish()
        socket?.shutDown()
        socket = nil
      }
    }
  }

  mutating func arm() -> Bool { true }
  mutating func disarm() {}
}

extension NVMeDevice {
  func refreshSizes() {
    for (index, namespace) in namespaces.enumerated() {
      guard (try? namespace.image.refresh()) == true else { continue }
      namespace.blockCount =
        namespace.image.byteCount / UInt64(namespace.blockByteCount)
      namespaceChanged(UInt32(index + 1))
    }
  }

  func vanish() {
    for offset in stride(from: 0, to: Self.registerByteCount, by: 8) { write64(.max, offset) }
  }
}
