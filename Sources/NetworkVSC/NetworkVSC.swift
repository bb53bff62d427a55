// SPDX-License-Identifier: Apache-2.0

import Platform
public import VSC

/// What an author of a packet loop adopts: it gets each queue of a device once, and gives it to its worker
/// in a `Pollable` of its own.
public protocol NetworkQueueUser: Sendable {
  /// Attach a `Pollable` that owns the queue to the worker. Queue 0 comes before the start-up has run: that
  /// runs in its `receive`. The others follow, in order of number.
  func attach<Ring: Visibility, External: Visibility>(
    _ queue: consuming sending NetworkQueue<Ring, External>, to worker: Worker)
}

/// The network driver.
///
/// The primary channel runs on the device's first worker. For each further worker a subchannel is asked
/// for; where the host grants fewer, the driver works with what there is.
public struct NetworkVSC<User: NetworkQueueUser>: VSC {
  public static var deviceClass: DeviceClass { .network }

  public var channelParameters: ChannelParameters {
    // A packet with as many ranges as a host sends at most.
    ChannelParameters(
      ringByteCount: configuration.ringByteCount, maximumPacketByteCount: 8192)
  }

  private let configuration: NetworkConfiguration
  private let user: User
  private let events: @Sendable (NetworkEvent) -> Void
  private let whenReady: @Sendable (NetworkInterface) async -> Void

  /// - Parameters:
  ///   - user: gets the queues.
  ///   - events: called from the device's workers, which it must not hold up.
  ///   - whenReady: gets each interface that was started.
  public init(
    _ configuration: NetworkConfiguration = NetworkConfiguration(), user: User,
    events: @escaping @Sendable (NetworkEvent) -> Void = { _ in },
    whenReady: @escaping @Sendable (NetworkInterface) async -> Void
  ) {
    self.configuration = configuration
    self.user = user
    self.events = events
    self.whenReady = whenReady
  }

  /// Starts a device whose queues the user drives.
  ///
  /// - Throws: `NetworkError`, `TransportError`.
  public static func open(
    _ device: Device, _ configuration: NetworkConfiguration = NetworkConfiguration(), user: User,
    events: @escaping @Sendable (NetworkEvent) -> Void = { _ in }
  ) async throws -> NetworkInterface {
    let opened = Promise<NetworkInterface>()
    let driver = NetworkVSC(configuration, user: user, events: events) { opened.keep($0) }
    try await driver.start(device)
    guard opened.isKept else { throw NetworkError.notReady }
    return await opened.value()
  }

  public func start<Ring: Visibility, External: Visibility>(
    _ channel: consuming sending Channel<Ring, External>, of device: Device, on worker: Worker
  ) async throws {
    try configuration.check()
    let receive: SharedBuffer<External> = try await device.share(
      .receive, byteCount: configuration.receiveBufferByteCount)
    let send: SharedBuffer<External> = try await device.share(
      .send, byteCount: configuration.sendBufferByteCount)
    let frames: DMAPool<External> = try makeFrames(device)
    let isIsolated = frames.isIsolated
    let life = NetworkLife(
      NetworkInformation(device.identity, ring: Ring.memory, data: External.memory), events: events)
    let wanted = min(
      configuration.queueCount ?? device.workers.count, device.workers.count,
      NetworkConfiguration.maximumQueues)
    let parts = NetworkQueue<Ring, External>.Parts(
      configuration: configuration, receiveBuffer: receive, sendBuffer: send,
      sendTable: SendTable(), life: life, queueCount: max(wanted, 1), isIsolated: isIsolated)
    let mailbox = NetworkMailbox(worker)
    life.add(mailbox)
    let queue = NetworkQueue(channel, frames, parts, mailbox, number: 0, agreement: nil)
    user.attach(queue, to: worker)
    let interface = NetworkInterface(device, life, events: events)
    do {
      let agreement = try await life.agreed.value().get()
      let count = try await openSubchannels(of: device, agreement, parts)
      mailbox.put(.opened(queueCount: count))
      try await life.ready.value().get()
    } catch {
      life.end(error)
      throw life.endReason ?? .notReady
    }
    await whenReady(interface)
  }

  private func makeFrames<External: Visibility>(
    _ device: Device
  ) throws(TransportError) -> sending DMAPool<External> {
    try device.makePool(
      count: max(configuration.frameBuffers, 4), byteCount: configuration.usableFrameBufferByteCount
    )
  }

  /// One for each further worker, as far as the host grants and offers them.
  ///
  /// - Returns: queues that there are.
  private func openSubchannels<Ring: Visibility, External: Visibility>(
    of device: Device, _ agreement: NetworkAgreement,
    _ parts: NetworkQueue<Ring, External>.Parts
  ) async throws(NetworkError) -> Int {
    var count = 1
    let workers = device.workers.dropFirst().prefix(
      min(agreement.subchannelCount, parts.queueCount - 1))
    for worker in workers {
      do throws(TransportError) {
        let channel: Channel<Ring, External> = try await device.openSubchannel(
          UInt16(clamping: count), channelParameters, on: worker)
        let frames: DMAPool<External> = try makeFrames(device)
        let mailbox = NetworkMailbox(worker)
        parts.life.add(mailbox)
        user.attach(
          NetworkQueue(channel, frames, parts, mailbox, number: count, agreement: agreement),
          to: worker)
        count += 1
      } catch {
        // Fewer were offered than granted, or there is no memory for more.
        break
      }
    }
    if let reason = parts.life.endReason { throw reason }
    return count
  }
}
