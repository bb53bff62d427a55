// SPDX-License-Identifier: Apache-2.0

import NetworkProtocol
import Platform
import Synchronization
import VMBus

/// What the channels of one guest to one network device share beside the data path.
final class NetworkGuest: Sendable {
  let adapter: NetworkAdapter
  let address: MACAddress
  let configuration: AdapterConfiguration
  let backend: any NetworkBackend
  /// False for a guest whose link is never up.
  let isPlugged: Bool
  private let state = Lock(State())

  private struct State {
    var buffers: NetworkBuffers?
    var sendBuffer: GuestBuffer?
    var version: NVSPVersion?
    var frameByteCount = 1514
    var channels: [Int: NetworkChannelControl] = [:]
    /// Subchannels that the guest was promised.
    var wanted = 0
    var errors: [NetVSPError] = []
    var errorCount: UInt64 = 0
    var dataPath = NVSPDataPath.synthetic
    var stage = NVSPSession.Stage.version
    var isDisconnected = false
    var opened = 0
  }

  private let ended: @Sendable (NetworkGuest) -> Void

  init(
    _ adapter: NetworkAdapter, _ backend: any NetworkBackend, address: MACAddress,
    _ configuration: AdapterConfiguration, isPlugged: Bool = true,
    ended: @escaping @Sendable (NetworkGuest) -> Void
  ) {
    self.ended = ended
    self.adapter = adapter
    self.backend = backend
    self.address = address
    self.configuration = configuration
    self.isPlugged = isPlugged
  }

  deinit {
    disconnect()
    backend.recycle(adapter)
  }

  /// Nothing goes to this guest or comes from it any more.
  func disconnect() {
    let isFirst = state.withLock { state in
      defer { state.isDisconnected = true }
      return !state.isDisconnected
    }
    guard isFirst else { return }
    adapter.state.setFilter([])
    backend.disconnect(adapter)
  }

  var isPrimaryOpen: Bool { state.withLock { $0.channels[0] != nil } }

  // MARK: - From the primary channel

  var buffers: NetworkBuffers? { state.withLock { $0.buffers } }
  var sendBuffer: GuestBuffer? { state.withLock { $0.sendBuffer } }
  var version: NVSPVersion? { state.withLock { $0.version } }
  /// Bytes of the largest frame, as the guest has configured them.
  var frameByteCount: Int { state.withLock { $0.frameByteCount } }

  func set(version: NVSPVersion?, frameByteCount: Int) {
    state.withLock { state in
      state.version = version
      state.frameByteCount = frameByteCount
    }
  }
  func set(buffers: NetworkBuffers?) {
    state.withLock { $0.buffers = buffers }
    if buffers == nil { tellSubchannels(.dropReceiveBuffer) }
  }
  func set(sendBuffer: GuestBuffer?) {
    state.withLock { $0.sendBuffer = sendBuffer }
    if sendBuffer == nil { tellSubchannels(.dropSendBuffer) }
  }
  func set(stage: NVSPSession.Stage, dataPath: NVSPDataPath) {
    state.withLock { state in
      state.stage = stage
      state.dataPath = dataPath
    }
  }
  func expect(subchannels count: Int) { state.withLock { $0.wanted = count } }

  func offloadsChanged(ipv4: Bool, ipv6: Bool) {
    adapter.state.setCoalescing(ipv4: ipv4, ipv6: ipv6)
    backend.offloadsChanged(adapter, coalescesIPv4: ipv4, coalescesIPv6: ipv6)
  }

  func setLinkUp(_ isUp: Bool) {
    adapter.state.setLinkUp(isUp)
    backend.linkChanged(adapter, isUp: isUp)
  }

  private func tellSubchannels(_ command: NetworkCommand) {
    let channels = state.withLock { state in state.channels.filter { $0.key != 0 } }
    for channel in channels.values { channel.perform(command) }
  }

  // MARK: - Channels

  func takeNumber() -> Int {
    state.withLock { state in
      state.opened += 1
      return state.opened
    }
  }

  /// A channel is served. With the last subchannel, the guest is told how to spread what it sends.
  func opened(_ queue: Int, _ control: NetworkChannelControl) {
    let primary = state.withLock { state in
      state.channels[queue] = control
      let isComplete =
        state.wanted > 0 && (1...state.wanted).allSatisfy { state.channels[$0] != nil }
      return isComplete ? state.channels[0] : nil
    }
    primary?.perform(.sendTable)
  }

  func closed(_ queue: Int, _ number: Int) {
    let isKnown = state.withLock { state in
      guard state.channels[queue]?.number == number else { return false }
      state.channels[queue] = nil
      guard queue == 0 else { return true }
      state.buffers = nil
      state.sendBuffer = nil
      state.wanted = 0
      state.stage = .version
      return true
    }
    if queue == 0, isKnown {
      tellSubchannels(.dropReceiveBuffer)
      tellSubchannels(.dropSendBuffer)
      disconnect()
      ended(self)
    }
  }

  /// To the primary channel, or to all.
  func perform(_ command: NetworkCommand, onAll: Bool = false) {
    let channels = state.withLock { state in
      onAll ? Array(state.channels.values) : state.channels[0].map { [$0] } ?? []
    }
    for channel in channels { channel.perform(command) }
  }

  /// What the guest did wrong; the first ones are kept.
  func count(_ error: NetVSPError) {
    state.withLock { state in
      state.errorCount += 1
      if state.errors.count < 32 { state.errors.append(error) }
    }
  }

  var record: NetworkGuestRecord {
    state.withLock { state in
      NetworkGuestRecord(
        address: address, stage: state.stage, version: state.version,
        dataPath: state.dataPath, filter: adapter.filter, isLinkUp: adapter.isLinkUp,
        queues: state.channels.keys.sorted().map {
          NetworkGuestRecord.Queue(
            index: $0, counters: adapter.counters(of: $0), overflows: adapter.overflows(of: $0))
        },
        errorCount: state.errorCount, errors: state.errors)
    }
  }
}

/// What there is to be known about one guest of a network device.
public struct NetworkGuestRecord: Sendable, Equatable {
  public struct Queue: Sendable, Equatable {
    public var index: Int
    public var counters: NetworkCounters
    /// Frames that found no room on their way to the guest.
    public var overflows: UInt64
  }

  public var address: MACAddress
  public var stage: NVSPSession.Stage
  public var version: NVSPVersion?
  public var dataPath: NVSPDataPath
  public var filter: PacketFilter
  public var isLinkUp: Bool
  public var queues: [Queue]
  public var errorCount: UInt64
  /// The first of them.
  public var errors: [NetVSPError]
}

/// What a channel is told from outside.
enum NetworkCommand: Sendable {
  case setLink(Bool)
  case networkChanged
  /// A virtual function with this serial number, or none any more.
  case setVirtualFunction(UInt32?)
  /// While so, no receive buffer is used.
  case setExhausted(Bool)
  case sendTable
  case dropReceiveBuffer
  case dropSendBuffer
  case flip(BitFlips?)
}

/// One channel, whatever its port is.
struct NetworkChannelControl: Sendable {
  /// Which opening of the channel it is.
  let number: Int
  let perform: @Sendable (NetworkCommand) -> Void
}

/// A channel that a guest has opened to a network device, for the backend that is to serve it.
public struct NetworkChannel: ~Copyable, Sendable {
  private let channel: HostChannel
  let guest: NetworkGuest
  /// What the guest's channels share.
  public let adapter: NetworkAdapter
  /// 0 for the primary channel.
  public let queue: Int

  init(_ channel: consuming HostChannel, _ guest: NetworkGuest) {
    queue = Int(channel.subchannelIndex)
    self.guest = guest
    adapter = guest.adapter
    self.channel = channel
  }

  /// Begins to serve the channel with the backend's port for it.
  public consuming func serve<Port: NetworkPort & ~Copyable>(
    _ port: consuming sending Port, on worker: Worker
  ) {
    let (guest, queue) = (guest, queue)
    let server = NetVSPServer(channel, guest, queue: queue, port)
    let number = guest.takeNumber()
    let handle = worker.attach(server) { guest.closed(queue, number) }
    guest.opened(
      queue,
      NetworkChannelControl(number: number) { command in
        handle.perform { $0.perform(command) }
      })
    // The channel's end may have come before it was known.
    handle.perform { _ in
    } orElse: {
      guest.closed(queue, number)
    }
  }
}
