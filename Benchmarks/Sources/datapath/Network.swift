// SPDX-License-Identifier: Apache-2.0

import Dispatch
import NetworkProtocol
import NetworkVSC
import VSC

/// Frames of 60 bytes from the host, through the network driver's burst face.
func runNetworkReceive(_ packets: Int) throws { try runNetwork(packets, sends: false) }

/// Frames of 60 bytes to the host.
func runNetworkSend(_ packets: Int) throws { try runNetwork(packets, sends: true) }

/// Numbers of queues, as `scripts/bench` counts instructions for them.
func runNetworkReceive4(_ packets: Int) throws { try runNetwork(packets, sends: false, queues: 4) }
func runNetworkReceive16(_ packets: Int) throws {
  try runNetwork(packets, sends: false, queues: 16)
}
func runNetworkReceive64(_ packets: Int) throws {
  try runNetwork(packets, sends: false, queues: 64)
}
func runNetworkSend4(_ packets: Int) throws { try runNetwork(packets, sends: true, queues: 4) }
func runNetworkSend16(_ packets: Int) throws { try runNetwork(packets, sends: true, queues: 16) }
func runNetworkSend64(_ packets: Int) throws { try runNetwork(packets, sends: true, queues: 64) }

/// `plain-receive-64`, for frames of 64 bytes in the first row of the table of memories, and so on.
var networkRowPaths: [(name: String, run: (Int) throws -> Void)] {
  Row.allCases.flatMap { row in
    [64, 1500].flatMap { byteCount in
      [false, true].map { sends in
        (
          "\(row)-\(sends ? "send" : "receive")-\(byteCount)",
          { packets in try runNetwork(packets, sends: sends, row: row, byteCount: byteCount) }
        )
      }
    }
  }
}

/// - Parameters:
///   - packets: of all queues together.
///   - queues: all on one worker, each of a device of its own: a queue does not look at its
///     neighbours.
private func runNetwork(
  _ packets: Int, sends: Bool, queues: Int = 1, row: Row = .bounced, byteCount: Int = 60
) throws {
  let worker = try Worker(.init(name: "datapath", spinRounds: 0))
  let devices = try (0..<queues).map { _ in try row.makeDevice() }
  let owners = devices.map { Device($0, workers: [worker]) }
  let ends = DispatchSemaphore(value: 0)
  try blocking { started in
    var configuration = NetworkConfiguration()
    configuration.receiveBufferByteCount = HeapNetworkHost.receiveByteCount
    configuration.sendBufferByteCount = 1 << 20
    for (device, owner) in zip(devices, owners) {
      _ = try await NetworkVSC.open(
        owner, configuration,
        user: PathUser(
          host: device, packets: packets / queues, sends: sends, byteCount: byteCount, done: ends))
    }
    started.signal()
  }
  for _ in devices { ends.wait() }
  worker.stop()
}

private struct PathUser: NetworkQueueUser {
  let host: HeapDevice
  let packets: Int
  let sends: Bool
  let byteCount: Int
  let done: DispatchSemaphore

  func attach<Ring: Visibility, External: Visibility>(
    _ queue: consuming sending NetworkQueue<Ring, External>, to worker: Worker
  ) {
    do {
      let host = try HeapNetworkHost(host, frameByteCount: byteCount)
      let path = NetworkPath(
        queue, host, packets: packets, sends: sends, byteCount: byteCount)
      _ = worker.attach(path) { done.signal() }
    } catch {
      fail("\(error)")
    }
  }
}

private struct NetworkPath<Ring: Visibility, External: Visibility>: Pollable, ~Copyable {
  var queue: NetworkQueue<Ring, External>
  var host: HeapNetworkHost
  var burst = ReceiveBurst(capacity: 32)
  let packets: Int
  let sends: Bool
  let byteCount: Int
  let frame = InlineArray<1500, UInt8>(repeating: 2)
  var count = 0
  var bytes = 0

  init(
    _ queue: consuming NetworkQueue<Ring, External>, _ host: consuming HeapNetworkHost,
    packets: Int, sends: Bool, byteCount: Int
  ) {
    self.queue = queue
    self.host = host
    self.packets = packets
    self.sends = sends
    self.byteCount = byteCount
  }

  @_specialize(where Ring == HostVisible, External == HostVisible)
  @_specialize(where Ring == Encrypted, External == HostVisible)
  @_specialize(where Ring == Encrypted, External == Encrypted)
  mutating func poll(budget: Int) -> Int? {
    do {
      guard queue.isReady else {
        _ = queue.receive(into: &burst)
        queue.publish()
        try host.answerStartUp()
        if let failure = queue.failure { throw failure }
        return 1
      }
      return try driverTurn()
    } catch {
      fail("\(error)")
    }
  }

  /// One turn of a queue that is ready. Never inlined, so that its instructions can be told from those of the
  /// start-up.
  @inline(never)
  private mutating func driverTurn() throws -> Int? {
    try host.answerAll(frames: sends ? 0 : min(32, packets &- count))
    let received = queue.receive(into: &burst)
    var seen = 0
    burst.drain { packet in seen &+= packet.bytes.byteCount }
    bytes &+= seen
    var sent = 0
    if sends {
      while sent < 32, count &+ sent < packets {
        try queue.send(unsafe frame.span.bytes.extracting(first: byteCount))
        sent &+= 1
      }
    }
    queue.publish()
    count &+= received &+ sent
    if let failure = queue.failure { throw failure }
    return count >= packets ? nil : 1
  }

  mutating func arm() -> Bool {
    _ = queue.arm()
    return true
  }

  mutating func disarm() { queue.disarm() }
}

/// The host's end of a network device.
private struct HeapNetworkHost: ~Copyable {
  static let receiveByteCount = 1 << 20
  private static let suballocation = 1806

  private var consumer: RingConsumer<BorrowedRingMemory>
  private var producer: RingProducer<BorrowedRingMemory>
  private var buffer = PacketBuffer(capacity: 16384)
  private let device: HeapDevice
  private let frameByteCount: Int
  private var place = 0

  init(_ device: HeapDevice, frameByteCount: Int) throws(RingError) {
    // Safe: `device` keeps the rings.
    let consumer = try unsafe RingConsumer(device.outgoing.end())
    let producer = try unsafe RingProducer(device.incoming.end())
    self.consumer = consumer
    self.producer = producer
    self.device = device
    self.frameByteCount = frameByteCount
  }

  /// What the host does in a turn. Never inlined, so that its instructions can be told from the
  /// driver's.
  @inline(never)
  mutating func answerAll(frames: Int) throws(RingError) {
    try completeAll()
    if frames > 0 { try sendFrames(frames) }
  }

  /// Completes what the guest has sent, and takes its completions.
  private mutating func completeAll() throws(RingError) {
    let done: InlineArray<1, UInt64> = [1 << 32 | 108]
    while let packet = try consumer.receive(into: &buffer) {
      guard packet.type != .completion else { continue }
      try producer.write(
        .completion, transactionID: packet.transactionID, payload: unsafe done.span.bytes)
    }
    _ = consumer.commit()
    _ = producer.commit()
  }

  /// Sends frames, one in each packet, with the hash value that a host sends along.
  private mutating func sendFrames(_ count: Int) throws(RingError) {
    guard let memory = unsafe device.sharedMemory(.receive) else { return }
    let words: InlineArray<5, UInt32> = [107, 0, 0xFFFF_FFFF, 0, 0]
    for _ in 0..<count {
      place = (place &+ Self.suballocation) % (Self.receiveByteCount &- Self.suballocation)
      var info = PerPacketInfo()
      info.hashValue = 7
      var span = unsafe MutableRawSpan(_unsafeStart: memory + place, byteCount: 1806)
      _ = info.writeHeader(into: &span, dataByteCount: frameByteCount)
      let range = UInt64(info.headerByteCount + frameByteCount) | UInt64(place) << 32
      let ranges: InlineArray<2, UInt64> = [0xCAFE | 1 << 32, range]
      try unsafe producer.write(
        .transferPages, transactionID: UInt64(place), completionRequested: true,
        ranges: ranges.span.bytes, payload: words.span.bytes)
    }
    _ = producer.commit()
  }

  // MARK: - The start-up

  mutating func answerStartUp() throws {
    while let packet = try consumer.receive(into: &buffer) {
      _ = consumer.commit()
      guard packet.type != .completion, packet.completionRequested else { continue }
      if packet.type == .gpaDirect {
        let message = try memory(packet)
        try complete(packet, NVSPRNDISPacketComplete().message)
        try answer(message)
        continue
      }
      switch try NVSPHeader(parsing: buffer.payload(of: packet)).type {
      case .initialize:
        try complete(packet, NVSPInitializeComplete(status: .success).message)
      case .sendReceiveBuffer:
        let count = UInt32(Self.receiveByteCount / Self.suballocation)
        let section = ReceiveBufferSection(
          offset: 0, suballocationByteCount: UInt32(Self.suballocation), suballocationCount: count,
          endOffset: count * UInt32(Self.suballocation))
        try complete(
          packet,
          NVSPReceiveBufferComplete(status: .success, sectionCount: 1, section: section).message)
      default:
        try complete(
          packet, NVSPSendBufferComplete(status: .success, sectionByteCount: 6144).message)
      }
    }
  }

  private mutating func complete(_ packet: Packet, _ message: NVSPMessage) throws(RingError) {
    try unsafe producer.write(
      .completion, transactionID: packet.transactionID, payload: message.span.bytes)
    _ = producer.commit()
  }

  /// The only range of a control message, which starts at the start of its first page.
  private func memory(_ packet: Packet) throws(WireError) -> [UInt8] {
    var ranges = try GPARanges(buffer.ranges(of: packet))
    var range = try ranges.next()
    let page = UInt(try range.nextPage())
    guard let start = unsafe UnsafeRawPointer(bitPattern: page << 12) else { return [] }
    return unsafe [UInt8](
      UnsafeRawBufferPointer(start: start, count: Int(range.range.byteCount)))
  }

  /// As a host without offloads and scaling.
  private mutating func answer(_ message: [UInt8]) throws {
    let bytes = unsafe message.span.bytes
    let type = try RNDISHeader(parsing: bytes).type
    let body = bytes.extracting(droppingFirst: 8)
    // Each of them begins with its id.
    let id = try RNDISKeepalive(parsing: body).requestID
    let reply: [UInt8]
    switch type {
    case .initialize: reply = RNDISInitializeComplete(requestID: id).messageBytes()
    case .set: reply = RNDISSetComplete(requestID: id).messageBytes()
    default:
      let value: [UInt8] =
        switch try RNDISQuery(parsing: body).oid {
        case .maximumFrameByteCount: [0xDC, 5, 0, 0]
        case .permanentAddress: [2, 0, 0, 0, 0, 1]
        case .mediaConnectStatus, .linkSpeed: [0, 0, 0, 0]
        default: []
        }
      reply = RNDISQueryComplete(
        requestID: id, status: value.isEmpty ? .notSupported : .success,
        bufferByteCount: UInt32(value.count)
      ).messageBytes(buffer: value)
    }
    guard let memory = unsafe device.sharedMemory(.receive) else { return }
    for (index, byte) in reply.enumerated() {
      unsafe memory.storeBytes(of: byte, toByteOffset: index, as: UInt8.self)
    }
    let words: InlineArray<5, UInt32> = [107, 1, 0xFFFF_FFFF, 0, 0]
    let ranges: InlineArray<2, UInt64> = [0xCAFE | 1 << 32, UInt64(reply.count)]
    try unsafe producer.write(
      .transferPages, transactionID: 0, completionRequested: true, ranges: ranges.span.bytes,
      payload: words.span.bytes)
    _ = producer.commit()
  }
}
