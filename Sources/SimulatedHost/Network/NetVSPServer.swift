// SPDX-License-Identifier: Apache-2.0

import NetworkProtocol
import PacketIO
import Platform
import VMBus

/// One channel of a guest to a network device: the primary one or a subchannel.
struct NetVSPServer<Port: NetworkPort & ~Copyable>: Pollable, ~Copyable {
  var channel: HostChannel
  var port: Port
  let guest: NetworkGuest
  let state: AdapterState
  let queue: Int
  var session: NVSPSession
  var rndis = RNDISSession()
  var receive = ReceivePool()
  var sendBuffer: GuestBuffer?
  /// Bytes of each message of the version.
  var messageByteCount = 40
  var counters = NetworkCounters()

  // The data path's memory.
  var segments = GuestSegments()
  let head = FrameScratch(byteCount: 512)
  let frame = FrameScratch(byteCount: FrameInfo.maximumByteCount + 64)
  let ranges = FrameScratch(byteCount: 8 + 8 * ReceiveBufferDivision.maximumPiecesPerPacket)

  // What waits.
  var answers = ControlAnswers()
  private var waitsForRoom = false
  /// Frames wait until the guest gives receive buffers back.
  var waitsForBuffers = false
  var isExhausted = false
  var owesTable = false
  var isReady = false
  var virtualFunction: UInt32?
  var owesVirtualFunction = false
  var flips: BitFlips?

  /// Room that answers need: the largest is the indirection table.
  static var answerRoom: Int { Packet.byteCount(payload: 80) }

  init(
    _ channel: consuming HostChannel, _ guest: NetworkGuest, queue: Int, _ port: consuming Port
  ) {
    var receive = ReceivePool()
    var sendBuffer: GuestBuffer?
    if queue > 0 {
      if let buffers = guest.buffers { receive = ReceivePool(buffers, subchannel: queue) }
      sendBuffer = guest.sendBuffer
      messageByteCount = guest.version?.messageByteCount ?? 40
    }
    session = NVSPSession(
      guest.configuration, isSubchannel: queue > 0,
      frameByteCount: queue > 0 ? guest.frameByteCount : 1514)
    self.queue = queue
    self.guest = guest
    self.receive = receive
    self.sendBuffer = sendBuffer
    state = guest.adapter.state
    self.port = port
    self.channel = channel
  }

  @_specialize(where Port == GeneratorPort)
  @_specialize(where Port == SwitchPort)
  @_specialize(where Port == LoopbackPort)
  @_specialize(where Port == TapPort)
  @_specialize(where Port == CapturePort)
  mutating func poll(budget: Int) -> Int? {
    if channel.isClosed { return nil }
    var work = 0
    do {
      work = try takePackets(budget)
      port.flush()
      if !answers.isEmpty || owesTable || owesVirtualFunction { work &+= try sendAnswers() }
      work &+= try sendFrames(budget)
    } catch let error as NetVSPError {
      // A guest that breaks the protocol beyond an answer: the device stops, as Hyper-V's does,
      // until the channel is opened again.
      guest.count(error)
      return nil
    } catch {
      // A corrupt ring.
      return nil
    }
    channel.flush()
    if work > 0 { publish() }
    return work == 0 && channel.isClosed ? nil : work
  }

  private mutating func publish() {
    counters.buffersWithGuest = UInt64(receive.lentCount)
    state.publish(counters, of: queue)
  }

  private mutating func takePackets(_ budget: Int) throws -> Int {
    var work = 0
    waitsForRoom = false
    var room = try channel.freeByteCount()
    while work < budget {
      // Room for the answer first: a request that was taken is a request that is answered.
      if room < Self.answerRoom {
        room = try channel.freeByteCount()
        waitsForRoom = room < Self.answerRoom
      }
      if waitsForRoom { break }
      // Nobody wakes the worker when the wait is over.
      if port.mustWait() { return max(work, 1) }
      guard let packet = try channel.receive() else { break }
      work &+= 1
      room &-= Self.answerRoom
      try serve(packet)
    }
    return work
  }

  @inline(__always)
  private mutating func serve(_ packet: Packet) throws {
    switch packet.type {
    case .completion: takeCompletion(packet)
    case .inBand, .gpaDirect: try serveMessage(packet)
    default: throw NetVSPError.unexpected(NVSPMessageType(rawValue: 0))
    }
  }

  /// The guest gives receive buffers back, or answers what needs no answer. Windows completes
  /// VF associations, Linux does not.
  private mutating func takeCompletion(_ packet: Packet) {
    if receive.complete(packet.transactionID) { return }
    if packet.transactionID & 0x8000_0000_0000_0000 != 0, queue == 0, isReady { return }
    counters.unknownCompletions &+= 1
    guest.count(.unknownCompletion(packet.transactionID))
  }

  private mutating func serveMessage(_ packet: Packet) throws {
    let action = try session.handle(
      channel.payload(of: packet), isTransactional: packet.completionRequested)
    if case .rndis(let message) = action {
      if !isReady { becomeReady() }
      let status = try takeRNDIS(message, packet)
      if packet.completionRequested { try complete(packet, status) }
      return
    }
    try serveControl(action, packet)
  }

  private mutating func complete(_ packet: Packet, _ status: NVSPStatus) throws(RingError) {
    var message = NVSPRNDISPacketComplete(status: status).message
    if flips != nil { flipCompletion(&message) }
    let span = message.span
    // Safe: any bit pattern is a UInt8.
    try channel.sendCompletion(
      unsafe span.bytes.extracting(first: messageByteCount), transactionID: packet.transactionID)
  }

  @inline(never)
  private mutating func flipCompletion(_ message: inout NVSPMessage) {
    var span = message.mutableSpan
    // Safe: any bit pattern is a UInt8.
    var bytes = unsafe span.mutableBytes
    flips?.flip(&bytes, count: 8)
  }

  mutating func arm() -> Bool {
    if waitsForRoom { return channel.arm(untilRoomFor: 4 * Self.answerRoom) }
    let hasPackets = channel.arm()
    // Frames that can't be sent now are no reason to stay awake: the guest's completions wake us.
    if waitsForBuffers || isExhausted {
      port.park()
      return hasPackets
    }
    return port.arm() || hasPackets
  }

  mutating func disarm() {
    channel.disarm()
    port.disarm()
  }

  var nextDeadline: UInt64 { channel.nextDeadline }

  mutating func expire(now: UInt64) {
    // A corrupt ring is found by the next poll.
    try? channel.releaseHeld(now: now)
    channel.flush()
  }

  mutating func setWaitsForRoom() { waitsForRoom = true }
}
