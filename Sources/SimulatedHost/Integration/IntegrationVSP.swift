// SPDX-License-Identifier: Apache-2.0

import CLinux
public import IntegrationProtocol
public import Logging
public import Platform
import Synchronization
public import VMBus

/// One of the host's integration components: it asks guests for a heartbeat, tells them the time, or
/// asks them to end.
public final class IntegrationVSP: VSP {
  public let component: IntegrationComponent
  public let offer: OfferChannel
  private let versions: [IntegrationVersion]
  private let logger: Logger
  private let state = Lock(State())

  private struct State {
    /// By the number of the opening: a guest may open again before the end of the last channel is
    /// told here.
    var channels: [Int: WorkerHandle<IntegrationVSPServer>] = [:]
    var records: [Int: (guest: Int, record: IntegrationRecord)] = [:]
    var opened = 0
  }

  /// - Parameter versions: what is offered to guests, the oldest first; all of them by default.
  public init(
    _ component: IntegrationComponent, versions: [IntegrationVersion]? = nil,
    logger: Logger = Logger(label: "integration")
  ) {
    self.component = component
    self.versions = versions ?? component.versions
    self.logger = logger
    var offer = OfferChannel()
    offer.interfaceID = component.deviceClass.guid
    offer.instanceID = component.instance
    offer.flags = [.enumerateDeviceInterface, .namedPipeMode]
    // A pipe of messages.
    offer.userDefined = UserData([4])
    self.offer = offer
  }

  /// What each guest that has the component open has done, by the guest's number.
  public var records: [Int: IntegrationRecord] {
    state.withLock { state in
      Dictionary(state.records.values.map { ($0.guest, $0.record) }) { _, last in last }
    }
  }

  /// Tells each guest to set its clock.
  public func synchronize() { tellAll { $0.session.synchronize() } }

  /// Asks each guest to end.
  public func shutDown(_ wanted: IntegrationShutdown = .powerOff) {
    tellAll { $0.session.shutDown(wanted) }
  }

  private func tellAll(_ body: @escaping @Sendable (inout IntegrationVSPServer) -> Void) {
    for channel in state.withLock({ $0.channels.values }) { channel.perform(body) }
  }

  public func open(_ channel: consuming sending HostChannel, on worker: Worker) {
    let guest = channel.guest
    let session = IntegrationSession(component, versions: versions)
    let number = state.withLock { state in
      state.opened += 1
      state.records[state.opened] = (guest, session.record)
      return state.opened
    }
    let server = IntegrationVSPServer(
      channel: channel, vsp: self, session: session, number: number, guest: guest)
    let handle = worker.attach(server) {
      self.state.withLock { state in
        state.channels[number] = nil
        state.records[number] = nil
      }
    }
    state.withLock { state in
      if state.records[number] != nil { state.channels[number] = handle }
    }
  }

  fileprivate func tell(
    _ record: IntegrationRecord, _ before: IntegrationRecord, _ number: Int, of guest: Int
  ) {
    state.withLock { $0.records[number] = (guest, record) }
    let name = component.rawValue
    if record.stage == .ready, before.stage != .ready, let framework = record.framework,
      let message = record.message
    {
      logger.info("\(name): guest \(guest) speaks \(message), framework \(framework)")
    }
    if record.beats > 0, before.beats == 0 { logger.info("\(name): guest \(guest) is alive") }
    if record.missed != before.missed, before.missed == 0 {
      logger.notice("\(name): guest \(guest) does not answer")
    }
    if record.shutdown != before.shutdown {
      logger.info("\(name): guest \(guest): \(record.shutdown)")
    }
    if record.violations != before.violations, let last = record.violations.last {
      logger.warning("\(name): guest \(guest) broke the protocol: \(last)")
    }
  }
}

extension IntegrationRecord.Shutdown: CustomStringConvertible {
  public var description: String {
    switch self {
    case .none: "none"
    case .asked(let wanted): "\(wanted.rawValue) asked for"
    case .accepted(let wanted): "\(wanted.rawValue) accepted"
    case .refused(let wanted, let status): "\(wanted.rawValue) refused: \(status)"
    case .versionTooOld(let wanted): "\(wanted.rawValue) is not known to the version agreed on"
    }
  }
}

/// One guest's channel to a component.
struct IntegrationVSPServer: Pollable, ~Copyable {
  private var channel: HostChannel
  private let vsp: IntegrationVSP
  var session: IntegrationSession
  /// Of the opening, and of who opened.
  private let number: Int
  private let guest: Int

  init(
    channel: consuming HostChannel, vsp: IntegrationVSP, session: IntegrationSession,
    number: Int, guest: Int
  ) {
    self.channel = channel
    self.vsp = vsp
    self.session = session
    self.number = number
    self.guest = guest
  }

  mutating func poll(budget: Int) -> Int? {
    if channel.isClosed { return nil }
    var work = 0
    let before = session.record
    do {
      // Answers first: they are not answered again, and need no room.
      while work < budget, let packet = try channel.receive() {
        session.receive(channel.payload(of: packet))
        work += 1
      }
      while work < budget, session.hasPacket {
        work += 1
        if try !channel.hasRoom(forPayload: IntegrationSession.maximumPacket) {
          session.postpone(now: MonotonicClock.now())
        } else if let packet = session.next(
          now: MonotonicClock.now(), wallClock: vmbus_wall_clock())
        {
          try channel.send(unsafe packet.span.bytes)
        }
      }
    } catch {
      // A corrupt ring: the device stops until the channel is opened again.
      return nil
    }
    channel.flush()
    if session.record != before { vsp.tell(session.record, before, number, of: guest) }
    return work == 0 && channel.isClosed ? nil : work
  }

  mutating func arm() -> Bool { channel.arm() }
  mutating func disarm() { channel.disarm() }

  var nextDeadline: UInt64 { min(session.nextDeadline, channel.nextDeadline) }

  mutating func expire(now: UInt64) { session.expire(now: now) }
}
