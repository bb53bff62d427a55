// SPDX-License-Identifier: Apache-2.0

import Platform
import Synchronization
public import VMBus

/// A channel that a guest has opened, in the hands of the device that serves it.
///
/// The same ring logic as the guest's, at the other ends. The value belongs to one worker; when
/// it goes, the host knows that the device no longer touches the guest's memory.
public struct HostChannel: ~Copyable, Sendable {
  @usableFromInline var producer: RingProducer<BorrowedRingMemory>
  @usableFromInline var consumer: RingConsumer<BorrowedRingMemory>
  @usableFromInline var buffer: PacketBuffer
  let memory: GuestMemory
  private let view: GuestMemoryView
  private let gpadls: GPADLTable
  private let interrupt: ChannelInterrupt
  @usableFromInline let state: HostChannelState
  private var faults: ChannelFaults
  private let capture: Capture?
  public let request: OpenRequest
  /// Which of the host's guests has opened it.
  public let guest: Int
  /// 0 is the primary channel.
  public let subchannelIndex: UInt16
  /// Until then the host does nothing, because a test asked for it.
  private var stalledUntil: UInt64 = 0

  init(
    _ request: OpenRequest, memory: GuestMemory, gpadls: GPADLTable,
    interrupt: ChannelInterrupt, state: HostChannelState, faults: ChannelFaults,
    capture: Capture?, guest: Int = 0, subchannelIndex: UInt16 = 0,
    acceptsSharedData: Bool = false, maximumPacketByteCount: Int = 65536
  ) throws(RingError) {
    let split = Int(request.downstreamPageOffset) * 4096
    let total = request.ringPages.count * 4096
    // Safe: the state keeps the mapping, and lives as long as this value.
    let consumer = try unsafe RingConsumer(state.ring(from: 0, byteCount: split))
    let producer = try unsafe RingProducer(state.ring(from: split, byteCount: total - split))
    self.consumer = consumer
    self.producer = producer
    buffer = PacketBuffer(capacity: maximumPacketByteCount)
    self.memory = memory
    let encrypted: GuestMemoryView = acceptsSharedData ? .either : .encrypted
    view = request.confidentiality == .ringAndExternalMemory ? encrypted : .hostVisible
    self.gpadls = gpadls
    self.interrupt = interrupt
    self.state = state
    self.faults = faults
    self.capture = capture
    self.request = request
    self.guest = guest
    self.subchannelIndex = subchannelIndex
  }

  deinit { state.release() }

  /// The guest has closed the channel, or is gone: the device lets go of it.
  public var isClosed: Bool { state.isClosed.load(ordering: .relaxed) }

  /// The next packet of the guest, copied out, or nil when there is none.
  public mutating func receive() throws(RingError) -> Packet? {
    // Whatever still lies in the ring: the guest's memory is not touched any more.
    if isClosed || isStalled { return nil }
    let packet = try consumer.receive(into: &buffer)
    if let packet, let capture { record(packet, in: capture) }
    return packet
  }

  @_lifetime(borrow self)
  public func payload(of packet: Packet) -> RawSpan { buffer.payload(of: packet) }

  /// The guest memory that a GPA-direct packet names: its first range.
  @_lifetime(borrow self)
  public func externalData(of packet: Packet) throws(WireError) -> GuestRangeData {
    let bytes = buffer.ranges(of: packet)
    var ranges = try GPARanges(bytes)
    let range = try ranges.next().range
    // Behind the reserved word, the count, and the range's length and offset.
    return GuestRangeData(
      range, pages: bytes.extracting(droppingFirst: 16), memory: memory, view: view)
  }

  /// All ranges of guest memory that a GPA-direct packet names.
  @_lifetime(borrow self)
  public func externalRanges(of packet: Packet) throws(WireError) -> GuestRanges {
    try GuestRanges(buffer.ranges(of: packet), memory: memory, view: view)
  }

  /// Maps a GPADL that the guest has described for this channel. Not for the data path.
  public func guestBuffer(_ id: GPADLID) throws(GuestBufferError) -> GuestBuffer {
    try gpadls.buffer(id, of: request.channel, in: memory, view)
  }

  /// Answers the request with that transaction id; faults that a test asked for happen here.
  public mutating func sendCompletion(
    _ payload: RawSpan, transactionID: UInt64
  ) throws(RingError) {
    switch faults.next() {
    case .none:
      try write(.completion, payload, transactionID)
    case .drop:
      return
    case .twice:
      try write(.completion, payload, transactionID)
      try write(.completion, payload, transactionID)
    case .invent:
      try write(.completion, payload, transactionID ^ 0x5555_0000_0000)
      try write(.completion, payload, transactionID)
    case .delay(let nanoseconds):
      faults.hold(payload, transactionID, until: MonotonicClock.now() &+ nanoseconds)
    case .long:
      try writeLong(payload, transactionID)
    case .short:
      try write(.completion, payload.extracting(first: min(payload.byteCount, 8)), transactionID)
    case .stall(let nanoseconds):
      try write(.completion, payload, transactionID)
      stalledUntil = MonotonicClock.now() &+ nanoseconds
    case .garbage:
      scribble()
    case .rescind:
      state.rescind()
    case .crash:
      crashProcess()
    }
  }

  /// Asks the host for subchannels of this primary channel, for this guest only. They are offered
  /// soon, and go with it.
  public func offerSubchannels(_ count: UInt16) { state.offerSubchannels(count) }

  /// A completion that is far longer than what was asked with.
  private mutating func writeLong(
    _ payload: RawSpan, _ transactionID: UInt64
  ) throws(RingError) {
    var long = InlineArray<512, UInt8>(repeating: 0xA5)
    for index in 0..<min(payload.byteCount, long.count) {
      long[index] = unsafe payload.unsafeLoad(fromByteOffset: index, as: UInt8.self)
    }
    let span = long.span
    guard try hasRoom(forPayload: long.count) else {
      return try write(.completion, payload, transactionID)
    }
    try write(.completion, unsafe span.bytes, transactionID)
  }

  private var isStalled: Bool { stalledUntil != 0 && MonotonicClock.now() < stalledUntil }

  /// Sends what the guest did not ask for.
  public mutating func send(
    _ payload: RawSpan, transactionID: UInt64 = 0, completionRequested: Bool = false
  ) throws(RingError) {
    try write(.inBand, payload, transactionID, completionRequested: completionRequested)
  }

  /// Sends a packet that names ranges of a buffer of the guest, which its completion gives back.
  ///
  /// - Parameter ranges: set id, count and ranges, as `TransferPages` reads them.
  public mutating func sendTransferPages(
    _ ranges: RawSpan, payload: RawSpan, transactionID: UInt64
  ) throws(RingError) {
    try write(
      .transferPages, payload, transactionID, ranges: ranges, completionRequested: true)
  }

  private mutating func write(
    _ type: PacketType, _ payload: RawSpan, _ transactionID: UInt64, ranges: RawSpan = RawSpan(),
    completionRequested: Bool = false
  ) throws(RingError) {
    try producer.write(
      type, transactionID: transactionID, completionRequested: completionRequested,
      ranges: ranges, payload: payload)
    capture?.packet(
      channel: request.channel, fromGuest: false, type: type, transactionID: transactionID,
      ranges: ranges, payload: payload)
  }

  private func record(_ packet: Packet, in capture: Capture) {
    capture.packet(
      channel: request.channel, fromGuest: true, type: packet.type,
      transactionID: packet.transactionID, ranges: buffer.ranges(of: packet),
      payload: buffer.payload(of: packet))
  }

  /// Puts a message that a packet names, and does not hold, into the capture.
  func capture(_ message: RawSpan, fromGuest: Bool) {
    capture?.content(channel: request.channel, fromGuest: fromGuest, message)
  }

  /// Publishes both directions, and signals the guest where it asks for it.
  public mutating func flush() {
    let sent = producer.commit()
    let received = consumer.commit()
    if sent || received { interrupt.signal() }
  }

  /// Whether a packet of so many payload bytes can be sent now. A device that must answer looks
  /// before it takes a request.
  public mutating func hasRoom(forPayload byteCount: Int) throws(RingError) -> Bool {
    try producer.free() >= Packet.byteCount(payload: byteCount)
  }

  /// Bytes that packets may take now, descriptors and trailers included (`Packet.byteCount`).
  public mutating func freeByteCount() throws(RingError) -> Int { try producer.free() }

  /// Asks for a signal at the next packet, or when there is room for an answer again. Returns
  /// true when there is something to do already.
  public mutating func arm(untilRoomFor byteCount: Int? = nil) -> Bool {
    flush()
    if isClosed { return true }
    // The deadline wakes us.
    if isStalled { return false }
    do throws(RingError) {
      if let byteCount {
        // Without room for an answer, requests that wait are no reason to stay awake.
        return try producer.waitForSpace(Packet.byteCount(payload: byteCount))
      }
      return try consumer.arm()
    } catch {
      // The next `receive` reports it.
      return true
    }
  }

  public mutating func disarm() { consumer.mask() }

  // MARK: - Faults

  /// When a held completion is due, or a pause is over.
  public var nextDeadline: UInt64 {
    min(faults.nextDeadline, stalledUntil == 0 ? .max : stalledUntil)
  }

  /// Sends the held completions that are due.
  public mutating func releaseHeld(now: UInt64) throws(RingError) {
    if stalledUntil <= now { stalledUntil = 0 }
    while let (payload, transactionID) = faults.due(now: now) {
      try write(.completion, unsafe payload.span.bytes, transactionID)
    }
  }

  /// Writes nonsense over the guest's ring, as a hostile host would.
  private mutating func scribble() {
    state.scribble()
    interrupt.signal()
  }
}

/// What a channel's device and the host share: the mapping of the ring, and whether it is over.
@safe
public final class HostChannelState: @unchecked Sendable {
  let isClosed = Atomic<Bool>(false)
  private let mapping: GuestMapping
  private let split: Int
  /// The doorbell is the guest's too, which could take the signal: the worker is told directly.
  private let wake: @Sendable () -> Void
  private let released: @Sendable () -> Void
  /// The device asks the host to take it back from all guests.
  let rescind: @Sendable () -> Void
  let offerSubchannels: @Sendable (UInt16) -> Void

  init(
    _ mapping: consuming GuestMapping, split: Int, wake: @escaping @Sendable () -> Void,
    rescind: @escaping @Sendable () -> Void,
    offerSubchannels: @escaping @Sendable (UInt16) -> Void = { _ in },
    released: @escaping @Sendable () -> Void
  ) {
    self.rescind = rescind
    self.offerSubchannels = offerSubchannels
    self.mapping = mapping
    self.split = split
    self.wake = wake
    self.released = released
  }

  /// The host tells the device to let go, and wakes it.
  func close() {
    isClosed.store(true, ordering: .sequentiallyConsistent)
    wake()
  }

  /// The device has let go.
  func release() { released() }

  /// A half of the mapping.
  @unsafe
  func ring(from offset: Int, byteCount: Int) -> BorrowedRingMemory {
    unsafe BorrowedRingMemory(start: mapping.start + offset, byteCount: byteCount)
  }

  func scribble() {
    // The ring to the guest: indices, then descriptors.
    let ring = unsafe mapping.start + split
    unsafe ring.storeBytes(of: 0xFFFF_FFF3, toByteOffset: 0, as: UInt32.self)
    unsafe (ring + 4096).initializeMemory(as: UInt8.self, repeating: 0xA5, count: 4096)
  }
}
