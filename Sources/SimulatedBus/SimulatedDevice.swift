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
  private let state = Lock(State())

  private struct State {
    var channel: SimulatedChannelState?
    var isOpening = false
    var end: ChannelEnd?
    var allocations: [PageAllocation] = []
    /// False once the host has not said that it is done with a channel's memory.
    var isQuiet = true
    /// Those who wait for the end.
    var ending: [Promise<ChannelEnd>] = []
    /// Those who wait until the channel is closed for good.
    var closing: [CheckedContinuation<Void, Never>] = []

    var isClosed: Bool { channel == nil && !isOpening }
  }

  enum Use {
    case unused
    case inUse
  }

  init(_ bus: BusCore, _ offer: OfferChannel) {
    self.bus = bus
    self.offer = offer
    identity = DeviceIdentity(
      deviceClass: offer.deviceClass, instance: offer.instanceID, channel: offer.channelID,
      confidentiality: offer.flags.confidentiality ?? .hostVisible, transport: "simulated host")
  }

  var properties: [DeviceProperty] {
    let connection = bus.connection
    return [
      DeviceProperty("machine", bus.machine.kind.rawValue),
      DeviceProperty("protocol version", connection.map { "\($0.version)" } ?? "not connected"),
      DeviceProperty("connection", connection?.isConfidential == true ? "confidential" : "host"),
      DeviceProperty("offer flags", "0x" + String(offer.flags.rawValue, radix: 16)),
      DeviceProperty("connection id", "\(offer.connectionID)"),
      DeviceProperty("monitor", offer.monitor.map { "\($0)" } ?? "none: doorbell by signal"),
      DeviceProperty("state", state.withLock { $0.channel == nil ? "closed" : "open" }),
    ]
  }

  // MARK: - Opening

  func openChannel(
    _ parameters: ChannelParameters, worker: Worker
  ) async throws(TransportError) -> RawChannel {
    let refusal = state.withLock { state -> TransportError? in
      if let end = state.end { return end == .rescinded ? .rescinded : .hostGone }
      if state.channel != nil || state.isOpening { return .alreadyOpen }
      state.isOpening = true
      return nil
    }
    if let refusal { throw refusal }
    defer { settleClosing { $0.isOpening = false } }
    guard let confidentiality = offer.flags.confidentiality else {
      throw .unlawfulFlags(offer.flags)
    }
    let processor = try bus.processor(of: worker)
    let ringByteCount = max(parameters.ringByteCount & ~4095, 2 * 4096)
    let ring = try bus.machine.allocate(
      confidentiality == .hostVisible ? .hostVisible : .encrypted, byteCount: 2 * ringByteCount)
    let gpadl = try await createGPADL(ring)
    let channel: SimulatedChannelState
    do throws(TransportError) {
      let doorbell = try bus.machine.bindEvent(offer.connectionID)
      channel = SimulatedChannelState(
        self, bus, id: offer.channelID, gpadl: gpadl, ring: ring, doorbell: doorbell,
        worker: worker)
      var open = OpenParameters(ring: gpadl, downstreamPageOffset: UInt32(ringByteCount / 4096))
      open.targetVP = UInt32(processor)
      open.userData = parameters.userData
      let (id, message) = (offer.channelID, open)
      let status = try await bus.ask(.open(id)) { state throws(ControlError) in
        try state.client.open(id, message)
      }
      guard status.isSuccess else { throw TransportError.openRefused(status) }
    } catch {
      await tearDown(gpadl, ring)
      throw error
    }
    let end = state.withLock { state -> ChannelEnd? in
      state.channel = channel
      return state.end
    }
    if let end { channel.end(end) }
    // Safe: the state keeps the ring's pages for as long as the channel has it.
    return unsafe RawChannel(
      confidentiality: confidentiality,
      outgoing: BorrowedRingMemory(start: ring.start, byteCount: ringByteCount),
      incoming: BorrowedRingMemory(start: ring.start + ringByteCount, byteCount: ringByteCount),
      doorbell: .event(descriptor: channel.doorbell.rawValue), state: channel)
  }

  private func createGPADL(_ ring: PageAllocation) async throws(TransportError) -> GPADLID {
    let id = offer.channelID
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
      state.withLock { $0.isQuiet = false }
    }
  }

  // MARK: - Memory

  func allocate(_ memory: MemoryVisibility, byteCount: Int) throws(TransportError) -> DMAPages {
    let pages = try bus.machine.allocate(memory, byteCount: byteCount)
    state.withLock { $0.allocations.append(pages) }
    return pages.dmaPages
  }

  // MARK: - The end

  /// The offer is gone, or the host.
  func end(_ reason: ChannelEnd) -> Use {
    let (channel, waiting) = state.withLock { state in
      if state.end == nil { state.end = reason }
      let waiting = state.ending
      state.ending = []
      return (state.channel, waiting)
    }
    for promise in waiting { promise.keep(reason) }
    channel?.end(reason)
    return channel == nil ? .unused : .inUse
  }

  func ended() async -> ChannelEnd {
    let promise = Promise<ChannelEnd>()
    let end = state.withLock { state in
      if state.end == nil { state.ending.append(promise) }
      return state.end
    }
    if let end { return end }
    return await withTaskCancellationHandler {
      await promise.value()
    } onCancel: {
      promise.keep(.closed)
    }
  }

  /// The driver has let go of the channel.
  func released(_ channel: SimulatedChannelState) {
    Task {
      let wasRescinded = state.withLock { $0.end == .rescinded }
      bus.tell { state throws(ControlError) in try state.client.close(channel.id) }
      await tearDown(channel.gpadl, channel.ring)
      if wasRescinded {
        bus.tell { state throws(ControlError) in try state.client.release(channel.id) }
      }
      settleClosing { $0.channel = nil }
    }
  }

  /// Changes the state, and tells those who wait for the close when it is closed.
  private func settleClosing(_ change: (inout State) -> Void) {
    let waiting = state.withLock { state -> [CheckedContinuation<Void, Never>] in
      change(&state)
      guard state.isClosed else { return [] }
      let waiting = state.closing
      state.closing = []
      return waiting
    }
    for continuation in waiting { continuation.resume() }
  }

  /// Returns when the channel is closed: its driver must have been dropped.
  func close() async {
    await withCheckedContinuation { continuation in
      let isClosed = state.withLock { state in
        if !state.isClosed { state.closing.append(continuation) }
        return state.isClosed
      }
      if isClosed { continuation.resume() }
    }
    let (allocations, isQuiet) = state.withLock { state in
      let allocations = state.allocations
      state.allocations = []
      return (allocations, state.isQuiet)
    }
    // A host that is gone without a word may still have the memory mapped, and one that did not
    // answer may still use it.
    if !isQuiet || bus.isGone { for pages in allocations { bus.keep(pages) } }
  }
}

/// The life of an open channel.
final class SimulatedChannelState: ChannelState, @unchecked Sendable {
  let id: ChannelID
  let gpadl: GPADLID
  let ring: PageAllocation
  let doorbell: EventDescriptor
  private let device: SimulatedDevice
  private let bus: BusCore
  private let worker: Worker

  init(
    _ device: SimulatedDevice, _ bus: BusCore, id: ChannelID, gpadl: GPADLID,
    ring: PageAllocation, doorbell: consuming EventDescriptor, worker: Worker
  ) {
    self.device = device
    self.bus = bus
    self.id = id
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
