// SPDX-License-Identifier: Apache-2.0

public import BlockStorage
import NVMeProtocol
public import PCIFunction
import Platform
import Synchronization
public import VSC

/// An NVMe controller with its namespaces, over one queue pair for each worker.
///
/// A controller that does not answer is reset; what was under way is sent again, or fails as its kind
/// allows. The queues live and die together: when the controller is over, all requests fail, with its
/// reason.
public final class NVMeController: BlockController, Sendable {
  public struct Configuration: Sendable {
    /// Requests of each queue at one time.
    public var depth: Int
    /// Bytes of the largest request, at most 2 MiB.
    public var bufferByteCount: Int
    /// Bytes of each queue's DMA memory; nil for room for `depth` of the largest.
    public var poolByteCount: Int?
    /// Nanoseconds that the controller has for a request.
    public var timeout: UInt64
    /// Nanoseconds that it has for a command of the admin queue, and for a request that was aborted.
    public var adminTimeout: UInt64
    /// Nanoseconds to become ready, where the controller takes more for itself.
    public var startupLimit: UInt64
    /// Nanoseconds between looks at the controller's status.
    public var lookInterval: UInt64
    public var retry: RetryPolicy
    /// Queues beyond the first one, at most; one for each further worker is asked for.
    public var maximumQueues: Int

    public init(
      depth: Int = 64, bufferByteCount: Int = 256 * 1024, poolByteCount: Int? = nil,
      timeout: UInt64 = 30_000_000_000, adminTimeout: UInt64 = 10_000_000_000,
      startupLimit: UInt64 = .max, lookInterval: UInt64 = 1_000_000_000,
      retry: RetryPolicy = RetryPolicy(), maximumQueues: Int = 64
    ) {
      self.depth = depth
      self.bufferByteCount = bufferByteCount
      self.poolByteCount = poolByteCount
      self.timeout = timeout
      self.adminTimeout = adminTimeout
      self.startupLimit = startupLimit
      self.lookInterval = lookInterval
      self.retry = retry
      self.maximumQueues = maximumQueues
    }

    var usableDepth: Int { min(max(depth, 1), 4095) }
    var usableBufferByteCount: Int { (min(max(bufferByteCount, 4096), 2 << 20) + 4095) & ~4095 }
    /// At least one, with which requests go after each other.
    var bufferCount: Int {
      guard let poolByteCount else { return usableDepth }
      return min(max(poolByteCount / usableBufferByteCount, 1), usableDepth)
    }
  }

  /// A queue pair as the controller is to know it, at each start anew.
  struct QueueRecord: Sendable {
    let number: UInt16
    let memory: QueueMemory
    let vector: UInt16
  }

  struct State {
    var data = NVMeControllerData()
    /// Queue pairs that the controller grants.
    var granted = 0
    var queues: [QueueRecord] = []
    var services: [WorkerHandle<NVMeService>] = []
    var units: [UInt32: StorageUnit] = [:]
    /// Of values on workers: kept when they have been dropped.
    var dropped: [Promise<Void>] = []
    /// What detaches the queues of programs.
    var attached: [@Sendable () -> Void] = []
    var next = 0
    var isClosed = false
  }

  let function: any PCIFunction
  let configuration: Configuration
  let registers: PCIRegisters
  let capabilities: NVMeCapabilities
  let adminMemory: QueueMemory
  let admin: WorkerHandle<AdminService>
  let life: ControllerLife
  package let workers: [Worker]
  let state = Lock(State())
  /// Whether the host sees the DMA memory and nothing else of this machine.
  private let isBounced: Bool

  init(
    _ function: any PCIFunction, _ configuration: Configuration, _ workers: [Worker],
    _ registers: PCIRegisters, _ capabilities: NVMeCapabilities
  ) throws(PCIError) {
    self.function = function
    self.configuration = configuration
    self.workers = workers
    self.registers = registers
    self.capabilities = capabilities
    life = ControllerLife()
    adminMemory = try QueueMemory(function, depth: AdminService.depth, pageCount: 1)
    let pair = try QueuePair(0, adminMemory, registers, stride: capabilities.doorbellStride)
    let pool: DMAPool<HostVisible> = try function.makePool(
      count: AdminService.depth, byteCount: 4096)
    isBounced = pool.isBounced
    let service = AdminService(
      pair, pool, life, registers, timeout: configuration.adminTimeout,
      grace: configuration.adminTimeout, lookInterval: configuration.lookInterval)
    let dropped = Promise<Void>()
    admin = workers[0].attach(service) { dropped.keep(()) }
    state.withLock { $0.dropped.append(dropped) }
  }

  // MARK: - Faces

  public var identity: PCIIdentity { function.identity }
  /// The model, serial number and firmware of the controller, for people.
  public var model: String { state.withLock { $0.data.model.text } }
  public var serial: String { state.withLock { $0.data.serial.text } }
  public var version: String { state.withLock { "\($0.data.version)" } }

  /// Why the controller can be used no more, or nil while it can.
  public var ended: StorageError? { life.endReason }
  public func waitUntilEnded() async { await life.waitUntilEnded() }

  /// Queues in use.
  package var channelCount: Int { state.withLock { $0.queues.count } }

  package var memories: (ring: MemoryVisibility, data: MemoryVisibility, isBounced: Bool) {
    (.hostVisible, .hostVisible, isBounced)
  }

  package func place(of unit: StorageUnit) -> BlockDevice.Place {
    BlockDevice.Place(
      device: "\(identity.address)", number: unit.number, transport: identity.transport)
  }

  /// What each queue has done so far; empty when they are over.
  public func counters() async -> [StorageCounters] {
    var all: [StorageCounters] = []
    for service in state.withLock({ $0.services }) {
      if let counters = await service.value({ $0.counters }) { all.append(counters) }
    }
    return all
  }

  /// What the admin queue has done so far; nil when it is over.
  public func adminCounters() async -> AdminCounters? {
    await admin.value { service in
      AdminCounters(
        channel: service.counters, aborts: service.aborts, resets: service.resets,
        events: service.events)
    }
  }

  // MARK: - Transfers

  /// To the queue of the worker on which the caller runs, or else to one after the other.
  func hand(_ transfer: Transfer) {
    let service = state.withLock { state -> WorkerHandle<NVMeService>? in
      if state.services.count < 2 { return state.services.first }
      if let own = state.services.first(where: { $0.worker.isCurrent }) { return own }
      state.next = (state.next &+ 1) % state.services.count
      return state.services[state.next]
    }
    guard let service else { return transfer.settle(life.endReason ?? .notReady) }
    let life = life
    service.perform { service in
      service.add(transfer)
    } orElse: {
      transfer.settle(life.endReason ?? .channel(.ended(.closed)))
    }
  }

  // MARK: - The end

  func end(_ error: StorageError) {
    guard life.end(error) else { return }
    let (services, attached, units) = state.withLock { state in
      (state.services, state.attached, Array(state.units.values))
    }
    for detach in attached { detach() }
    for service in services { service.detach() }
    admin.detach()
    for unit in units { unit.end(error) }
  }

  /// Ends all requests, shuts the controller down and gives the function back. Its memory is freed when
  /// the device is known to be quiet.
  public func close() async {
    let (isFirst, dropped) = state.withLock { state in
      defer { state.isClosed = true }
      return (!state.isClosed, state.dropped)
    }
    guard isFirst else { return }
    let wasWell = life.endReason == nil
    end(.channel(.ended(.closed)))
    for promise in dropped { await promise.value() }
    if wasWell { await shutDown() }
    await function.close()
  }
}

/// What an admin queue has done.
public struct AdminCounters: Sendable, Equatable {
  public var channel: ChannelCounters
  public var aborts: UInt64
  public var resets: UInt64
  /// What the controller told unasked.
  public var events: UInt64
}

/// Why a controller could not be opened.
public enum NVMeOpenError: Error, Equatable, Sendable, CustomStringConvertible {
  case pci(PCIError)
  case storage(StorageError)
  /// There is no worker to run on.
  case noWorker

  public var description: String {
    switch self {
    case .pci(let error): error.description
    case .storage(let error): error.description
    case .noWorker: "the controller has no worker"
    }
  }
}

extension WorkerHandle where Value: ~Copyable {
  /// What `body` makes of the value on its worker; nil when it has been dropped.
  func value<Result: Sendable>(
    _ body: @escaping @Sendable (inout Value) -> Result
  ) async -> Result? {
    let promise = Promise<Result?>()
    perform { value in
      promise.keep(body(&value))
    } orElse: {
      promise.keep(nil)
    }
    return await promise.value()
  }
}
