// SPDX-License-Identifier: Apache-2.0

import NetworkProtocol
import Platform
import VSC

/// What happens rarely: the start-up, and what the host and other threads ask for.
extension NetworkQueue {
  // MARK: - Other threads

  /// Begins the start-up, and does what was asked for.
  @usableFromInline
  @inline(never)
  mutating func attend() {
    if phase == .new {
      phase = .starting
      if var negotiation {
        let actions = negotiation.start()
        self.negotiation = negotiation
        perform(actions)
      }
    }
    for request in mailbox.take() {
      switch request {
      case .statistics(let promise): promise.keep(statistics)
      case .opened(let queueCount):
        opened(queueCount)
        guard var negotiation else { continue }
        let actions = negotiation.opened(queueCount: queueCount)
        self.negotiation = negotiation
        perform(actions)
      case .set(let oid, let bytes, let promise): set(oid, bytes, promise)
      case .switchDataPath(let path, let promise): switchDataPath(path, promise)
      case .offloads(let offloads): use(offloads)
      case .end: fail(life.shared.endReason ?? .channel(.ended(.closed)))
      }
    }
  }

  private mutating func set(_ oid: OID, _ bytes: [UInt8], _ promise: Promise<NetworkError?>) {
    guard phase == .ready, number == 0 else {
      promise.keep(failure ?? .notReady)
      return
    }
    let id = nextSetting
    // Far from the start-up's own numbers, also after a wrap.
    nextSetting = nextSetting == .max ? 0x1000_0000 : nextSetting + 1
    do throws(NetworkError) {
      try sendControl(RNDISSet.bytes(id, oid, bytes))
      settings[id] = Setting(promise: promise, deadline: MonotonicClock.now() &+ timeout)
    } catch {
      promise.keep(error)
    }
  }

  private mutating func switchDataPath(
    _ path: NVSPDataPath, _ promise: Promise<NetworkError?>
  ) {
    guard phase == .ready, number == 0, dataPathSwitch == nil, let id = requests.nextID else {
      promise.keep(failure ?? .notReady)
      return
    }
    do throws(NetworkError) {
      try sendMessage(NVSPSwitchDataPath(path: path).message, id)
      requests.insert(SendRequest(.dataPath, frame: nil), deadline: MonotonicClock.now() &+ timeout)
      dataPathSwitch = (path, promise)
    } catch {
      promise.keep(error)
    }
  }

  // MARK: - Sending

  private mutating func sendMessage(_ message: NVSPMessage, _ id: UInt64?) throws(NetworkError) {
    do throws(ChannelError) {
      try unsafe channel.send(
        message.span.bytes.extracting(first: negotiation == nil ? messageByteCount : 40),
        transactionID: id ?? 0, completionRequested: id != nil)
    } catch {
      throw refusal(error)
    }
  }

  /// Sends a control message from a buffer of its own.
  mutating func sendControl(_ bytes: [UInt8]) throws(NetworkError) {
    guard let id = requests.nextID, var frame = takeBuffer() else { throw .wouldBlock }
    let source = bytes.span
    frame.memory.withMutableBytes(bytes.count) { unsafe Self.copy(source.bytes, into: &$0) }
    let message = NVSPRNDISPacket(
      channel: .control, sectionIndex: NVSPRNDISPacket.noSection, sectionByteCount: 0
    ).message
    do throws(ChannelError) {
      try unsafe channel.send(
        message.span.bytes.extracting(first: messageByteCount), dma: &frame.memory,
        byteCount: bytes.count, transactionID: id)
    } catch {
      throw refusal(error)
    }
    requests.insert(
      SendRequest(.control, frame: consume frame), deadline: MonotonicClock.now() &+ timeout)
  }

  mutating func perform(_ actions: [NetworkNegotiation.Action]) {
    stepStart = MonotonicClock.now()
    stepReported = stepStart
    for action in actions {
      do throws(NetworkError) {
        try perform(action)
      } catch .wouldBlock {
        // Nothing else is in the ring yet: a host that takes so little takes nothing.
        return fail(.timedOut(negotiation?.step ?? "start-up"))
      } catch {
        return fail(error)
      }
    }
  }

  private mutating func perform(_ action: NetworkNegotiation.Action) throws(NetworkError) {
    switch action {
    case .message(let message, let byteCount, let awaits):
      guard awaits else { return try sendStartup(message, byteCount, nil) }
      guard let id = requests.nextID else { throw .wouldBlock }
      try sendStartup(message, byteCount, id)
      requests.insert(SendRequest(.startup, frame: nil))
    case .control(let bytes): try sendControl(bytes)
    case .agreed(let agreement):
      adopt(agreement)
      grantedCount = 1 + agreement.subchannelCount
      publish(agreement)
      life.shared.update { $0.isLinkUp = agreement.isLinkUp }
      life.shared.agreed.keep(.success(agreement))
    case .ready:
      if let negotiation {
        publish(negotiation.agreement)
        let offloads = negotiation.agreement.offloads
        if offloads != agreedOffloads { tellQueues(offloads) }
        let filter = negotiation.filter
        life.shared.update { $0.filter = filter }
      }
      phase = .ready
      negotiation = nil
      life.shared.ready.keep(.success(()))
    }
  }

  private mutating func sendStartup(
    _ message: NVSPMessage, _ byteCount: Int, _ id: UInt64?
  ) throws(NetworkError) {
    do throws(ChannelError) {
      try unsafe channel.send(
        message.span.bytes.extracting(first: byteCount), transactionID: id ?? 0,
        completionRequested: id != nil)
    } catch {
      throw refusal(error)
    }
  }

  private func publish(_ agreement: NetworkAgreement) {
    life.shared.update { information in
      information.version = agreement.version
      information.macAddress = agreement.macAddress
      information.mtu = agreement.mtu
      information.linkSpeed = agreement.linkSpeed
      information.offloads = agreement.offloads
      information.receiveBuffer = NetworkBufferInformation(
        byteCount: agreement.receiveByteCount,
        sectionByteCount: Int(agreement.receive.suballocationByteCount),
        sectionCount: Int(agreement.receive.suballocationCount))
      information.sendBuffer = NetworkBufferInformation(
        byteCount: agreement.sectionByteCount * agreement.sectionCount,
        sectionByteCount: agreement.sectionByteCount, sectionCount: agreement.sectionCount)
      information.packetsPerMessage = agreement.packetsPerMessage
      information.packetAlignment = agreement.alignment
      information.receiveTableCount = agreement.rssTableCount
      information.scalesReceive = agreement.rssTableCount > 0
    }
  }
}
