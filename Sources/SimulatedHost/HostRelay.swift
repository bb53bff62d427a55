// SPDX-License-Identifier: Apache-2.0

import CLinux
import Logging
import Platform
import SimulatedLink
import SystemPackage
import VMBus

/// A paravisor's end towards the untrusted host of one guest. It offers the host's channels to the
/// guest under their own relids, passes on what the guest asks for them, and raises the guest's
/// interrupts when the host signals.
///
/// The channels' rings and data lie in the guest's host-visible memory and go between guest and
/// host: nothing of them passes here. Belongs to the control thread; a host that does not answer
/// holds that one up.
@safe
final class HostRelay {
  private unowned let partition: Partition
  private let link: GuestLink
  private var client = ControlClient()
  /// Its own SynIC pages, behind all of the guest's: where the host's messages to it arrive.
  private let file: MemoryFile
  private let mapping: MappedMemory
  private let pages: SynICPages
  private let processor: Int
  private let interrupt: EventDescriptor
  /// What the host signals in place of the guest's processors.
  private let proxies: [EventBox]
  /// The channels of the host that the guest has been offered.
  private var channels: Set<ChannelID> = []
  /// The GPADLs that the host has been told of, under the guest's ids: the guest names them to the
  /// host's devices.
  private var gpadls: Set<GPADLID> = []
  private(set) var isConnecting = false
  private var attempt = 0
  private var isOver = false

  /// Beyond the memory of any guest.
  private static let firstPage: GPN = 1 << 35
  /// Messages that are taken at a time: a host that never stops has the thread no longer.
  private static let messagesAtOnce = 64

  init(
    _ partition: Partition, _ path: String, _ memory: GuestMemory, _ join: LinkJoin,
    interrupts proxies: [EventBox]
  ) throws(GuestMemoryError) {
    guard !proxies.isEmpty else { throw .system(.invalidArgument) }
    self.partition = partition
    self.proxies = proxies
    processor = proxies.count
    do throws(Errno) {
      let file = try MemoryFile(name: "vmbus-paravisor", byteCount: 2 * 4096)
      let mapping = try file.map()
      // Safe: mapped as long as this object lives.
      pages = unsafe SynICPages(message: mapping.start, eventFlags: mapping.start + 4096)
      self.file = file
      self.mapping = mapping
      interrupt = try EventDescriptor()
      link = try GuestLink(path: path)
    } catch {
      throw .system(error)
    }
    // What is encrypted stays here: the host gets host-visible memory alone.
    var (regions, files) = memory.hostVisible
    var own = LinkRegion()
    (own.firstPage, own.pageCount) = (Self.firstPage, 2)
    own.file = UInt16(files.count)
    regions.append(own)
    files.append(file.owned.rawValue)
    var joining = GuestLink.Joining()
    joining.isolation = .host
    joining.regions = regions
    joining.files = files
    joining.interrupts = proxies.map { $0.event.rawValue } + [interrupt.rawValue]
    joining.boundaryBit = join.boundaryBit
    do throws(LinkError) {
      try link.join(joining)
      try link.setSynIC(
        processor: processor, messagePage: Self.firstPage, eventFlagsPage: Self.firstPage + 1)
    } catch {
      throw .system(.connectionRefused)
    }
    watch()
  }

  private func watch() {
    let control = partition.host.control
    let box = Unowned(self)
    control.watch(interrupt.rawValue) { box.relay?.interrupted() }
    control.watch(link.descriptor, hangUpOnly: true) { box.relay?.hostGone() }
    for (number, proxy) in proxies.enumerated() {
      control.watch(proxy.event.rawValue) {
        proxy.event.drain()
        box.relay?.partition.synICs[number].raise()
      }
    }
  }

  /// What the control thread's closures hold: all of them run there.
  private final class Unowned: @unchecked Sendable {
    weak var relay: HostRelay?

    init(_ relay: HostRelay) { self.relay = relay }
  }

  /// The guest is gone, or the host.
  func end() {
    guard !isOver else { return }
    isOver = true
    isConnecting = false
    let control = partition.host.control
    control.unwatch(interrupt.rawValue)
    control.unwatch(link.descriptor)
    for proxy in proxies { control.unwatch(proxy.event.rawValue) }
    link.shutDown()
  }

  private func hostGone() {
    partition.logger.info("the host is gone")
    end()
    revokeAll()
    partition.relayIsReady()
  }

  // MARK: - The connection

  /// The guest has connected: the host's channels are fetched, from the beginning.
  func connect() {
    guard !isOver else { return }
    revokeAll()
    client = ControlClient(configuration)
    isConnecting = true
    attempt += 1
    let (attempt, box) = (attempt, Unowned(self))
    partition.host.later(partition.host.configuration.hostPatience) { box.relay?.giveUp(attempt) }
    perform { client throws(ControlError) in try client.connect() }
  }

  private var configuration: ClientConfiguration {
    var configuration = ClientConfiguration()
    configuration.isIsolated = true
    configuration.targetMessageVP = UInt32(processor)
    return configuration
  }

  private func giveUp(_ attempt: Int) {
    guard isConnecting, self.attempt == attempt else { return }
    partition.logger.warning("the host does not tell its offers")
    ready()
  }

  private func ready() {
    isConnecting = false
    partition.relayIsReady()
  }

  /// The guest has left its connection.
  func disconnect() {
    guard !isOver, client.state != .disconnected else { return }
    perform { client throws(ControlError) in try client.unload() }
    revokeAll()
  }

  private func revokeAll() {
    let channels = channels
    self.channels = []
    gpadls = []
    for id in channels.sorted() {
      do throws(ControlError) { partition.perform(try partition.server.revoke(id)) } catch {
        partition.logger.debug("relayed channel \(id): \(error)")
      }
    }
  }

  // MARK: - What the guest asks

  func has(_ channel: ChannelID) -> Bool { channels.contains(channel) }

  func create(_ gpadl: GPADLID, of channel: ChannelID) {
    guard let ranges = partition.server.gpadlBeingCreated(gpadl, of: channel) else { return }
    do throws(ControlError) {
      let actions = try client.createGPADL(channel, as: gpadl, ranges: ranges)
      gpadls.insert(gpadl)
      perform(actions)
    } catch {
      partition.perform(partition.server.gpadlCompleted(gpadl, .unsuccessful))
    }
  }

  func tearDown(_ gpadl: GPADLID) {
    let isKnown = gpadls.contains(gpadl)
    let isAsked = perform { client throws(ControlError) in
      guard isKnown else { throw .unknownGPADL(gpadl) }
      return try client.tearDownGPADL(gpadl)
    }
    // Of a rescinded channel the host has nothing any more.
    if !isAsked { tornDown(gpadl) }
  }

  private func tornDown(_ gpadl: GPADLID) {
    gpadls.remove(gpadl)
    partition.perform(partition.server.gpadlTornDown(gpadl))
  }

  func open(_ request: OpenRequest) {
    let id = request.channel
    let isAsked = perform { client throws(ControlError) in
      guard gpadls.contains(request.ring) else { throw .unknownGPADL(request.ring) }
      var open = OpenParameters(
        ring: request.ring, downstreamPageOffset: request.downstreamPageOffset)
      open.targetVP = request.targetVP
      open.userData = request.userData
      return try client.open(id, open)
    }
    if !isAsked { partition.perform(partition.server.openCompleted(id, .unsuccessful)) }
  }

  /// Nobody answers a close: the host is done with the ring when its GPADL is torn down.
  func close(_ id: ChannelID) {
    perform { client throws(ControlError) in try client.close(id) }
    partition.perform(partition.server.closeCompleted(id))
  }

  func modify(_ id: ChannelID, to processor: UInt32) {
    let isAsked = perform { client throws(ControlError) in
      try client.modify(id, targetVP: processor)
    }
    if !isAsked { partition.perform(partition.server.modifyCompleted(id, .unsuccessful)) }
  }

  func release(_ id: ChannelID) {
    guard client.channels[id]?.isRescinded == true else { return }
    channels.remove(id)
    perform { client throws(ControlError) in try client.release(id) }
  }

  /// The guest's own way to its host; nil when the host gives none.
  func openHostLink() -> OwnedDescriptor? { try? link.openHostLink() }

  func setVisibility(_ change: LinkVisibility) -> HypercallStatus {
    do throws(LinkError) {
      try link.setVisibility(
        firstPage: change.firstPage, pageCount: Int(clamping: change.pageCount),
        isHostVisible: change.isHostVisible != 0)
      return .success
    } catch .refused(let status) {
      return status
    } catch {
      // Nobody is there to see the pages.
      return .success
    }
  }

  // MARK: - What the host says

  private func interrupted() {
    interrupt.drain()
    pages.clearEventFlags()
    for _ in 0..<Self.messagesAtOnce {
      guard !isOver, let (bytes, moreWait) = pages.takeMessage() else { return }
      if moreWait { try? link.endOfMessage(processor: processor) }
      guard !bytes.isEmpty else { continue }
      perform(client.receive(unsafe bytes.span.bytes, origin: .untrusted))
    }
    // The rest, when others have had their turn.
    interrupt.signal()
  }

  /// Returns false when the client does not let it be asked now.
  @discardableResult
  private func perform(
    _ request: (inout ControlClient) throws(ControlError) -> [ClientAction]
  ) -> Bool {
    do throws(ControlError) {
      perform(try request(&client))
      return true
    } catch {
      partition.logger.debug("not asked of the host: \(error)")
      return false
    }
  }

  private func perform(_ actions: [ClientAction]) {
    for action in actions {
      switch action {
      case .post(let message, let connectionID): post(message, connectionID)
      case .connected, .released, .unloaded, .paused, .resumed: break
      case .connectionModified, .socketRefused: break
      case .connectFailed(let failure):
        partition.logger.warning("the host gives no connection: \(failure)")
        ready()
      case .offered(let offer): offered(offer)
      case .allOffersDelivered: ready()
      case .rescinded(let id): rescinded(id)
      case .opened(let id, let status):
        partition.perform(partition.server.openCompleted(id, status))
      case .gpadlCreated(let gpadl, let status):
        guard gpadls.contains(gpadl) else { continue }
        if !status.isSuccess { gpadls.remove(gpadl) }
        partition.perform(partition.server.gpadlCompleted(gpadl, status))
      case .gpadlTornDown(let gpadl) where gpadls.contains(gpadl): tornDown(gpadl)
      case .gpadlTornDown: break
      case .modified(let id, let status):
        partition.perform(partition.server.modifyCompleted(id, status))
      case .refused(let error):
        partition.host.countRefusal()
        partition.logger.warning("the host broke the protocol: \(error)")
      }
    }
  }

  private func offered(_ offer: OfferChannel) {
    var offer = offer
    // The client has refused flags that the host may not set, and monitor pages there are none.
    offer.monitorID = OfferChannel.noMonitor
    offer.monitorAllocated = 0
    do throws(ControlError) {
      let actions = try partition.server.relay(offer)
      channels.insert(offer.channelID)
      partition.perform(actions)
    } catch {
      partition.host.countRefusal()
      partition.logger.warning("an offer of the host is not passed on: \(error)")
    }
  }

  private func rescinded(_ id: ChannelID) {
    guard channels.contains(id) else { return }
    do throws(ControlError) { partition.perform(try partition.server.revoke(id)) } catch {
      partition.logger.debug("relayed channel \(id): \(error)")
    }
  }

  private func post(_ message: OutgoingMessage, _ connectionID: UInt32) {
    for attempt in 0..<8 {
      let status = try? link.postMessage(
        connectionID: connectionID, messageType: SynIC.vmbusMessage, message.array)
      guard status == .insufficientBuffers else { break }
      vmbus_sleep_milliseconds(1 << UInt32(attempt))
    }
  }
}
