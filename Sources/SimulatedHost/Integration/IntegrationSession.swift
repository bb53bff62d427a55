// SPDX-License-Identifier: Apache-2.0

public import IntegrationProtocol
public import VMBus

/// The host's end of one integration component with one guest, as a value without I/O or clock.
struct IntegrationSession: Sendable {
  private let component: IntegrationComponent
  private let versions: [IntegrationVersion]
  private(set) var record: IntegrationRecord
  private var isDue = true
  /// When `isDue` is set again, in nanoseconds of the monotonic clock.
  private(set) var nextDeadline = UInt64.max
  private var wantsSync = false
  private var wantedShutdown: IntegrationShutdown?
  private var nextID: UInt8 = 0
  /// What has no answer yet, in the order in which it was asked.
  private var outstanding: [Question] = []

  private struct Question {
    let id: UInt8
    let type: IntegrationMessageType
    let sequence: UInt64
  }

  /// The longest packet that is sent.
  static let maximumPacket =
    PipeHeader.byteCount + IntegrationHeader.byteCount + ShutdownMessage.byteCount
  /// Questions without an answer that are remembered.
  static let maximumOutstanding = 64
  /// How long a packet waits that found no room, in nanoseconds.
  static let retryPeriod: UInt64 = 1_000_000_000

  init(_ component: IntegrationComponent, versions: [IntegrationVersion]) {
    self.component = component
    self.versions = versions
    record = IntegrationRecord()
  }

  /// The guest is to set its clock.
  mutating func synchronize() {
    wantsSync = true
    if record.stage == .ready { isDue = true }
  }

  mutating func shutDown(_ wanted: IntegrationShutdown) {
    wantedShutdown = wanted
    if record.stage == .ready { isDue = true }
  }

  mutating func expire(now: UInt64) {
    guard nextDeadline <= now else { return }
    nextDeadline = .max
    isDue = true
  }

  /// Whether `next` has a packet to send.
  var hasPacket: Bool { isDue && record.stage != .failed && record.stage != .negotiating }

  /// There is no room for a packet: it is for later.
  mutating func postpone(now: UInt64) {
    isDue = false
    nextDeadline = now &+ Self.retryPeriod
    if component == .heartbeat, record.stage == .ready { record.missed += 1 }
  }

  /// The next packet, if there is something to say.
  ///
  /// - Parameters:
  ///   - now: nanoseconds of the monotonic clock.
  ///   - wallClock: nanoseconds since 1970.
  mutating func next(now: UInt64, wallClock: UInt64) -> [UInt8]? {
    guard hasPacket else { return nil }
    isDue = false
    if record.stage == .begin {
      record.stage = .negotiating
      return ask(
        .negotiate,
        IntegrationNegotiation.request(
          framework: IntegrationComponent.frameworkVersions, messages: versions))
    }
    if component.period > 0 { nextDeadline = now &+ component.period }
    switch component {
    case .heartbeat: return heartbeat()
    case .timeSync: return time(wallClock)
    case .shutdown: return shutdown()
    }
  }

  private mutating func heartbeat() -> [UInt8] {
    // The last one has had two seconds.
    if !outstanding.isEmpty { record.missed += 1 }
    var message = HeartbeatMessage()
    message.sequence = record.sent
    return ask(.heartbeat, message.wireBytes, sequence: message.sequence)
  }

  private mutating func time(_ wallClock: UInt64) -> [UInt8] {
    var message = TimeSyncMessage()
    message.hostTime = wallClock / 100 &+ TimeSyncMessage.unixEpoch
    message.flags = wantsSync ? .sync : .sample
    wantsSync = false
    return ask(.timeSync, message.wireBytes)
  }

  private mutating func shutdown() -> [UInt8]? {
    guard let wanted = wantedShutdown else { return nil }
    wantedShutdown = nil
    guard let version = record.message, version >= wanted.version else {
      record.shutdown = .versionTooOld(wanted)
      return nil
    }
    record.shutdown = .asked(wanted)
    var message = ShutdownMessage()
    message.reason = ShutdownMessage.planned
    message.flags = wanted.flags
    return ask(.shutdown, message.wireBytes)
  }

  private mutating func ask(
    _ type: IntegrationMessageType, _ body: [UInt8], sequence: UInt64 = 0
  ) -> [UInt8] {
    var header = IntegrationHeader()
    header.type = type
    if let framework = record.framework, let message = record.message {
      (header.frameworkVersion, header.messageVersion) = (framework, message)
    }
    header.transactionID = nextID
    header.flags = [.transaction, .request]
    outstanding.append(Question(id: nextID, type: type, sequence: sequence))
    if outstanding.count > Self.maximumOutstanding { outstanding.removeFirst() }
    nextID &+= 1
    record.sent += 1
    return header.packet(body)
  }

  /// Takes a packet of the guest.
  mutating func receive(_ payload: RawSpan) {
    do throws(WireError) {
      let message = try IntegrationHeader.message(in: payload)
      let header = message.header
      guard header.flags.isSuperset(of: [.transaction, .response]),
        let index = outstanding.firstIndex(where: { $0.id == header.transactionID }),
        outstanding[index].type == header.type
      else { return violate(.unexpected(header.type, id: header.transactionID)) }
      let question = outstanding[index]
      // A guest answers in order: those before it get no answer any more.
      outstanding.removeSubrange(...index)
      record.answered += 1
      switch header.type {
      case .negotiate: try agree(message.body)
      case .heartbeat: try takeHeartbeat(message.body, question, header.status)
      case .shutdown: takeShutdown(header.status)
      default: if header.status != .success { violate(.status(header.status)) }
      }
    } catch {
      violate(.malformed(error))
    }
  }

  private mutating func agree(_ body: RawSpan) throws(WireError) {
    guard let chosen = try IntegrationNegotiation.chosen(in: body) else {
      record.stage = .failed
      return violate(.noCommonVersion)
    }
    guard IntegrationComponent.frameworkVersions.contains(chosen.framework),
      versions.contains(chosen.message)
    else {
      record.stage = .failed
      return violate(.versionsNotOffered(chosen.framework, chosen.message))
    }
    (record.framework, record.message) = (chosen.framework, chosen.message)
    record.stage = .ready
    isDue = component.period > 0 || wantedShutdown != nil
    // The first time that it is told, the guest sets its clock.
    wantsSync = component == .timeSync
  }

  private mutating func takeHeartbeat(
    _ body: RawSpan, _ question: Question, _ status: IntegrationStatus
  ) throws(WireError) {
    guard status == .success else { return violate(.status(status)) }
    let message = try HeartbeatMessage(parsing: body)
    guard message.sequence == question.sequence &+ 1 else {
      return violate(.sequence(sent: question.sequence, answered: message.sequence))
    }
    record.beats += 1
    record.guestState = message.state
  }

  private mutating func takeShutdown(_ status: IntegrationStatus) {
    guard case .asked(let wanted) = record.shutdown else { return }
    record.shutdown = status == .success ? .accepted(wanted) : .refused(wanted, status)
  }

  private mutating func violate(_ violation: IntegrationViolation) {
    record.violations.append(violation)
    // A guest that goes on and on is not remembered for ever.
    if record.violations.count > 64 { record.violations.removeFirst() }
  }
}

/// How far a component and its guest have come, for people and tests.
public struct IntegrationRecord: Sendable, Equatable {
  public enum Stage: String, Sendable {
    case begin
    case negotiating
    case ready
    /// They have no version in common, or the guest has named one that was not offered.
    case failed
  }

  /// What became of the last request to end.
  public enum Shutdown: Sendable, Equatable {
    case none
    case asked(IntegrationShutdown)
    case accepted(IntegrationShutdown)
    case refused(IntegrationShutdown, IntegrationStatus)
    /// The version that was agreed on does not know it: the guest was not asked.
    case versionTooOld(IntegrationShutdown)
  }

  public var stage = Stage.begin
  /// The versions that were agreed on.
  public var framework: IntegrationVersion?
  public var message: IntegrationVersion?
  public var sent: UInt64 = 0
  public var answered: UInt64 = 0
  /// Heartbeats with the right answer; and periods at whose end one had none.
  public var beats: UInt64 = 0
  public var missed: UInt64 = 0
  public var guestState = HeartbeatMessage.State.unknown
  public var shutdown = Shutdown.none
  /// The last 64 of them.
  public var violations: [IntegrationViolation] = []

  public init() {}
}

/// How a guest broke the protocol.
public enum IntegrationViolation: Sendable, Equatable {
  case malformed(WireError)
  /// No answer, or to nothing that was asked.
  case unexpected(IntegrationMessageType, id: UInt8)
  case noCommonVersion
  case versionsNotOffered(IntegrationVersion, IntegrationVersion)
  case sequence(sent: UInt64, answered: UInt64)
  case status(IntegrationStatus)
}
