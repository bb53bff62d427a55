// SPDX-License-Identifier: Apache-2.0

/// An open channel, in the hands of one worker.
///
/// `Ring` says who can read what is sent in-band; `External` says which memory the device may be
/// given for DMA. An open makes one of the three lawful pairs (`OpenedChannel`), and from there on
/// giving private memory to the host does not compile (law 2).
///
/// Packets are sent and received in bursts; `flush` publishes both directions at once and rings
/// the doorbell when the peer asks for it.
@safe
public struct Channel<Ring: Visibility, External: Visibility>: ~Copyable {
  @usableFromInline var producer: RingProducer<BorrowedRingMemory>
  @usableFromInline var consumer: RingConsumer<BorrowedRingMemory>
  @usableFromInline var buffer: PacketBuffer
  @usableFromInline var ranges: RangeStaging
  @usableFromInline let doorbell: Doorbell
  @usableFromInline let state: ChannelState
  /// Interrupts are not wanted: the worker polls.
  @usableFromInline var isPolling = true
  public var counters = ChannelCounters()

  /// On an error the caller still has to release the channel's state.
  init(_ raw: consuming RawChannel, _ parameters: ChannelParameters) throws(RingError) {
    let (state, doorbell, trailerCheck) = (raw.state, raw.doorbell, raw.trailerCheck)
    let producer = try RingProducer(raw.outgoing)
    let consumer = try RingConsumer(raw.incoming, trailerCheck: trailerCheck)
    self.producer = producer
    self.consumer = consumer
    self.buffer = PacketBuffer(capacity: parameters.maximumPacketByteCount)
    self.ranges = RangeStaging()
    self.doorbell = doorbell
    self.state = state
  }

  @inlinable
  deinit { state.release() }

  /// Why the channel is over, or nil while it is not.
  public var ended: ChannelEnd? { state.ended ?? (hasLostMemory ? .rescinded : nil) }

  /// Whether DMA memory, and the rings, may have become other memory: a system may take them away with the
  /// device. What was copied out of a buffer is good when this is false after that.
  @inlinable public var hasLostMemory: Bool {
    if case .moduleFile(let signal) = doorbell { signal.isOver } else { false }
  }

  /// The kernel has taken the rings away, or is about to.
  @inlinable var isTakenAway: Bool { hasLostMemory || state.ended == .rescinded }

  // MARK: - Sending

  /// Sends a packet whose payload lies in the ring itself: whoever sees the ring reads it.
  @inlinable
  public mutating func send(
    _ payload: RawSpan, transactionID: UInt64 = 0, completionRequested: Bool = false
  ) throws(ChannelError) {
    try write(.inBand, transactionID, completionRequested: completionRequested, payload)
  }

  /// Sends the first `byteCount` bytes of a buffer in-band. The buffer must be memory that the
  /// ring's readers may see.
  @inlinable
  public mutating func send(
    contentsOf buffer: borrowing DMABuffer<Ring>, byteCount: Int, transactionID: UInt64 = 0,
    completionRequested: Bool = false
  ) throws(ChannelError) {
    let count = min(max(byteCount, 0), buffer.byteCount)
    try send(
      buffer.bytes.extracting(first: count), transactionID: transactionID,
      completionRequested: completionRequested)
  }

  /// Answers the peer's request with that transaction id.
  @inlinable
  public mutating func sendCompletion(
    _ payload: RawSpan, transactionID: UInt64
  ) throws(ChannelError) {
    try write(.completion, transactionID, completionRequested: false, payload)
  }

  /// Sends a packet that gives the device the first `byteCount` bytes of a buffer for DMA. A
  /// completion is requested. The caller keeps the buffer, untouched, until it comes (law 3):
  /// `Requests` does that; then it calls the buffer's `takeBack`.
  @inlinable
  public mutating func send(
    _ payload: RawSpan, dma buffer: inout DMABuffer<External>, byteCount: Int,
    transactionID: UInt64
  ) throws(ChannelError) {
    guard byteCount > 0, byteCount <= buffer.byteCount, byteCount <= RangeStaging.maximumByteCount
    else {
      throw .ring(.packetTooLarge(byteCount: byteCount, limit: buffer.byteCount))
    }
    unsafe ranges.set(
      byteCount: byteCount, byteOffset: buffer.byteOffset, pages: buffer.pageNumbers)
    // Safe: the staging memory lives as long as this value. A span made from a local copy of its
    // address lets the producer, another part of this value, be changed meanwhile.
    let (words, count) = unsafe (ranges.words, ranges.byteCount)
    do throws(RingError) {
      try producer.write(
        .gpaDirect, transactionID: transactionID, completionRequested: true,
        ranges: unsafe RawSpan(_unsafeStart: words, byteCount: count), payload: payload)
    } catch {
      throw failure(error)
    }
    buffer.lend(byteCount)
    counters.sent &+= 1
  }

  @inlinable
  mutating func write(
    _ type: PacketType, _ transactionID: UInt64, completionRequested: Bool, _ payload: RawSpan
  ) throws(ChannelError) {
    do throws(RingError) {
      try producer.write(
        type, transactionID: transactionID, completionRequested: completionRequested,
        payload: payload)
    } catch {
      throw failure(error)
    }
    counters.sent &+= 1
  }

  // MARK: - Receiving

  /// The next packet, copied out, or nil when there is none. `payload(of:)` has its bytes until
  /// the next call.
  @inlinable
  public mutating func receive() throws(ChannelError) -> Packet? {
    let packet: Packet?
    do throws(RingError) {
      packet = try consumer.receive(into: &buffer)
    } catch {
      throw failure(error)
    }
    if packet == nil {
      // What the host published before its end still counts; so this comes last.
      if let reason = state.ended { throw .ended(reason) }
    } else {
      // A packet that was being copied when the ring was taken away may be zeros in part.
      if doorbell.isOfKernel, isTakenAway {
        state.end(.rescinded)
        throw .ended(.rescinded)
      }
      counters.received &+= 1
    }
    return packet
  }

  /// The payload of the packet that `receive` returned last, padding to 8 bytes included.
  @inlinable
  @_lifetime(borrow self)
  public func payload(of packet: Packet) -> RawSpan { buffer.payload(of: packet) }

  /// The ranges of the packet that `receive` returned last: see `TransferPages`.
  @inlinable
  @_lifetime(borrow self)
  public func ranges(of packet: Packet) -> RawSpan { buffer.ranges(of: packet) }

  /// Bytes that one packet can give to the device, at most.
  public static var maximumDMAByteCount: Int { RangeStaging.maximumByteCount }

  // MARK: - Publishing and sleeping

  /// Publishes what was sent and gives back the space of what was received.
  @inlinable
  public mutating func flush() {
    // What was written to DMA memory for the host may be there no more: then it is not told of it.
    if hasLostMemory { return state.end(.rescinded) }
    let sent = producer.commit()
    let received = consumer.commit()
    if sent || received {
      counters.doorbells &+= 1
      doorbell.ring()
    }
    if doorbell.unmasks && isPolling { consumer.keepMasked() }
  }

  /// Asks for an interrupt at the next packet, or when `sendByteCount` bytes are free again.
  ///
  /// - Returns: true when there is something to do already, so that the worker must not sleep.
  public mutating func arm(untilFree sendByteCount: Int = 0) -> Bool {
    isPolling = false
    flush()
    if state.ended != nil { return true }
    do throws(RingError) {
      if sendByteCount > 0, try producer.waitForSpace(sendByteCount) { return true }
      return try consumer.arm()
    } catch {
      // The next `receive` or `send` finds the same corruption and reports it.
      return true
    }
  }

  /// Polling goes on: no interrupts, please.
  public mutating func disarm() {
    isPolling = true
    consumer.mask()
    producer.stopWaitingForSpace()
  }

  /// Bytes that one packet may take now, descriptor and trailer included.
  public mutating func freeByteCount() throws(ChannelError) -> Int {
    do throws(RingError) { return try producer.free() } catch { throw failure(error) }
  }

  /// Ends the channel because the peer broke the device's protocol beyond repair.
  public mutating func end(_ reason: ChannelEnd) { state.end(reason) }

  @usableFromInline
  mutating func failure(_ error: RingError) -> ChannelError {
    switch error {
    case .full:
      counters.full &+= 1
    case .packetTooLarge:
      break
    default:
      // A ring that was taken away reads as anything.
      if isTakenAway { state.end(.rescinded) }
      if let reason = state.ended { return .ended(reason) }
      counters.corrupt &+= 1
      state.end(.corrupt)
    }
    return .ring(error)
  }

  /// The control pages as they are now, for people.
  public var snapshot: (outgoing: RingSnapshot, incoming: RingSnapshot) {
    (producer.snapshot, consumer.snapshot)
  }
}

/// What a channel did so far.
public struct ChannelCounters: Sendable, Equatable {
  public var sent: UInt64 = 0
  public var received: UInt64 = 0
  /// How often the peer had to be signalled.
  public var doorbells: UInt64 = 0
  /// How often the outgoing ring was full.
  public var full: UInt64 = 0
  /// Ring corruptions found; the first one ends the channel.
  public var corrupt: UInt64 = 0
  /// Completions that matched no request: unknown, stale or repeated ids (law 7).
  public var unknownCompletions: UInt64 = 0
  /// Packets that the device's protocol does not allow, dropped.
  public var malformed: UInt64 = 0

  public init() {}
}

/// A channel as it was opened: one of the three lawful pairs. It answers once, by the offer's
/// flags at this open; external memory encrypted under a host-visible ring does not exist.
public enum OpenedChannel: ~Copyable {
  case hostVisible(Channel<HostVisible, HostVisible>)
  case encryptedRing(Channel<Encrypted, HostVisible>)
  case encrypted(Channel<Encrypted, Encrypted>)
}

/// Private memory in which the ranges of a GPA-direct packet are laid out.
@safe
@usableFromInline
struct RangeStaging: ~Copyable {
  @usableFromInline let words: UnsafeMutablePointer<UInt64>
  @usableFromInline var byteCount = 0

  /// 2 MiB in one packet; devices that take more than that are not known.
  @usableFromInline static let maximumByteCount = 512 * 4096

  init() {
    unsafe words = .allocate(capacity: 2 + Self.maximumByteCount / 4096)
    unsafe words.initialize(repeating: 0, count: 2 + Self.maximumByteCount / 4096)
    // One range; the reserved word is zero.
    unsafe words[0] = UInt64(1).littleEndian << 32
  }

  @inlinable deinit { unsafe words.deallocate() }

  /// One range, which starts at the start of its first page or ends in it.
  @inlinable
  mutating func set(byteCount count: Int, byteOffset: UInt32, pages: UnsafePointer<GPN>) {
    let offset = UInt64(byteOffset) &<< 32
    unsafe words[1] = (UInt64(truncatingIfNeeded: count) | offset).littleEndian
    let pageCount = (count &+ 4095) >> 12
    for index in 0..<pageCount {
      unsafe words[2 &+ index] = unsafe pages[index].littleEndian
    }
    byteCount = GPARanges.byteCount(pageCount: pageCount)
  }
}
