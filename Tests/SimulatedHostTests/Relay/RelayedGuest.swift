// SPDX-License-Identifier: Apache-2.0

import CLinux
import Logging
import SystemPackage

@testable import Platform
@testable import SimulatedHost
@testable import SimulatedLink
@testable import VMBus

/// A paravisor before a lying host, and what must hold for its guests whatever that one says.
final class LiedToParavisor {
  struct Broken: Error { let reason: String }

  let host: LyingHost
  let paravisor: SimulatedHost

  init(floods: Bool = false) throws {
    host = try LyingHost(floods: floods)
    var configuration = SimulatedHost.Configuration()
    configuration.hostPath = host.path
    configuration.hostPatience = .milliseconds(20)
    configuration.logger.logLevel = .critical
    paravisor = try SimulatedHost(
      path: "/tmp/vmbus-test-lied-to-\(UInt32.random(in: 0 ... .max)).sock", configuration)
    paravisor.add(EchoVSP(flags: .confidential))
  }

  func stop() {
    paravisor.stop()
    host.stop()
  }

  /// A guest from its coming to its going, before a host that is made of these bytes.
  ///
  /// - Returns: channels of the host that it was offered.
  /// - Throws: `Broken` for what may never be.
  @discardableResult
  func play(_ bytes: [UInt8]) throws -> Int {
    // What the guest does in between comes first, so that it does not depend on what is said.
    let count = min(Int(bytes.first ?? 0) % 32, max(bytes.count - 1, 0))
    host.play(Array(bytes.dropFirst(1 + count)))
    let guest = try RelayedGuest(paravisor)
    try guest.connect()
    for byte in bytes.dropFirst().prefix(count) { try guest.act(byte) }
    try guest.finish()
    return guest.relayed
  }
}

/// A guest of a paravisor, which drives its control plane itself.
final class RelayedGuest {
  typealias Broken = LiedToParavisor.Broken

  private let link: RawGuest
  private let files: [MemoryBox]
  private let slot: SynICPages
  private let interrupts: [EventBox]
  private var control: ControlClient
  private var isToldAll = false
  private var opened: [ChannelID: ControlStatus] = [:]
  private var nextPage = 2
  private(set) var relayed = 0
  /// The paravisor's own relids.
  private static let own = ChannelID(1024)
  private static let firstPage: GPN = 0x100
  private static let pageCount = 512

  private final class MemoryBox {
    let file: MemoryFile
    let memory: MappedMemory

    init() throws(Errno) {
      file = try MemoryFile(name: "relayed guest", byteCount: RelayedGuest.pageCount * 4096)
      memory = try file.map()
    }
  }

  init(_ paravisor: SimulatedHost) throws {
    link = try RawGuest(paravisor)
    // Host-visible, then encrypted.
    files = [try MemoryBox(), try MemoryBox()]
    interrupts = [try EventBox(), try EventBox()]
    // Safe: this object keeps the pages.
    let start = unsafe files[1].memory.start
    slot = unsafe SynICPages(message: start, eventFlags: start + 4096)
    var configuration = ClientConfiguration()
    configuration.isIsolated = true
    control = ControlClient(configuration)
    var join = LinkJoin()
    join.isolation = .paravisor
    (join.processorCount, join.regionCount, join.fileCount) = (1, 2, 2)
    join.hasHostInterrupts = 1
    var region = LinkRegion()
    (region.firstPage, region.pageCount) = (Self.firstPage, UInt64(Self.pageCount))
    var other = region
    (other.isEncrypted, other.file) = (1, 1)
    let descriptors = files.map { $0.file.owned.rawValue } + interrupts.map { $0.event.rawValue }
    let status = try link.call(
      .join, join.wireBytes + region.wireBytes + other.wireBytes, descriptors: descriptors)
    guard status == .success else { throw Broken(reason: "does not join") }
    var registers = LinkSynIC()
    (registers.messagePage, registers.eventFlagsPage) = (Self.firstPage, Self.firstPage + 1)
    guard try link.call(.setSynIC, registers.wireBytes) == .success else {
      throw Broken(reason: "has no SynIC")
    }
  }

  func connect() throws {
    try perform(control.connect(confidential: .required))
    try wait("is told the offers") { $0.isToldAll }
  }

  /// Asks something of a channel of the host.
  func act(_ byte: UInt8) throws {
    try takeMessages()
    let ids = control.channels.keys.filter { $0 < Self.own }.sorted()
    guard !ids.isEmpty else { return }
    let id = ids[Int(byte >> 4) % ids.count]
    let known = control.gpadls.keys.sorted().first ?? GPADLID(rawValue: 0)
    let actions: [ClientAction]
    do throws(ControlError) {
      actions =
        switch byte & 7 {
        case 0, 1: try describe(id)
        case 2: try control.tearDownGPADL(known)
        case 3, 4: try control.open(id, OpenParameters(ring: known, downstreamPageOffset: 2))
        case 5: try control.close(id)
        case 6: try control.modify(id, targetVP: UInt32(byte >> 7))
        default: try control.release(id)
        }
    } catch {
      // The client does not let it be asked now.
      return
    }
    try perform(actions)
  }

  private func describe(_ id: ChannelID) throws(ControlError) -> [ClientAction] {
    let page = Self.firstPage + GPN(nextPage)
    nextPage = nextPage + 4 > Self.pageCount - 8 ? 2 : nextPage + 4
    return try control.createGPADL(
      id, ranges: [GPADLRange(byteCount: 16384, byteOffset: 0, gpns: Array(page..<page + 4))]
    ).1
  }

  /// The paravisor's own channel is there, and opens; then the guest goes.
  func finish() throws {
    try takeMessages()
    guard control.channels[Self.own]?.isRescinded == false else {
      throw Broken(reason: "the paravisor's own channel is not there")
    }
    let page = Self.firstPage + GPN(Self.pageCount - 4)
    let (ring, actions) = try control.createGPADL(
      Self.own, ranges: [GPADLRange(byteCount: 16384, byteOffset: 0, gpns: Array(page..<page + 4))])
    try perform(actions)
    try wait("has a GPADL") { $0.control.gpadls[ring]?.phase == .created }
    try perform(control.open(Self.own, OpenParameters(ring: ring, downstreamPageOffset: 2)))
    try wait("is opened") { $0.opened[Self.own] != nil }
    guard opened[Self.own] == .success else { throw Broken(reason: "its own channel is refused") }
  }

  // MARK: - Messages

  private func wait(_ what: String, _ condition: (RelayedGuest) -> Bool) throws {
    // Other tests may have the processors for seconds.
    let end = ContinuousClock.now + .seconds(60)
    while ContinuousClock.now < end {
      try takeMessages()
      if condition(self) { return }
      vmbus_sleep_milliseconds(0)
    }
    throw Broken(reason: "never: \(what)")
  }

  private func takeMessages() throws {
    while let (bytes, moreWait) = slot.takeMessage() {
      if moreWait { _ = try link.call(.endOfMessage, LinkNumber(0).wireBytes) }
      try perform(control.receive(unsafe bytes.span.bytes, origin: .trusted))
    }
  }

  private func perform(_ actions: [ClientAction]) throws {
    for action in actions {
      switch action {
      case .post(let message, let connection):
        var post = LinkPost()
        post.connectionID = connection
        post.messageType = SynIC.vmbusMessage
        post.payloadByteCount = UInt32(message.array.count)
        _ = try link.call(.postMessage, post.wireBytes + message.array)
      case .offered(let offer):
        if offer.channelID < Self.own {
          relayed += 1
          guard offer.flags.confidentiality == .hostVisible else {
            throw Broken(reason: "an offer of the host with confidential flags")
          }
        }
      case .allOffersDelivered: isToldAll = true
      case .opened(let id, let status): opened[id] = status
      case .connectFailed(let failure): throw Broken(reason: "no connection: \(failure)")
      // What the paravisor says is lawful, whatever it is told.
      case .refused(let error): throw Broken(reason: "refused: \(error)")
      default: break
      }
    }
  }
}
