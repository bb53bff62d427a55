// SPDX-License-Identifier: Apache-2.0

import NetworkProtocol
import Platform
import VMBus

// Everything but frames: the start-up, buffers, RNDIS control, and what is said unasked.

extension NetVSPServer where Port: ~Copyable {
  static var virtualFunctionTransaction: UInt64 { 0x8000_0000_0000_0000 }

  @inline(never)
  mutating func serveControl(_ action: NVSPSession.Action, _ packet: Packet) throws {
    switch action {
    case .complete(let message): try complete(packet, message)
    case .acknowledge: try acknowledge(packet)
    case .mapReceiveBuffer(let gpadl, let id):
      let buffer = map(gpadl)
      let answer = session.receiveBuffer(byteCount: buffer?.byteCount)
      if let buffer, answer.status == .success,
        let division = ReceiveBufferDivision(
          byteCount: buffer.byteCount, frameByteCount: session.frameByteCount)
      {
        let buffers = NetworkBuffers(buffer, division, id: id)
        receive = ReceivePool(buffers)
        guest.set(buffers: buffers)
      }
      try complete(packet, answer.message)
    case .mapSendBuffer(let gpadl):
      let buffer = map(gpadl)
      let answer = session.sendBuffer(byteCount: buffer?.byteCount)
      if answer.status == .success {
        sendBuffer = buffer
        guest.set(sendBuffer: buffer)
      }
      try complete(packet, answer.message)
    case .dropReceiveBuffer:
      receive = ReceivePool()
      guest.set(buffers: nil)
      try acknowledge(packet)
    case .dropSendBuffer:
      sendBuffer = nil
      guest.set(sendBuffer: nil)
      try acknowledge(packet)
    case .offerSubchannels(let message, let count):
      receive.share(withSubchannels: count)
      guest.expect(subchannels: count)
      try complete(packet, message)
      // The answer first: guests wait for it before they look for offers.
      channel.flush()
      channel.offerSubchannels(UInt16(count))
    case .switchDataPath: try acknowledge(packet)
    case .rndis: break
    }
    if let version = session.version {
      messageByteCount = version.messageByteCount
      guest.set(version: version, frameByteCount: session.frameByteCount)
    }
    guest.set(stage: session.stage, dataPath: session.dataPath)
  }

  private func map(_ gpadl: GPADLID) -> GuestBuffer? {
    do throws(GuestBufferError) {
      return try channel.guestBuffer(gpadl)
    } catch {
      // The guest is told by the status, and may try another one.
      guest.count(.noBuffer(error))
      return nil
    }
  }

  private mutating func complete(_ packet: Packet, _ message: NVSPMessage) throws(RingError) {
    guard packet.completionRequested else { return }
    let span = message.span
    // Safe: any bit pattern is a UInt8.
    try channel.sendCompletion(
      unsafe span.bytes.extracting(first: messageByteCount), transactionID: packet.transactionID)
  }

  /// An empty completion.
  private mutating func acknowledge(_ packet: Packet) throws(RingError) {
    guard packet.completionRequested else { return }
    try channel.sendCompletion(RawSpan(), transactionID: packet.transactionID)
  }

  mutating func becomeReady() {
    isReady = true
    guard queue == 0 else { return }
    guest.set(stage: session.stage, dataPath: session.dataPath)
    // One that was there before the guest.
    if virtualFunction != nil { owesVirtualFunction = true }
  }

  // MARK: - RNDIS

  /// One control message, in private memory.
  @inline(never)
  mutating func takeControl(_ message: RawSpan) throws(NetVSPError) {
    guard queue == 0 else {
      throw .unexpectedRNDIS(
        (try? RNDISHeader(parsing: message).type) ?? RNDISMessageType(rawValue: 0))
    }
    guard !answers.isFull else { throw .tooManyAnswers }
    channel.capture(message, fromGuest: true)
    let reply = try rndis.handle(message, facts)
    if let message = reply.message {
      // Safe: any bit pattern is a UInt8.
      unsafe channel.capture(message.span.bytes, fromGuest: false)
      answers.append(message)
    }
    switch reply.event {
    case .none: break
    case .initialized, .halted:
      state.setFilter([])
      state.setScaling(nil)
      guest.offloadsChanged(ipv4: false, ipv6: false)
    case .filter(let filter): state.setFilter(filter)
    case .scaling(let scaling): state.setScaling(scaling)
    case .offloads:
      guest.offloadsChanged(ipv4: rndis.coalescesIPv4, ipv6: rndis.coalescesIPv6)
    case .address(let address): state.setAddress(address)
    }
  }

  private var facts: NetworkFacts {
    var facts = NetworkFacts()
    facts.permanentAddress = guest.address
    // What the guest has configured, or what there is if that is less.
    facts.mtu = min(session.frameByteCount - 14, guest.configuration.mtu)
    facts.linkSpeed = guest.configuration.linkSpeed
    facts.isLinkUp = state.isLinkUp
    facts.maximumQueues = guest.configuration.maximumQueues
    if let version = session.ndisVersion { facts.ndisVersion = version.major << 16 | version.minor }
    facts.allowsCoalescing =
      session.version?.hasReceiveCoalescing == true
      && session.capabilities.contains(.receiveCoalescing)
    for queue in 0..<guest.configuration.maximumQueues {
      let counters = queue == 0 ? counters : state.counters(of: queue)
      facts.framesFromGuest &+= counters.framesFromGuest
      facts.framesToGuest &+= counters.framesToGuest
      facts.framesWithoutBuffer &+= counters.outOfBuffers
      facts.errorsFromGuest &+= counters.errorsFromGuest
    }
    return facts
  }

  // MARK: - To the guest

  /// Sends what waits, as far as there are receive buffers and room. Returns how much was sent.
  @inline(never)
  mutating func sendAnswers() throws -> Int {
    var sent = 0
    // Room for all three, so that nothing is left over that nobody comes back to.
    guard try channel.freeByteCount() >= 3 * Self.answerRoom else {
      setWaitsForRoom()
      return 0
    }
    if owesVirtualFunction, isReady {
      owesVirtualFunction = false
      if session.version?.hasVirtualFunctions == true, session.capabilities.contains(.sriov) {
        let message = NVSPVFAssociation(
          isAllocated: virtualFunction == nil ? 0 : 1, serialNumber: virtualFunction ?? 0
        ).message
        let span = message.span
        try channel.send(
          unsafe span.bytes.extracting(first: messageByteCount),
          transactionID: Self.virtualFunctionTransaction, completionRequested: true)
        sent += 1
      }
    }
    if owesTable, isReady {
      owesTable = false
      let queues = (0..<AdapterState.maximumQueues).filter { state.isOpen($0) }.count
      let message = SendIndirectionTable(queueCount: queues).message
      let span = message.span
      try channel.send(unsafe span.bytes)
      sent += 1
    }
    while !answers.isEmpty, !isExhausted, receive.freeCount > 0 {
      guard try channel.freeByteCount() >= Self.answerRoom else {
        setWaitsForRoom()
        break
      }
      guard let message = answers.popFirst() else { break }
      try sendControl(message)
      sent += 1
    }
    return sent
  }

  private mutating func sendControl(_ message: [UInt8]) throws {
    guard message.count <= receive.pieceByteCount, let piece = receive.take(after: nil) else {
      return
    }
    var dice = flips
    Self.write(message, to: piece, of: &receive, &dice)
    flips = dice
    putRange(0, byteCount: message.count, piece: piece)
    try sendPacket(first: piece, count: 1, channel: .control)
  }

  private static func write(
    _ message: [UInt8], to piece: UInt32, of receive: inout ReceivePool, _ flips: inout BitFlips?
  ) {
    var bytes = receive.bytes(of: piece)
    for (index, byte) in message.enumerated() {
      bytes.storeBytes(of: byte, toByteOffset: index, as: UInt8.self)
    }
    flips?.flip(&bytes, count: message.count)
  }

  // MARK: - From outside

  mutating func perform(_ command: NetworkCommand) {
    switch command {
    case .setLink(var isUp):
      isUp = isUp && guest.isPlugged
      guard queue == 0, state.isLinkUp != isUp else { return }
      guest.setLinkUp(isUp)
      guard rndis.state == .initialized else { return }
      answers.append(RNDISSession.indication(isUp ? .mediaConnect : .mediaDisconnect))
    case .networkChanged:
      guard queue == 0, rndis.state == .initialized else { return }
      answers.append(RNDISSession.indication(.networkChange))
    case .setVirtualFunction(let serial):
      guard queue == 0 else { return }
      virtualFunction = serial
      owesVirtualFunction = true
    case .setExhausted(let isExhausted):
      self.isExhausted = isExhausted
    case .sendTable: owesTable = true
    case .dropReceiveBuffer: receive = ReceivePool()
    case .dropSendBuffer: sendBuffer = nil
    case .flip(let flips): self.flips = flips
    }
  }
}

/// RNDIS messages that wait for receive buffers. Few, and never on the data path.
struct ControlAnswers {
  private var messages: [[UInt8]] = []
  static let capacity = 64

  var isEmpty: Bool { messages.isEmpty }
  /// Indications still fit: they are ours, and few.
  var isFull: Bool { messages.count >= Self.capacity }

  mutating func append(_ message: [UInt8]) {
    guard messages.count < 2 * Self.capacity else { return }
    messages.append(message)
  }
  mutating func popFirst() -> [UInt8]? { messages.isEmpty ? nil : messages.removeFirst() }
}
