// SPDX-License-Identifier: Apache-2.0

import NetworkProtocol
import VSC

/// What the host says beside frames, deadlines, and the end.
extension NetworkQueue {
  // MARK: - NVSP

  /// A packet of the host that is neither frames nor a completion.
  @usableFromInline
  @inline(never)
  mutating func inBand(_ packet: Packet) {
    // Windows demands an answer to some of these.
    if packet.completionRequested, owed.count < 64 { owed.append(packet.transactionID) }
    do throws(WireError) {
      guard packet.type == .inBand, number == 0 else {
        throw .unknownType("packet", value: UInt64(packet.type.rawValue))
      }
      let type = try NVSPHeader(parsing: channel.payload(of: packet)).type
      switch type {
      case .sendVFAssociation:
        associate(try NVSPVFAssociation(message: channel.payload(of: packet)))
      case .sendIndirectionTable:
        let version = life.shared.information.version
        let table = try SendIndirectionTable(
          message: channel.payload(of: packet), version: version)
        try obey(table)
      case .uplinkConnectState: break
      default: throw .unknownType("NVSP message", value: UInt64(type.rawValue))
      }
    } catch {
      counts.malformed &+= 1
      counts.lastFault = error
    }
    payOwed()
  }

  private mutating func payOwed() {
    while let id = owed.first {
      do throws(ChannelError) {
        try channel.sendCompletion(RawSpan(), transactionID: id)
        owed.removeFirst()
      } catch {
        return note(refusal(error))
      }
    }
  }

  private func associate(_ message: NVSPVFAssociation) {
    // An untrusted host's function could write to nothing of this machine's memory that is of use.
    guard !isIsolated else { return }
    let serial = message.isAllocated != 0 ? message.serialNumber : nil
    life.shared.update { information in
      information.virtualFunction = serial
      // Packets come by the synthetic path when the function is gone.
      if serial == nil { information.dataPath = .synthetic }
    }
    life.shared.tell(serial.map { .virtualFunctionOffered(serial: $0) } ?? .virtualFunctionRevoked)
  }

  private mutating func obey(_ table: SendIndirectionTable) throws(WireError) {
    for index in table.entries.indices where table.entries[index] >= UInt32(grantedCount) {
      throw .invalid(
        "SendIndirectionTable", field: "entry", value: UInt64(table.entries[index]))
    }
    // Hosts send it when the last subchannel is open, which this queue may not have heard yet.
    if openCount == 0 {
      earlyTable = table
    } else if use(table) {
      life.shared.tell(.sendTable(life.shared.information.sendTable))
    }
  }

  /// So many queues there are.
  mutating func opened(_ count: Int) {
    openCount = max(count, 1)
    life.shared.update { $0.queueCount = max(count, 1) }
    if let earlyTable, use(earlyTable) { return }
    _ = use(SendIndirectionTable(queueCount: count))
  }

  /// Returns false for a table with a queue that could not be opened: then the old one stays.
  private func use(_ table: SendIndirectionTable) -> Bool {
    let queues = table.entries.indices.map { Int(table.entries[$0]) }
    guard queues.allSatisfy({ $0 < openCount }) else { return false }
    sendTable.set(table)
    life.shared.update { $0.sendTable = queues }
    return true
  }

  /// The completion of a message that carries no frames.
  @usableFromInline
  @inline(never)
  mutating func answered(_ kind: SendRequest<External>.Kind, _ packet: Packet) {
    switch kind {
    case .startup:
      guard var negotiation else { return }
      let actions: [NetworkNegotiation.Action]
      do throws(NetworkError) {
        actions = try negotiation.completed(channel.payload(of: packet))
      } catch {
        return fail(error)
      }
      self.negotiation = negotiation
      perform(actions)
    case .control:
      // The answer itself comes as a message of the host.
      if !Self.isSuccess(channel.payload(of: packet)), let step = negotiation?.step {
        fail(.refused(step, .invalidRNDISPacket))
      }
    case .dataPath:
      guard let (path, promise) = dataPathSwitch else { return }
      dataPathSwitch = nil
      life.shared.update { $0.dataPath = path }
      life.shared.tell(.dataPath(isVirtualFunction: path == .virtualFunction))
      promise.keep(nil)
    case .section, .frame: break
    }
  }

  // MARK: - RNDIS

  /// Bytes of a control message that are looked at.
  private static var controlByteCount: Int { 4096 }

  /// A RNDIS message of the host that is no frame, in the receive buffer.
  @usableFromInline
  @inline(never)
  mutating func control(_ offset: Int, _ count: Int) throws(WireError) {
    guard number == 0 else {
      throw .invalid("RNDIS message", field: "queue", value: UInt64(number))
    }
    let count = min(count, Self.controlByteCount)
    // Safe: the range was found to lie in the buffer.
    let copy = unsafe [UInt8](
      UnsafeRawBufferPointer(start: core.pointee.base + offset, count: count))
    let message = try unsafe RNDISHeader.message(in: copy.span.bytes)
    let type = try RNDISHeader(parsing: message).type
    switch type {
    case .indicateStatus: try indicated(message)
    case .keepalive:
      let id = try RNDISKeepalive(message: message).requestID
      do throws(NetworkError) {
        try sendControl(RNDISKeepaliveComplete(requestID: id).messageBytes())
      } catch {
        note(error)
      }
    case .initializeComplete, .queryComplete, .setComplete: try answered(type, message)
    case .resetComplete, .keepaliveComplete: break
    default: throw .unknownType("RNDIS message", value: UInt64(type.rawValue))
    }
  }

  private mutating func answered(
    _ type: RNDISMessageType, _ message: RawSpan
  ) throws(WireError) {
    if type == .setComplete {
      let answer = try RNDISSetComplete(message: message)
      if let setting = settings.removeValue(forKey: answer.requestID) {
        setting.promise.keep(
          answer.status == .success ? nil : .objectRefused(OID(rawValue: 0), answer.status))
        return
      }
    }
    let stale = WireError.invalid("RNDIS answer", field: "requestID", value: 0)
    guard var negotiation else { throw stale }
    let actions: [NetworkNegotiation.Action]?
    do throws(NetworkError) {
      actions = try negotiation.answered(message)
    } catch {
      return fail(error)
    }
    self.negotiation = negotiation
    guard let actions else { throw stale }
    perform(actions)
  }

  private mutating func indicated(_ message: RawSpan) throws(WireError) {
    let body = try RNDISIndicateStatus(message: message)
    switch body.status {
    case .mediaConnect: link(isUp: true)
    case .mediaDisconnect: link(isUp: false)
    case .networkChange: life.shared.tell(.networkChanged)
    case .taskOffloadCurrentConfiguration:
      try offloadsChanged(
        RNDISIndicateStatus.informationBuffer(
          of: message, offset: body.bufferOffset, count: body.bufferByteCount))
    case .linkSpeedChange:
      let buffer = try RNDISIndicateStatus.informationBuffer(
        of: message, offset: body.bufferOffset, count: body.bufferByteCount)
      var reader = WireReader(buffer, name: "LINK_SPEED_CHANGE")
      let speed = UInt64(try reader.read(UInt32.self)) * 100
      life.shared.update { $0.linkSpeed = speed }
      life.shared.tell(.linkSpeed(speed))
    default: break
    }
  }

  /// The host does something no more, or again: from now on that counts for all queues.
  private mutating func offloadsChanged(_ buffer: RawSpan) throws(WireError) {
    let host = try NetworkOffloads(buffer)
    if let agreed = negotiation?.agreement.offloads {
      // What the start-up is about to ask for, or has asked for just now.
      negotiation?.agreement.offloads = host.limited(to: agreed)
      return
    }
    let current = host.limited(to: agreedOffloads)
    guard current != life.shared.information.offloads else { return }
    life.shared.update { $0.offloads = current }
    tellQueues(current)
    life.shared.tell(.offloadsChanged)
  }

  /// What the host does counts for this queue at once, and for the others when their workers hear of it.
  mutating func tellQueues(_ offloads: NetworkOffloads) {
    use(offloads)
    for other in life.shared.mailboxes where other !== mailbox { other.put(.offloads(offloads)) }
  }

  private func link(isUp: Bool) {
    let changed = life.shared.information.isLinkUp != isUp
    life.shared.update { $0.isLinkUp = isUp }
    if changed { life.shared.tell(isUp ? .linkUp : .linkDown) }
  }

  // MARK: - Deadlines

  /// How often a slow start-up is told.
  private static var progressInterval: UInt64 { 1_000_000_000 }

  /// When `expire` is to be called; nanoseconds of the monotonic clock.
  public var nextDeadline: UInt64 {
    if phase == .failed { return .max }
    var next = requests.nextDeadline
    if let negotiation, negotiation.isWaiting {
      next = min(next, stepReported &+ Self.progressInterval, stepStart &+ timeout)
    }
    for setting in settings.values { next = min(next, setting.deadline) }
    return next
  }

  /// A deadline is over: the host is slow, which is told, or does not answer at all.
  public mutating func expire(now: UInt64) {
    guard phase != .failed else { return }
    if let negotiation, negotiation.isWaiting {
      if now >= stepStart &+ timeout { return fail(.timedOut(negotiation.step)) }
      if now >= stepReported &+ Self.progressInterval {
        stepReported = now
        life.shared.tell(
          .starting(
            step: negotiation.step, waitedSeconds: Int((now &- stepStart) / 1_000_000_000)))
      }
    }
    for (id, setting) in settings where setting.deadline <= now {
      settings[id] = nil
      setting.promise.keep(.timedOut("SET"))
    }
    var isLate = false
    requests.expire(now: now, limit: 1) { _ in isLate = true }
    if isLate { fail(.timedOut("completion of a frame")) }
  }

  // MARK: - The end

  /// The queue is over, and with it the device. Frames that the host has not completed keep their memory
  /// until the channel is closed (law 3).
  @usableFromInline
  @inline(never)
  mutating func fail(_ error: NetworkError) {
    guard phase != .failed else { return }
    phase = .failed
    failure = error
    negotiation = nil
    rangesLeft = 0
    packet = nil
    dropCoalescing()
    for setting in settings.values { setting.promise.keep(error) }
    settings = [:]
    dataPathSwitch?.promise.keep(error)
    dataPathSwitch = nil
    life.shared.end(error)
    if channel.ended == nil { channel.end(.closed) }
  }
}
