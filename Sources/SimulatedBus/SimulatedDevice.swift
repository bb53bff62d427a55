// SPDX-License-Identifier: Apache-2.0

import Platform
import Synchronization
import VMBus
import VSC

/// A device of the simulated host.
final class SimulatedDevice: DeviceTransport {
  let identity: DeviceIdentity
  let offer: OfferChannel
  private let bus: BusCore
  private let life = DeviceLife()
  let subchannels = SubchannelOffers()
  /// Channels whose offer was taken back while they were open: their relids are to be released.
  private let rescinded = Lock<Set<ChannelID>>([])
  /// False once the host has not said that it is done with a channel's memory.
  private let isQuiet = Atomic<Bool>(true)

  private struct Shared {
    /// Nil once the primary channel is closed.
    var buffers: [(gpadl: GPADLID, pages: PageAllocation)]? = nil
  }

  private let shared = Lock(Shared())

  enum Use {
    case unused
    case inUse
  }

  init(_ bus: BusCore, _ offer: OfferChannel) {
    self.bus = bus
    self.offer = offer
    identity = DeviceIdentity(
      deviceClass: offer.deviceClass, instance: offer.instanceID, channel: offer.channelID,
      confidentiality: offer.flags.confidentiality, transport: "simulated host")
  }

  var properties: [DeviceProperty] {
    let connection = bus.connection
    let data = identity.data(isIsolated: bus.machine.kind != .plain)
    return [
      DeviceProperty("data", data ?? "unknown"),
      DeviceProperty("machine", bus.machine.kind.rawValue),
      DeviceProperty("protocol version", connection.map { "\($0.version)" } ?? "not connected"),
      DeviceProperty("connection", connection?.isConfidential == true ? "confidential" : "host"),
      DeviceProperty("origin", origin),
      DeviceProperty("SynIC", isFromParavisor ? "the paravisor's" : "the host's"),
      DeviceProperty("offer flags", "0x" + String(offer.flags.rawValue, radix: 16)),
      DeviceProperty("connection id", "\(offer.connectionID)"),
      DeviceProperty("monitor", offer.monitor.map { "\($0)" } ?? "none: doorbell by signal"),
      DeviceProperty("state", life.openChannels.isEmpty ? "closed" : "open"),
    ]
  }

  private var isFromParavisor: Bool { identity.confidentiality != .hostVisible }

  /// Whose device it is, as far as the offer tells.
  private var origin: String {
    if isFromParavisor { return "paravisor" }
    return bus.connection?.isConfidential == true && bus.machine.hostPath != nil
      ? "host, relayed by the paravisor" : "host"
  }

  // MARK: - Opening

  func openChannel(
    _ parameters: ChannelParameters, worker: Worker
  ) async throws(TransportError) -> RawChannel {
    let channel = try await open(offer, parameters, worker)
    shared.withLock { $0.buffers = $0.buffers ?? [] }
    return channel
  }

  func openSubchannel(
    _ index: UInt16, _ parameters: ChannelParameters, worker: Worker
  ) async throws(TransportError) -> RawChannel {
    let seconds = bus.configuration.timeoutSeconds
    guard let offer = await subchannels.offer(index, withinSeconds: seconds) else {
      throw life.reason.map { $0 == .rescinded ? .rescinded : .hostGone }
        ?? .timedOut("subchannel offer")
    }
    return try await open(offer, parameters, worker)
  }

  private func open(
    _ offer: OfferChannel, _ parameters: ChannelParameters, _ worker: Worker
  ) async throws(TransportError) -> RawChannel {
    let channel = try await life.opening(offer.channelID) {
      () async throws(TransportError) -> SimulatedChannelState in
      guard let confidentiality = offer.flags.confidentiality else {
        throw .unlawfulFlags(offer.flags)
      }
      let processor = try bus.takeProcessor(for: worker)
      do throws(TransportError) {
        return try await openRing(offer, parameters, worker, confidentiality, processor)
      } catch {
        bus.giveBackProcessor(of: worker)
        throw error
      }
    }
    let (ring, half) = (channel.ring, channel.ring.byteCount / 2)
    // Safe: the state keeps the ring's pages for as long as the channel has it.
    return unsafe RawChannel(
      confidentiality: channel.confidentiality,
      outgoing: BorrowedRingMemory(start: ring.start, byteCount: half),
      incoming: BorrowedRingMemory(start: ring.start + half, byteCount: half),
      doorbell: .event(descriptor: channel.doorbell.rawValue), state: channel)
  }

  private func openRing(
    _ offer: OfferChannel, _ parameters: ChannelParameters, _ worker: Worker,
    _ confidentiality: Confidentiality, _ processor: Int
  ) async throws(TransportError) -> SimulatedChannelState {
    let id = offer.channelID
    let ringByteCount = max(parameters.ringByteCount & ~4095, 2 * 4096)
    let ring = try bus.machine.pages.allocate(
      confidentiality == .hostVisible ? .hostVisible : .encrypted, byteCount: 2 * ringByteCount,
      use: "ring")
    let gpadl = try await createGPADL(ring, for: id)
    do throws(TransportError) {
      let doorbell = try bus.machine.bindEvent(offer.connectionID, confidentiality)
      let channel = SimulatedChannelState(
        self, bus, id: id, confidentiality: confidentiality, gpadl: gpadl, ring: ring,
        doorbell: doorbell, worker: worker)
      var open = OpenParameters(ring: gpadl, downstreamPageOffset: UInt32(ringByteCount / 4096))
      open.targetVP = UInt32(processor)
      open.userData = parameters.userData
      let message = open
      let status = try await bus.ask(.open(id)) { state throws(ControlError) in
        try state.client.open(id, message)
      }
      guard status.isSuccess else { throw TransportError.openRefused(status) }
      return channel
    } catch {
      await tearDown(gpadl, ring)
      throw error
    }
  }

  private func createGPADL(
    _ ring: PageAllocation, for id: ChannelID
  ) async throws(TransportError) -> GPADLID {
    guard let range = GPADLRange(pages: ring.gpns) else {
      throw .outOfMemory(.hostVisible, byteCount: ring.byteCount)
    }
    // The id is known before the answer can be: this thread posts under the lock.
    let reserved = bus.locked { state in
      do throws(ControlError) {
        return Result<(GPADLID, [ClientAction]), ControlError>.success(
          try state.client.createGPADL(id, ranges: [range]))
      } catch {
        return .failure(error)
      }
    }
    switch reserved {
    case .failure(let error): throw .system("GPADL", code: 0, text: "\(error)")
    case .success(let (gpadl, actions)):
      let status: ControlStatus
      do throws(TransportError) {
        status = try await bus.ask(.gpadl(gpadl)) { _ throws(ControlError) in actions }
      } catch {
        // The host knows the pages, and may still take them up.
        bus.keep(ring)
        throw error
      }
      guard status.isSuccess else { throw .gpadlRefused(status) }
      return gpadl
    }
  }

  /// The memory is kept until the host has said that it is done with it (law 3), and if it never
  /// says so, as long as this guest lives; and so is all DMA memory then.
  private func tearDown(_ gpadl: GPADLID, _ ring: PageAllocation) async {
    do throws(TransportError) {
      _ = try await bus.ask(.teardown(gpadl)) { state throws(ControlError) in
        try state.client.tearDownGPADL(gpadl)
      }
    } catch {
      bus.keep(ring)
      isQuiet.store(false, ordering: .sequentiallyConsistent)
    }
  }

  // MARK: - Memory

  func allocate(_ memory: MemoryVisibility, byteCount: Int) throws(TransportError) -> DMAPages {
    let pages = try bus.machine.pages.allocate(memory, byteCount: byteCount, use: "DMA")
    life.keep(pages)
    return pages.dmaPages
  }

  func share(
    _ use: SharedMemoryUse, _ memory: MemoryVisibility, byteCount: Int
  ) async throws(TransportError) -> SharedPages {
    let pages = try bus.machine.pages.allocate(memory, byteCount: byteCount, use: "buffer")
    let gpadl = try await createGPADL(pages, for: offer.channelID)
    let isOver = shared.withLock { shared in
      guard shared.buffers != nil else { return true }
      shared.buffers?.append((gpadl, pages))
      return false
    }
    if isOver {
      // The channel was closed meanwhile.
      await tearDown(gpadl, pages)
      throw life.reason == .rescinded ? .rescinded : .hostGone
    }
    return unsafe SharedPages(
      start: pages.start, byteCount: pages.byteCount, gpadl: gpadl, owner: pages)
  }

  private func tearDownShared() async {
    let buffers = shared.withLock { shared in
      let buffers = shared.buffers ?? []
      shared.buffers = nil
      return buffers
    }
    for (gpadl, pages) in buffers { await tearDown(gpadl, pages) }
  }

  // MARK: - The end

  /// The offer is gone, or the host.
  func end(_ reason: ChannelEnd) -> Use {
    if reason == .rescinded { rescinded.withLock { _ = $0.insert(offer.channelID) } }
    subchannels.end()
    return life.end(reason) ? .inUse : .unused
  }

  /// The offer of a subchannel is gone; the device goes on.
  func endSubchannel(_ channel: ChannelID) -> Use {
    subchannels.remove(channel)
    rescinded.withLock { _ = $0.insert(channel) }
    return life.end(channel, .rescinded) ? .inUse : .unused
  }

  var endReason: ChannelEnd? { life.reason }

  func ended() async -> ChannelEnd { await life.ended() }

  /// The driver has let go of the channel.
  func released(_ channel: SimulatedChannelState) {
    life.released(channel, isPrimary: channel.id == offer.channelID)
    Task {
      let wasRescinded = rescinded.withLock { $0.contains(channel.id) }
      bus.tell { state throws(ControlError) in try state.client.close(channel.id) }
      await tearDown(channel.gpadl, channel.ring)
      if channel.id == offer.channelID { await tearDownShared() }
      if wasRescinded {
        bus.tell { state throws(ControlError) in try state.client.release(channel.id) }
      }
      bus.giveBackProcessor(of: channel.worker)
      life.closed(channel.id)
    }
  }

  func close() async {
    let memory = await life.close()
    // A host that is gone without a word may still have the memory mapped, and one that did not
    // answer may still use it.
    if bus.isGone || !isQuiet.load(ordering: .sequentiallyConsistent) {
      for pages in memory { bus.keep(pages) }
    }
  }
}

/// The life of an open channel.
final class SimulatedChannelState: ChannelState, @unchecked Sendable {
  let id: ChannelID
  /// As the offer said at this open.
  let confidentiality: Confidentiality
  let gpadl: GPADLID
  let ring: PageAllocation
  let doorbell: EventDescriptor
  private let device: SimulatedDevice
  private let bus: BusCore
  let worker: Worker

  init(
    _ device: SimulatedDevice, _ bus: BusCore, id: ChannelID,
    confidentiality: Confidentiality, gpadl: GPADLID, ring: PageAllocation,
    doorbell: consuming EventDescriptor, worker: Worker
  ) {
    self.device = device
    self.bus = bus
    self.id = id
    self.confidentiality = confidentiality
    self.gpadl = gpadl
    self.ring = ring
    self.doorbell = doorbell
    self.worker = worker
    super.init()
  }

  override func end(_ reason: ChannelEnd) {
    super.end(reason)
    // Wakes the worker, which polls and sees it.
    worker.post {}
  }

  override func release() {
    super.end(.closed)
    device.released(self)
  }
}
