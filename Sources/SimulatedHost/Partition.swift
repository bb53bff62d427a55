// SPDX-License-Identifier: Apache-2.0

import CLinux
import Logging
import Platform
import SimulatedLink
import Synchronization
import SystemPackage
import VMBus

/// One guest of the host: its memory, its processors' SynICs, its end of the control plane.
///
/// All of it belongs to the host's control thread; devices on other threads reach it by posting.
@safe
final class Partition: @unchecked Sendable {
  // Touched on the control thread only.
  let number: Int
  unowned let host: HostCore
  /// The socket that the guest came by first, then those that it was given.
  var doors: [Door] = []
  let logger: Logger
  var memory: GuestMemory?
  var isolation = MachineIsolation.none
  var vtl: UInt8 = 0
  var synICs: [GuestSynIC] = []
  /// The pages by which processors call past their paravisor.
  var ghcbs: [UInt32: GPN] = [:]
  /// A paravisor's end towards the guest's host.
  var relay: HostRelay?
  /// Messages of the guest that wait until the relay has the host's offers.
  private var heldPosts: [[UInt8]] = []
  var server: ControlServer
  /// They stay until the guest leaves, which may have bound one for good.
  var doorbells: [UInt32: EventBox] = [:]
  let gpadls = GPADLTable()
  /// GPADLs that the guest wants back while a device uses them.
  var leaving: [GPADLID: GPADLEntry] = [:]
  var channels: [ChannelID: OpenedChannel] = [:]
  /// Channels whose device goes as soon as it has let go of the guest's memory.
  var revoking: Set<ChannelID> = []
  var deviceOf: [ChannelID: Int] = [:]
  /// The primary channel of each subchannel.
  var primaries: [ChannelID: ChannelID] = [:]
  /// Subchannels to offer when those of the last time are gone.
  var wantedSubchannels: [ChannelID: UInt16] = [:]
  var monitor: GuestMonitor?
  private(set) var isGone = false
  /// Each is a descriptor of this process, and no guest may take so many that none are left.
  static let maximumDoorbells = min(4096, max(64, Int(vmbus_descriptor_limit()) / 16))

  struct OpenedChannel {
    let state: HostChannelState
    let interrupt: ChannelInterrupt
    let connectionID: UInt32
    let monitor: MonitorID?
  }

  init(_ host: HostCore, number: Int, socket: consuming PacketSocket) {
    self.host = host
    self.number = number
    doors = [Door(socket)]
    var logger = host.logger
    logger[metadataKey: "guest"] = "\(number)"
    self.logger = logger
    server = ControlServer(host.configuration.server)
  }

  var hasJoined: Bool { memory != nil }

  func start() {
    for door in doors { serve(door) }
    logger.info("guest connected")
  }

  /// Something that a guest may not do, and that no message of the control plane says.
  func refuse(_ what: String, _ error: some Error) {
    host.countRefusal()
    logger.warning("\(what) refused: \(error)")
  }

  // MARK: - The control plane

  func accept(_ post: LinkPost, _ bytes: [UInt8]) -> HypercallStatus {
    guard memory != nil, post.connectionID == 1 || post.connectionID == 4 else {
      return .invalidConnectionID
    }
    guard post.messageType == SynIC.vmbusMessage else { return .invalidParameter }
    host.configuration.capture?.message(bytes, fromGuest: true)
    guard relay?.isConnecting != true else {
      guard heldPosts.count < Self.maximumHeldPosts else { return .insufficientBuffers }
      heldPosts.append(bytes)
      return .success
    }
    take(bytes)
    return .success
  }

  private static let maximumHeldPosts = 64

  private func take(_ bytes: [UInt8]) {
    let origin: MessageOrigin = isolation == .paravisor ? .trusted : .untrusted
    perform(server.receive(unsafe bytes.span.bytes, origin: origin))
  }

  /// The relay has told what the host offers, or given up.
  func relayIsReady() {
    while relay?.isConnecting != true, !heldPosts.isEmpty { take(heldPosts.removeFirst()) }
  }

  func perform(_ actions: [ServerAction]) {
    for action in actions {
      switch action {
      case .post(let message, let targetVP): post(message, to: targetVP)
      case .connected(let connection):
        logger.info(
          "guest speaks \(connection.version)",
          metadata: ["confidential": "\(connection.isConfidential)"])
        setMonitorPages(connection.monitorPages)
        if connection.isConfidential { relay?.connect() }
      case .disconnected:
        forgetGPADLs()
        logger.info("guest disconnected")
        setMonitorPages(nil)
        relay?.disconnect()
      case .monitorPagesChanged(let pages): setMonitorPages(pages)
      case .open(let request) where isRelayed(request.channel): relay?.open(request)
      case .open(let request): open(request)
      case .close(let channel) where isRelayed(channel): relay?.close(channel)
      case .close(let channel): close(channel)
      case .createGPADL(let channel, let gpadl): checkGPADL(channel, gpadl)
      case .tearDownGPADL(let channel, let gpadl) where isRelayed(channel):
        relay?.tearDown(gpadl)
      case .tearDownGPADL(_, let gpadl): tearDownGPADL(gpadl)
      case .modify(let channel, let processor) where isRelayed(channel):
        relay?.modify(channel, to: processor)
      case .modify(let channel, let processor):
        let isMoved = channels[channel]?.interrupt.move(to: processor) ?? false
        perform(server.modifyCompleted(channel, isMoved ? .success : .unsuccessful))
      case .released(let channel):
        relay?.release(channel)
        deviceOf[channel] = nil
        primaries[channel] = nil
        forgetGPADLs(of: channel)
      case .refused(let error):
        host.countRefusal()
        logger.warning("refused: \(error)")
      }
    }
  }

  private func isRelayed(_ channel: ChannelID) -> Bool { relay?.has(channel) == true }

  private func post(_ message: OutgoingMessage, to processor: UInt32) {
    host.configuration.capture?.message(message.array, fromGuest: false)
    guard processor < synICs.count, synICs[Int(processor)].post(message) else {
      return leave("does not take its messages")
    }
  }

  private func setMonitorPages(_ pages: MonitorPages?) {
    do throws(GuestMemoryError) {
      // The page that is the guest's to write: the host's own signals go by event flags.
      try monitor?.setPages(pages, in: .hostVisible)
    } catch {
      logger.warning("monitor pages refused: \(error)")
    }
  }

  // MARK: - Devices

  func offer(_ device: HostDevice, _ index: Int) {
    guard device.vtl == vtl else { return }
    do throws(ControlError) {
      let (id, actions) = try server.offer(monitored(device.vsp.offer))
      deviceOf[id] = index
      primaries[id] = nil
      perform(actions)
    } catch {
      logger.error("device can't be offered: \(error)")
    }
  }

  private func close(_ id: ChannelID) {
    guard let channel = channels[id] else {
      // Its device has let go before: the ring was corrupt.
      perform(server.closeCompleted(id))
      return revokeSubchannels(of: id)
    }
    channel.state.close()
  }

  /// A device let go of a channel: because it was closed, or because its ring was corrupt.
  func closed(_ id: ChannelID) {
    guard let channel = channels.removeValue(forKey: id) else { return }
    monitor?.unwatch(channel.monitor)
    if let doorbell = doorbells[channel.connectionID] { monitor?.endPolling(doorbell) }
    let state = channel.state
    if revoking.contains(id) {
      finishRevokes()
    } else if state.isClosed.load(ordering: .relaxed) {
      perform(server.closeCompleted(id))
      revokeSubchannels(of: id)
    } else {
      host.countRefusal()
      logger.warning("channel \(id): the guest broke its protocol, it is served no more")
    }
  }

  /// The guest is gone: its devices let go, then this object does.
  func leave(_ reason: String) {
    guard !isGone else { return }
    isGone = true
    logger.info("guest \(reason)")
    if let memory, memory.hidesPages {
      logger.log(
        level: memory.audit.violationCount == 0 ? .info : .warning, "\(memory.audit.summary)")
      host.countViolations(memory.audit.violationCount)
    }
    for door in doors { host.control.unwatch(door.socket.rawValue) }
    monitor?.end()
    relay?.end()
    perform(server.disconnect())
    for channel in channels.values { channel.state.close() }
    host.remove(self)
  }

  func shutDown() { leave("was cut off") }
}
