// SPDX-License-Identifier: Apache-2.0

public import BalloonProtocol
public import Logging
public import Platform
import Synchronization
public import VMBus

/// The host's dynamic memory: it takes guests' reports, asks for pages and gives them back.
///
/// The pages have no memory behind them here: a guest process names the pages of the machine that
/// it runs on. They are counted and checked, no more.
public final class BalloonVSP: VSP {
  public let offer: OfferChannel
  private let pages: UInt64
  private let newestVersion: BalloonVersion
  private let wantsReports: Bool
  private let logger: Logger
  private let state = Lock(State())

  private struct State {
    var guests: [Int: WorkerHandle<BalloonVSPServer>] = [:]
    var opened = 0
    var last = BalloonRecord()
  }

  /// - Parameters:
  ///   - instance: the device's GUID, which guests see and keep.
  ///   - pages: pages of 4096 bytes that are asked for from each guest when it is ready.
  ///   - wantsReports: false tells guests to send no status reports.
  public init(
    instance: GUID, pages: UInt64 = 0, newestVersion: BalloonVersion = .v2_0,
    wantsReports: Bool = true, logger: Logger = Logger(label: "balloon")
  ) {
    var offer = OfferChannel()
    offer.interfaceID = DeviceClass.balloon.guid
    offer.instanceID = instance
    offer.flags = .enumerateDeviceInterface
    self.offer = offer
    self.pages = pages
    self.newestVersion = newestVersion
    self.wantsReports = wantsReports
    self.logger = logger
  }

  /// What the guest that did something last has done.
  public var record: BalloonRecord { state.withLock { $0.last } }

  /// Asks each guest for more pages.
  public func balloon(_ pages: UInt64) {
    for guest in state.withLock({ $0.guests.values }) {
      guest.perform { $0.session.balloon(pages) }
    }
  }

  /// Gives pages back to each guest; more than it has given means all.
  public func unballoon(_ pages: UInt64) {
    for guest in state.withLock({ $0.guests.values }) {
      guest.perform { $0.session.unballoon(pages) }
    }
  }

  public func open(_ channel: consuming sending HostChannel, on worker: Worker) {
    let session = BalloonSession(
      balloon: pages, newestVersion: newestVersion, wantsReports: wantsReports)
    let number = state.withLock { state in
      state.opened += 1
      return state.opened
    }
    let handle = worker.attach(BalloonVSPServer(channel: channel, vsp: self, session: session)) {
      self.state.withLock { $0.guests[number] = nil }
    }
    state.withLock { $0.guests[number] = handle }
  }

  fileprivate func tell(_ record: BalloonRecord, _ before: BalloonRecord) {
    state.withLock { $0.last = record }
    if record.reports != before.reports, let report = record.lastReport {
      logger.debug(
        "balloon: \(report.available) pages available, \(report.committed) committed")
    }
    if record.balloonedPages != before.balloonedPages {
      logger.info("balloon: the host has \(record.balloonedPages) pages")
    }
    if record.violations != before.violations, let last = record.violations.last {
      logger.warning("balloon: the guest broke the protocol: \(last)")
    }
  }
}

/// One guest's channel to the balloon.
struct BalloonVSPServer: Pollable, ~Copyable {
  private var channel: HostChannel
  private let vsp: BalloonVSP
  var session: BalloonSession
  private var waitsForRoom = false

  init(channel: consuming HostChannel, vsp: BalloonVSP, session: BalloonSession) {
    self.channel = channel
    self.vsp = vsp
    self.session = session
  }

  mutating func poll(budget: Int) -> Int? {
    if channel.isClosed { return nil }
    var work = 0
    let before = session.record
    do {
      while work < budget {
        // Room for an answer first, whatever it is.
        waitsForRoom = try !channel.hasRoom(forPayload: BalloonSession.maximumMessage)
        if waitsForRoom { break }
        if let message = session.next() {
          try channel.send(unsafe message.span.bytes)
        } else if let packet = try channel.receive() {
          guard let answer = session.receive(channel.payload(of: packet)) else {
            work += 1
            continue
          }
          try channel.send(unsafe answer.span.bytes)
        } else {
          break
        }
        work += 1
      }
    } catch {
      // A corrupt ring: the device stops until the channel is opened again.
      return nil
    }
    channel.flush()
    if session.record != before { vsp.tell(session.record, before) }
    return work == 0 && channel.isClosed ? nil : work
  }

  mutating func arm() -> Bool {
    channel.arm(untilRoomFor: waitsForRoom ? BalloonSession.maximumMessage : nil)
  }

  mutating func disarm() { channel.disarm() }
}
