// SPDX-License-Identifier: Apache-2.0

import CLinux
import Logging
import Platform
import SimulatedLink
import Synchronization
import SystemPackage
import VMBus
import VSC

/// The guest's end of the control plane, on its own thread.
final class BusCore: Sendable {
  let machine: GuestMachine
  let control: Worker
  let configuration: SimulatedBus.Configuration
  private let logger: Logger
  private let state: Lock<State>

  /// What somebody waits for.
  enum Awaited: Hashable, Sendable {
    case connection
    case gpadl(GPADLID)
    case teardown(GPADLID)
    case open(ChannelID)
    case unload
  }

  typealias Waiter = CheckedContinuation<Result<ControlStatus, TransportError>, Never>

  struct Resumption: Sendable {
    let continuation: Waiter
    let result: Result<ControlStatus, TransportError>
  }

  /// A worker is a virtual processor as long as it has channels.
  struct ProcessorUse {
    let worker: Worker
    let processor: Int
    var channels: Int
  }

  struct State: ~Copyable {
    var client: ControlClient
    /// Who has the control plane.
    var side = MessageOrigin.trusted
    var devices: [ChannelID: SimulatedDevice] = [:]
    /// The devices that subchannels belong to.
    var subchannels: [ChannelID: SimulatedDevice] = [:]
    var waiting: [Awaited: Waiter] = [:]
    var resumptions: [Resumption] = []
    var workers: [ProcessorUse] = []
    var kept: [any AnyObject & Sendable] = []
    var refused = 0
    var isGone = false
  }

  init(_ machine: GuestMachine, _ configuration: SimulatedBus.Configuration) throws(Errno) {
    self.machine = machine
    self.configuration = configuration
    logger = configuration.logger
    control = try Worker(.init(name: "vmbus-bus", spinRounds: 0))
    var client = ClientConfiguration()
    client.versions = configuration.versions
    client.isIsolated = machine.kind != .plain
    state = Lock(State(client: ControlClient(client)))
    control.watch(machine.processors[0].interrupt.rawValue) { [weak self] in self?.interrupted() }
    // Nothing comes on the socket unasked: what wakes this is the host's end.
    for link in [machine.link, machine.hostPath?.link].compactMap(\.self) {
      control.watch(link.descriptor, hangUpOnly: true) { [weak self] in self?.hungUp(link) }
    }
  }

  // MARK: - Asking and waiting

  /// Law 8: the confidential connection first, then the host's, unless that one is forbidden.
  func connect() async throws(TransportError) {
    guard machine.kind == .confidential || configuration.confidential != .require else {
      throw .system(
        "connect", code: 0,
        text: "a confidential connection is required, and this machine has no paravisor")
    }
    if isConfidentialWanted {
      do throws(TransportError) {
        return try await connect(.required, to: .trusted)
      } catch {
        guard configuration.confidential != .require else { throw error }
        logger.notice("no confidential connection, so the host's is taken: \(error)")
      }
    }
    try await connect(.off, to: machine.hostPath == nil ? trusted : .untrusted)
  }

  private func connect(
    _ policy: ConfidentialPolicy, to side: MessageOrigin
  ) async throws(TransportError) {
    _ = try await ask(.connection) { state throws(ControlError) in
      state.side = side
      return try state.client.connect(confidential: policy)
    }
  }

  /// Whether CPUID tells of a confidential VMBus, or somebody has said that there is one.
  private var isConfidentialWanted: Bool {
    switch configuration.confidential {
    case .never: return false
    case .require: return true
    case .automatic:
      if case .isolated(let isolated) = machine.isolation {
        return isolated.offersConfidentialVMBus
      }
      // Nothing tells, and there is nobody else.
      return machine.kind == .confidential && machine.hostPath == nil
    }
  }

  /// Whoever this machine was joined to.
  private var trusted: MessageOrigin { machine.kind == .confidential ? .trusted : .untrusted }

  func disconnect() async {
    _ = try? await ask(.unload) { state throws(ControlError) in try state.client.unload() }
  }

  /// Does what `request` says, then waits until the host has answered `awaited`.
  func ask(
    _ awaited: Awaited,
    _ request: @escaping @Sendable (inout State) throws(ControlError) -> [ClientAction]
  ) async throws(TransportError) -> ControlStatus {
    let timeout = Task { [weak self, seconds = configuration.timeoutSeconds] in
      try await Task.sleep(for: .seconds(seconds))
      self?.resume(awaited, .failure(.timedOut(awaited.name)))
    }
    defer { timeout.cancel() }
    let result: Result<ControlStatus, TransportError> = await withCheckedContinuation {
      continuation in
      locked { state in
        guard !state.isGone, state.waiting[awaited] == nil else {
          let error: TransportError = state.isGone ? .hostGone : .alreadyOpen
          return state.resumptions.append(
            Resumption(continuation: continuation, result: .failure(error)))
        }
        state.waiting[awaited] = continuation
        perform(request, &state, for: awaited)
      }
    }
    return try result.get()
  }

  /// Does what `request` says; nobody waits.
  func tell(_ request: (inout State) throws(ControlError) -> [ClientAction]) {
    locked { state in perform(request, &state, for: nil) }
  }

  private func perform(
    _ request: (inout State) throws(ControlError) -> [ClientAction], _ state: inout State,
    for awaited: Awaited?
  ) {
    do throws(ControlError) {
      perform(try request(&state), &state)
    } catch {
      logger.debug("request refused: \(error)")
      if let awaited { resume(awaited, .failure(TransportError(error)), &state) }
    }
  }

  /// Those who wait are resumed when the lock is free again: what they do next may need it.
  func locked<Result: Sendable>(_ body: (inout State) -> Result) -> Result {
    let (result, resumptions) = state.withLock { state in
      let result = body(&state)
      let resumptions = state.resumptions
      state.resumptions = []
      return (result, resumptions)
    }
    for resumption in resumptions {
      resumption.continuation.resume(returning: resumption.result)
    }
    return result
  }

  private func resume(_ awaited: Awaited, _ result: Result<ControlStatus, TransportError>) {
    locked { resume(awaited, result, &$0) }
  }

  private func resume(
    _ awaited: Awaited, _ result: Result<ControlStatus, TransportError>, _ state: inout State
  ) {
    guard let continuation = state.waiting.removeValue(forKey: awaited) else { return }
    state.resumptions.append(Resumption(continuation: continuation, result: result))
  }

  // MARK: - What the host says

  private func interrupted() {
    let processor = machine.processors[0]
    processor.takeInterrupt()
    processor.takeMessages { bytes, origin in
      locked { state in
        guard !state.isGone else { return }
        perform(state.client.receive(unsafe bytes.span.bytes, origin: origin), &state)
      }
    }
  }

  private func perform(_ actions: [ClientAction], _ state: inout State) {
    for action in actions {
      switch action {
      case .post(let message, let connectionID): post(message, connectionID, &state)
      case .connected(let connection):
        logger.debug("connected with \(connection.version)")
      // Nobody may connect anew before this connection is undone.
      case .connectFailed(.notConfidential): break
      case .connectFailed(let failure):
        resume(.connection, .failure(TransportError(failure)), &state)
      case .allOffersDelivered: resume(.connection, .success(.success), &state)
      case .offered(let offer): offered(offer, &state)
      case .rescinded(let channel): rescinded(channel, &state)
      case .released(let channel): logger.debug("channel \(channel) released")
      case .opened(let channel, let status): resume(.open(channel), .success(status), &state)
      case .gpadlCreated(let gpadl, let status): resume(.gpadl(gpadl), .success(status), &state)
      case .gpadlTornDown(let gpadl): resume(.teardown(gpadl), .success(.success), &state)
      case .unloaded:
        resume(.unload, .success(.success), &state)
        resume(.connection, .failure(TransportError(ConnectFailure.notConfidential)), &state)
      case .modified, .connectionModified, .socketRefused, .paused, .resumed: break
      case .refused(let error):
        state.refused += 1
        logger.warning("the host broke the protocol: \(error)")
      }
    }
  }

  private func post(_ message: OutgoingMessage, _ connectionID: UInt32, _ state: inout State) {
    // The host is behind: wait longer each time, two seconds in all.
    for attempt in 0..<11 {
      let status = try? machine.postMessage(
        message, connectionID: connectionID, to: state.side)
      guard let status else { break }
      if status == .success { return }
      guard status == .insufficientBuffers else {
        logger.warning("message refused: \(status)")
        break
      }
      vmbus_sleep_milliseconds(1 << UInt32(attempt))
    }
    hostGone(&state)
  }

  private func offered(_ offer: OfferChannel, _ state: inout State) {
    guard offer.subchannelIndex == 0 else {
      // The client has refused those whose primary it does not know.
      let device = state.devices.values.first {
        $0.offer.instanceID == offer.instanceID && $0.offer.interfaceID == offer.interfaceID
      }
      guard let device else { return }
      state.subchannels[offer.channelID] = device
      return device.subchannels.add(offer)
    }
    state.devices[offer.channelID] = SimulatedDevice(self, offer)
  }

  private func rescinded(_ channel: ChannelID, _ state: inout State) {
    resume(.open(channel), .failure(.rescinded), &state)
    let use: SimulatedDevice.Use
    if let device = state.subchannels.removeValue(forKey: channel) {
      use = device.endSubchannel(channel)
    } else if let device = state.devices.removeValue(forKey: channel) {
      use = device.end(.rescinded)
    } else {
      return
    }
    if use == .unused {
      // Nobody has it open: the relid can go at once.
      do throws(ControlError) {
        perform(try state.client.release(channel), &state)
      } catch {
        logger.debug("release refused: \(error)")
      }
    }
  }

  // MARK: - The end

  /// Without whoever has the control plane there is no bus. A host behind a paravisor may go: the
  /// paravisor rescinds its channels.
  private func hungUp(_ link: GuestLink) {
    control.unwatch(link.descriptor)
    locked { state in
      if link === machine.link || state.side == .untrusted { hostGone(&state) }
    }
  }

  private func hostGone(_ state: inout State) {
    guard !state.isGone else { return }
    state.isGone = true
    logger.info("the host is gone")
    for device in state.devices.values { _ = device.end(.hostGone) }
    state.devices = [:]
    state.subchannels = [:]
    for awaited in Array(state.waiting.keys) { resume(awaited, .failure(.hostGone), &state) }
  }

  func shutDown() {
    locked { hostGone(&$0) }
    locked { state in
      for use in state.workers {
        use.worker.unwatch(machine.processors[use.processor].interrupt.rawValue)
      }
      state.workers = []
    }
    control.stop()
  }

  // MARK: - For the bus and its devices

  var devices: [any DeviceTransport] {
    locked { $0.devices.values.sorted { $0.identity.channel < $1.identity.channel } }
  }

  var connection: ClientConnection? { locked { $0.client.connection } }

  var refusedMessages: Int { locked { $0.refused } }

  var isGone: Bool { locked { $0.isGone } }

  /// Keeps memory that the host may still use until this guest is gone.
  func keep(_ memory: any AnyObject & Sendable) { locked { $0.kept.append(memory) } }

  /// The virtual processor that a worker is to this guest, for one more channel.
  func takeProcessor(for worker: Worker) throws(TransportError) -> Int {
    let found = locked { state -> Int? in
      let inUse = Set(state.workers.map(\.processor))
      let index: Int
      if let known = state.workers.firstIndex(where: { $0.worker === worker }) {
        index = known
      } else if let free = (1..<machine.processors.count).first(where: { !inUse.contains($0) }) {
        // The first one is the control plane's.
        index = state.workers.count
        state.workers.append(ProcessorUse(worker: worker, processor: free, channels: 0))
      } else {
        return nil
      }
      state.workers[index].channels += 1
      let number = state.workers[index].processor
      if state.workers[index].channels == 1 {
        let processor = machine.processors[number]
        worker.watch(processor.interrupt.rawValue) { processor.takeInterrupt() }
      }
      return number
    }
    guard let found else {
      throw .system("workers", code: 0, text: "this machine has no more virtual processors")
    }
    return found
  }

  /// A channel of the worker is closed.
  func giveBackProcessor(of worker: Worker) {
    let isIdle = locked { state in
      guard let index = state.workers.firstIndex(where: { $0.worker === worker }) else {
        return false
      }
      state.workers[index].channels -= 1
      guard state.workers[index].channels == 0 else { return false }
      worker.unwatch(machine.processors[state.workers[index].processor].interrupt.rawValue)
      return true
    }
    guard isIdle else { return }
    // Nobody else may have the processor while this worker could still take its interrupts.
    worker.post { [weak self] in
      self?.locked { state in
        state.workers.removeAll { $0.worker === worker && $0.channels == 0 }
      }
    }
  }
}

extension BusCore.Awaited {
  fileprivate var name: WireName {
    switch self {
    case .connection: "connect"
    case .gpadl: "GPADL"
    case .teardown: "GPADL teardown"
    case .open: "open channel"
    case .unload: "unload"
    }
  }
}

extension TransportError {
  fileprivate init(_ error: ControlError) {
    self = .system("control plane", code: 0, text: "\(error)")
  }

  fileprivate init(_ failure: ConnectFailure) {
    let text =
      switch failure {
      case .noCommonVersion: "the host speaks no version that this machine may use"
      case .refused(let status): "the host refused the connection (\(status.rawValue))"
      case .notConfidential: "the connection is not confidential, as this machine demands"
      }
    self = .system("connect", code: 0, text: text)
  }
}
