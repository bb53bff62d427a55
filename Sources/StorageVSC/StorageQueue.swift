// SPDX-License-Identifier: Apache-2.0

public import BlockStorage
public import StorageProtocol
public import VSC

/// A disk on one channel, for programs that drive it in bursts from the worker's thread.
///
/// A subchannel's queue has no start-up of its own: it begins with what the primary channel agreed on.
///
/// The start-up runs in `next`; `disk` is there when it is over. Then `read`, `write` and `flush`
/// send requests, `next` returns what has completed, and `publish` shows the host what was sent.
/// None of them counts a reference or allocates (law 4).
public struct StorageQueue<Ring: Visibility, External: Visibility>: BlockQueue, ~Copyable {
  public struct Configuration: Sendable {
    public var lun: UInt8
    /// Requests at one time.
    public var depth: Int
    /// Nanoseconds.
    public var timeout: UInt64
    /// Subchannels that a primary channel's queue asks for.
    public var subchannels: Int

    public init(
      lun: UInt8 = 0, depth: Int = 256, timeout: UInt64 = 30_000_000_000, subchannels: Int = 0
    ) {
      self.lun = lun
      self.depth = depth
      self.timeout = timeout
      self.subchannels = subchannels
    }
  }

  @usableFromInline
  enum Phase { case new, starting, ready, failed }

  @usableFromInline var channel: Channel<Ring, External>
  @usableFromInline var requests: Requests<StorageRequest<External>>
  @usableFromInline let lun: UInt8
  @usableFromInline let timeout: UInt64
  /// Requests at one time. There is room for a few more, so that a reset can always be asked for.
  @usableFromInline let depth: Int
  /// Whether the start-up asks one disk what it is.
  let identifies: Bool
  @usableFromInline var version = StorageVersion.windows8 {
    didSet { packetByteCount = version.packetByteCount }
  }
  /// Bytes of a packet of the version.
  @usableFromInline var packetByteCount = StorageVersion.windows8.packetByteCount
  @usableFromInline var phase = Phase.new
  /// Valid when ready.
  public internal(set) var geometry = DiskGeometry()
  /// Bytes of the packet for which the ring had no room.
  @usableFromInline var blockedByteCount = 0
  var startup: StorageStartup
  /// For the answers of the start-up.
  var answer: DMABuffer<External>?
  var events: StorageEvents = []

  /// Nil until the start-up is over.
  public internal(set) var disk: DiskInformation?
  /// Why the queue can be used no more, or nil while it can.
  public internal(set) var failure: StorageError?
  /// What the primary channel agreed on; nil until then.
  public internal(set) var agreement: StorageAgreement?
  /// Completions that came after their request had timed out.
  @usableFromInline var lateCompletions: UInt64 = 0

  /// - Parameter answer: a buffer for the start-up's own use.
  public init(
    _ channel: consuming Channel<Ring, External>, _ configuration: Configuration,
    answer: consuming DMABuffer<External>
  ) {
    self.init(channel, configuration, answer: .some(answer), agreement: nil)
  }

  /// The queue of a subchannel. It is ready at once.
  ///
  /// - Parameter agreement: of the primary channel's queue, when that is ready.
  public init(
    subchannel channel: consuming Channel<Ring, External>, _ configuration: Configuration,
    _ agreement: StorageAgreement
  ) {
    self.init(channel, configuration, answer: nil, agreement: agreement)
  }

  /// The queue of a primary channel that serves any disk of the controller. Its owner asks the disks
  /// what they are.
  init(controller channel: consuming Channel<Ring, External>, _ configuration: Configuration) {
    self.init(channel, configuration, answer: nil, agreement: nil)
  }

  private init(
    _ channel: consuming Channel<Ring, External>, _ configuration: Configuration,
    answer: consuming DMABuffer<External>?, agreement: StorageAgreement?
  ) {
    self.channel = channel
    depth = min(max(configuration.depth, 1), 65536 - Self.reserve)
    requests = Requests(capacity: depth + Self.reserve)
    lun = configuration.lun
    timeout = configuration.timeout
    startup = StorageStartup(subchannels: configuration.subchannels)
    switch answer {
    case .some: identifies = true
    case .none: identifies = false
    }
    self.answer = answer
    self.agreement = agreement
    if let agreement {
      version = agreement.capabilities.version
      packetByteCount = version.packetByteCount
      disk = agreement.disk
      if let disk { geometry = disk.geometry }
      phase = .ready
    }
  }

  private static var reserve: Int { 2 }

  @inlinable public var isReady: Bool { phase == .ready }
  /// See `Channel.hasLostMemory`.
  @inlinable public var hasLostMemory: Bool { channel.hasLostMemory }
  public var counters: ChannelCounters { channel.counters }
  /// Packets taken from the ring so far: a `poll` that took any, even if it drops them, has worked
  /// and must tell its worker so.
  @inlinable public var received: UInt64 { channel.counters.received }
  /// The state of the rings, for people.
  public var snapshot: (outgoing: RingSnapshot, incoming: RingSnapshot) { channel.snapshot }
  /// Requests under way, those included that timed out and whose completion has not come.
  @inlinable public var count: Int { requests.count }
  @inlinable public var abandoned: Int { requests.abandoned }
  @inlinable public var isFull: Bool { requests.count >= depth }

  // MARK: - Sending

  /// Reads `blockCount` blocks to the start of the buffer.
  ///
  /// - Parameters:
  ///   - buffer: nil after success; after an error it is still the caller's.
  ///   - tag: comes back with the completion.
  @inlinable
  public mutating func read(
    at block: UInt64, blockCount: Int, into buffer: inout DMABuffer<External>?, tag: UInt64
  ) throws(StorageError) {
    let byteCount = try check(block, blockCount)
    let extent = SCSIExtent(address: block, count: UInt32(truncatingIfNeeded: blockCount))
    try submit(.read(extent), byteCount: byteCount, buffer: &buffer, tag: tag)
  }

  /// Writes `blockCount` blocks from the start of the buffer.
  ///
  /// - Parameter forced: on stable storage before it completes.
  @inlinable
  public mutating func write(
    at block: UInt64, blockCount: Int, from buffer: inout DMABuffer<External>?, tag: UInt64,
    forced: Bool = false
  ) throws(StorageError) {
    let byteCount = try check(block, blockCount)
    let extent = SCSIExtent(
      address: block, count: UInt32(truncatingIfNeeded: blockCount), options: forced ? 0x08 : 0)
    try submit(.write(extent), byteCount: byteCount, buffer: &buffer, tag: tag)
  }

  /// Brings all writes that have completed to stable storage.
  @inlinable
  public mutating func flush(tag: UInt64) throws(StorageError) {
    guard phase == .ready else { throw .notReady }
    var none: DMABuffer<External>?
    let disk = SCSIExtent(address: 0, count: 0)
    try submit(.synchronizeCache(disk), byteCount: 0, buffer: &none, tag: tag)
  }

  @inlinable
  func check(_ block: UInt64, _ blockCount: Int) throws(StorageError) -> Int {
    guard phase == .ready else { throw .notReady }
    let maximum = geometry.maximumTransferByteCount / geometry.blockByteCount
    guard blockCount > 0, blockCount <= maximum else {
      throw .badLength(blockCount)
    }
    let byteCount = blockCount &* geometry.blockByteCount
    guard block < geometry.blockCount, UInt64(blockCount) <= geometry.blockCount &- block else {
      throw .outOfRange(
        offset: block.multipliedReportingOverflow(by: UInt64(geometry.blockByteCount))
          .partialValue, byteCount: byteCount, capacity: geometry.byteCount)
    }
    return byteCount
  }

  /// Sends a command. With a buffer, its first `byteCount` bytes are given to the device.
  @inlinable
  mutating func submit(
    _ command: SCSICommand, byteCount: Int, buffer: inout DMABuffer<External>?, tag: UInt64,
    kind: StorageRequestKind = .command
  ) throws(StorageError) {
    guard requests.count < depth, let id = requests.nextID else { throw .wouldBlock }
    var packet = StorageNegotiation.Packet(repeating: 0)
    StoragePacketHeader(.executeSRB, flags: .requestCompletion).write(into: &packet)
    // The host's own time is shorter than ours, so that its answer is seen.
    SCSIRequest(
      command, lun: lun, transferLength: UInt32(truncatingIfNeeded: byteCount),
      timeout: 20, version: version
    ).write(into: &packet, at: StoragePacketHeader.byteCount)
    try send(
      packet, id, byteCount: byteCount, buffer: &buffer, tag: tag, kind: kind,
      timeout: timeout)
  }

  @inlinable
  @inline(__always)
  mutating func send(
    _ packet: borrowing StorageNegotiation.Packet, _ id: UInt64, byteCount: Int,
    buffer: inout DMABuffer<External>?, tag: UInt64, kind: StorageRequestKind, timeout: UInt64
  ) throws(StorageError) {
    let count = packetByteCount
    var lent = buffer.take()
    do throws(ChannelError) {
      if var target = lent.take() {
        do throws(ChannelError) {
          unsafe try channel.send(
            packet.span.bytes.extracting(first: count), dma: &target, byteCount: byteCount,
            transactionID: id)
        } catch {
          buffer = consume target
          throw error
        }
        lent = consume target
      } else {
        unsafe try channel.send(
          packet.span.bytes.extracting(first: count), transactionID: id, completionRequested: true)
      }
    } catch {
      throw refusal(error)
    }
    let request = StorageRequest(tag: tag, byteCount: byteCount, kind: kind, buffer: lent)
    requests.insert(request, deadline: MonotonicClock.coarse() &+ timeout)
  }

  @usableFromInline
  mutating func refusal(_ error: ChannelError) -> StorageError {
    switch error {
    case .ring(.full(let needed, _)):
      blockedByteCount = needed
      return .wouldBlock
    case .ring(.packetTooLarge(let byteCount, _)):
      return .badLength(byteCount)
    default:
      return .channel(error)
    }
  }

  // MARK: - Receiving

  /// The next request that has ended, or nil when there is none now. When the channel is over,
  /// each request that was under way comes out once, failed.
  @inlinable
  public mutating func next() -> StorageCompletion<External>? {
    if phase == .new { begin() }
    while phase != .failed {
      do throws(ChannelError) {
        guard let packet = try channel.receive() else { return nil }
        guard packet.type == .completion else {
          unsolicited(packet)
          continue
        }
        guard var request = requests.complete(packet.transactionID) else {
          channel.counters.unknownCompletions &+= 1
          continue
        }
        if var buffer = request.payload.buffer.take() {
          buffer.takeBack()
          request.payload.buffer = consume buffer
        }
        if request.payload.kind != .command, request.payload.kind != .control {
          continueStartup(request, packet)
          continue
        }
        // Its user was told that it timed out; the buffer is free from now on.
        if request.wasAbandoned {
          lateCompletions &+= 1
          continue
        }
        if request.payload.kind == .control {
          return StorageCompletion(
            tag: request.payload.tag, result: controlOutcome(packet), buffer: nil)
        }
        let result = Self.outcome(
          channel.payload(of: packet), packetByteCount, asked: request.payload.byteCount)
        if case .failure(let error) = result { note(error) }
        return StorageCompletion(
          tag: request.payload.tag, result: result, buffer: request.payload.buffer.take())
      } catch {
        fail(.channel(error))
      }
    }
    return nextExpired(now: .max)
  }

  /// What a completion says.
  @inlinable
  static func outcome(
    _ payload: RawSpan, _ packetByteCount: Int, asked: Int
  ) -> Result<Int, StorageError> {
    // Bytes beyond a packet of the version are none of it.
    guard payload.byteCount >= packetByteCount else {
      return .failure(
        .malformed(
          .tooShort("storage completion", needed: packetByteCount, found: payload.byteCount)))
    }
    let fields: SCSIOutcomeFields
    do throws(WireError) {
      let header = try StoragePacketHeader(parsing: payload)
      guard header.operation == .completeIO else {
        return .failure(.unexpectedOperation(header.operation))
      }
      fields = try SCSIOutcomeFields(
        parsing: payload.extracting(droppingFirst: StoragePacketHeader.byteCount))
    } catch {
      return .failure(.malformed(error))
    }
    guard fields.srbStatus.code == .success, fields.scsiStatus == .good else {
      return .failure(Self.failure(payload))
    }
    // The length is the host's word; it can't have moved more than it was given.
    return .success(min(Int(fields.transferLength), asked))
  }

  /// Nothing of a completion lies in the fields that the long form of a request has more.
  @usableFromInline
  static func failure(_ payload: RawSpan) -> StorageError {
    do throws(WireError) {
      let request = try SCSIRequest.Short(
        parsing: payload.extracting(droppingFirst: StoragePacketHeader.byteCount)
      ).request
      return .failed(request.srbStatus, request.scsiStatus, request.sense)
    } catch {
      return .malformed(error)
    }
  }

  // MARK: - Publishing, sleeping, deadlines

  /// Shows the host what was sent and gives it back the space of what was received. Call it once
  /// after a burst.
  @inlinable
  public mutating func publish() { channel.flush() }

  /// Asks for an interrupt at the next completion, or when the ring has room again for the
  /// request that did not fit.
  ///
  /// - Returns: true when there is something to do already.
  public mutating func arm() -> Bool {
    if phase == .new || (phase == .failed && requests.abandoned != requests.count) { return true }
    let hasWork = channel.arm(untilFree: blockedByteCount)
    // Otherwise what is asked once more waits for the same room.
    if hasWork { blockedByteCount = 0 }
    return hasWork
  }

  public mutating func disarm() {
    blockedByteCount = 0
    channel.disarm()
  }

  /// When `nextExpired` is to be called; nanoseconds of the monotonic clock.
  public var nextDeadline: UInt64 { requests.nextDeadline }

  /// The next request that is late, or nil when there is none. The device keeps its buffer.
  public mutating func nextExpired(now: UInt64) -> StorageCompletion<External>? {
    let error = failure ?? .timedOut
    while true {
      var expired: (tag: UInt64, kind: StorageRequestKind)?
      requests.expire(now: now, limit: 1) { request in
        expired = (request.tag, request.kind)
      }
      guard let expired else { return nil }
      if expired.kind == .command || expired.kind == .control {
        return StorageCompletion(tag: expired.tag, result: .failure(error), buffer: nil)
      }
      if phase != .failed { fail(.timedOut) }
    }
  }
}
