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
  private let socket: PacketSocket
  let logger: Logger
  private(set) var memory: GuestMemory?
  private var isolation = MachineIsolation.none
  private(set) var synICs: [GuestSynIC] = []
  var server: ControlServer
  /// They stay until the guest leaves, which may have bound one for good.
  private var doorbells: [UInt32: DoorbellBox] = [:]
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
  private(set) var monitor: GuestMonitor?
  private var isGone = false
  /// Each is a descriptor of this process, and no guest may take so many that none are left.
  static let maximumDoorbells = min(4096, max(64, Int(vmbus_descriptor_limit()) / 16))

  struct OpenedChannel {
    let state: HostChannelState
    let interrupt: ChannelInterrupt
    let connectionID: UInt32
    let monitor: MonitorID?
  }

  /// A box, since dictionaries hold no noncopyable values.
  final class DoorbellBox: Sendable {
    let event: EventDescriptor

    init() throws(Errno) { event = try EventDescriptor() }
  }

  init(_ host: HostCore, number: Int, socket: consuming PacketSocket) {
    self.host = host
    self.number = number
    self.socket = socket
    var logger = host.logger
    logger[metadataKey: "guest"] = "\(number)"
    self.logger = logger
    server = ControlServer(host.configuration.server)
  }

  var hasJoined: Bool { memory != nil }

  func start() {
    host.control.watch(socket.rawValue) { [weak self] in self?.serveCall() }
    logger.info("guest connected")
  }

  // MARK: - Calls of the guest

  private func serveCall() {
    guard !isGone else { return }
    let message: SocketMessage
    do throws(Errno) {
      guard let received = try socket.receive() else { return leave("closed the connection") }
      message = received
    } catch .wouldBlock {
      return
    } catch {
      return leave("connection broke: \(error)")
    }
    let bytes = message.bytes
    do throws(WireError) {
      var reader = WireReader(unsafe bytes.span.bytes, name: "link call")
      let header = try reader.read(LinkHeader.self)
      switch LinkCall(rawValue: header.call) {
      case .join:
        let join = try reader.read(LinkJoin.self)
        guard join.regionCount <= 16, join.fileCount <= 16 else { return answer(.invalidParameter) }
        var regions: [LinkRegion] = []
        for _ in 0..<join.regionCount { regions.append(try reader.read()) }
        answer(self.join(join, regions, message))
      case .postMessage:
        let post = try reader.read(LinkPost.self)
        guard post.payloadByteCount <= UInt32(SynIC.maximumPayloadByteCount) else {
          return answer(.invalidParameter)
        }
        answer(accept(post, try reader.take(Int(post.payloadByteCount))))
      case .setSynIC:
        answer(setSynIC(try reader.read()))
      case .endOfMessage:
        let processor = try reader.read(LinkNumber.self).value
        guard processor < synICs.count else { return answer(.invalidParameter) }
        synICs[Int(processor)].endOfMessage()
        answer(.success)
      case .bindEvent:
        bindEvent(try reader.read(LinkNumber.self).value)
      case nil:
        throw .unknownType("link call", value: UInt64(header.call))
      }
    } catch {
      logger.warning("malformed call: \(error)")
      answer(.invalidParameter)
    }
  }

  /// Something that a guest may not do, and that no message of the control plane says.
  func refuse(_ what: String, _ error: some Error) {
    host.countRefusal()
    logger.warning("\(what) refused: \(error)")
  }

  private func answer(_ status: HypercallStatus, descriptors: [Int32] = []) {
    do throws(Errno) {
      try socket.send(LinkAnswer(status).wireBytes, descriptors: descriptors)
    } catch {
      leave("connection broke: \(error)")
    }
  }

  private func join(
    _ join: LinkJoin, _ regions: [LinkRegion], _ message: SocketMessage
  ) -> HypercallStatus {
    guard memory == nil, join.magic == LinkJoin.expectedMagic,
      join.version == LinkJoin.expectedVersion, 1...64 ~= join.processorCount,
      1...16 ~= join.regionCount, 1...16 ~= join.fileCount,
      message.descriptorCount == Int(join.fileCount) + Int(join.processorCount)
    else { return .invalidParameter }
    do throws(GuestMemoryError) {
      let memory = try GuestMemory(regions, fileCount: Int(join.fileCount), from: message)
      for processor in 0..<Int(join.processorCount) {
        guard let interrupt = message.takeDescriptor(Int(join.fileCount) + processor),
          EventDescriptor.adopt(interrupt.rawValue)
        else { return .invalidParameter }
        synICs.append(GuestSynIC(memory, interrupt: interrupt))
      }
      self.memory = memory
      isolation = join.isolation
      let monitor = GuestMonitor(memory)
      self.monitor = monitor
      _ = host.control.attach(MonitorPoller(monitor))
      // Only now are devices offered: the flags depend on who we are to the guest.
      // In their order, so that each guest finds the same disk first.
      for (index, device) in host.devices.sorted(by: { $0.key < $1.key }) { offer(device, index) }
      logger.info("guest joined", metadata: ["machine": "\(join.isolation)"])
      return .success
    } catch {
      refuse("guest", error)
      return .invalidParameter
    }
  }

  private func setSynIC(_ registers: LinkSynIC) -> HypercallStatus {
    guard registers.processor < synICs.count else { return .invalidParameter }
    do throws(GuestMemoryError) {
      // A paravisor's SynIC lies in encrypted memory, a host's can't.
      try synICs[Int(registers.processor)].setPages(
        message: registers.messagePage == LinkSynIC.noPage ? nil : registers.messagePage,
        eventFlags: registers.eventFlagsPage == LinkSynIC.noPage ? nil : registers.eventFlagsPage,
        in: isolation == .paravisor ? .encrypted : .hostVisible)
      return .success
    } catch {
      logger.warning("SynIC refused: \(error)")
      return .invalidParameter
    }
  }

  private func bindEvent(_ connectionID: UInt32) {
    do throws(Errno) {
      let box = try doorbell(connectionID)
      answer(.success, descriptors: [box.event.rawValue])
    } catch {
      refuse("doorbell", error)
      answer(.insufficientBuffers)
    }
  }

  func doorbell(_ connectionID: UInt32) throws(Errno) -> DoorbellBox {
    if let box = doorbells[connectionID] { return box }
    guard memory != nil, doorbells.count < Self.maximumDoorbells else {
      throw .tooManyOpenFiles
    }
    let box = try DoorbellBox()
    doorbells[connectionID] = box
    return box
  }

  // MARK: - The control plane

  private func accept(_ post: LinkPost, _ payload: RawSpan) -> HypercallStatus {
    guard memory != nil, post.connectionID == 1 || post.connectionID == 4 else {
      return .invalidConnectionID
    }
    guard post.messageType == SynIC.vmbusMessage else { return .invalidParameter }
    if let capture = host.configuration.capture {
      capture.message(unsafe payload.withUnsafeBytes { unsafe [UInt8]($0) }, fromGuest: true)
    }
    perform(server.receive(payload, origin: isolation == .paravisor ? .trusted : .untrusted))
    return .success
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
      case .disconnected:
        forgetGPADLs()
        logger.info("guest disconnected")
        setMonitorPages(nil)
      case .monitorPagesChanged(let pages): setMonitorPages(pages)
      case .open(let request): open(request)
      case .close(let channel): close(channel)
      case .createGPADL(let channel, let gpadl): checkGPADL(channel, gpadl)
      case .tearDownGPADL(_, let gpadl): tearDownGPADL(gpadl)
      case .modify(let channel, let processor):
        let isMoved = channels[channel]?.interrupt.move(to: processor) ?? false
        perform(server.modifyCompleted(channel, isMoved ? .success : .unsuccessful))
      case .released(let channel):
        deviceOf[channel] = nil
        primaries[channel] = nil
        forgetGPADLs(of: channel)
      case .refused(let error):
        host.countRefusal()
        logger.warning("refused: \(error)")
      }
    }
  }

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
  private func leave(_ reason: String) {
    guard !isGone else { return }
    isGone = true
    logger.info("guest \(reason)")
    host.control.unwatch(socket.rawValue)
    monitor?.end()
    perform(server.disconnect())
    for channel in channels.values { channel.state.close() }
    host.remove(self)
  }

  func shutDown() { leave("was cut off") }
}
