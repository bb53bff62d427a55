// SPDX-License-Identifier: Apache-2.0

public import BlockStorage
public import NVMeProtocol
import PCIFunction
public import VSC

/// A namespace on one queue pair, for programs that drive it in bursts from the worker's thread.
///
/// `read`, `write` and the others put requests into the submission queue, `next` returns what has
/// completed, and `publish` shows the controller what was put in. None of them counts a reference or
/// allocates (law 4).
@safe
public struct NVMeQueue: BlockQueue, ~Copyable {
  @usableFromInline var pair: QueuePair
  @usableFromInline var requests: Requests<NVMeRequest>
  @usableFromInline let depth: Int
  /// Bits of a command id that name the slot; those above are its generation (law 7).
  @usableFromInline let slotBits: UInt64
  @usableFromInline let timeout: UInt64
  @usableFromInline let namespace: UInt32
  @usableFromInline let geometry: DiskGeometry
  @usableFromInline let lists: UnsafeMutablePointer<UInt64>
  @usableFromInline let listPages: UnsafePointer<GPN>
  /// The controller takes SGLs, too.
  @usableFromInline let takesDescriptors: Bool
  @usableFromInline let state: ChannelState
  /// Requests are taken: the controller knows the queue.
  @usableFromInline var isOpen = true
  @usableFromInline var statistics = ChannelCounters()

  /// What the namespace is.
  public let information: DiskInformation
  /// Why the queue can be used no more, or nil while it can.
  public private(set) var failure: StorageError?
  /// Completions that came after their request had timed out.
  @usableFromInline var lateCompletions: UInt64 = 0

  /// - Parameters:
  ///   - pair: which the controller knows.
  ///   - state: of the controller; when it ends, so does the queue.
  init(
    _ pair: consuming QueuePair, namespace: UInt32, _ information: DiskInformation, depth: Int,
    timeout: UInt64, takesDescriptors: Bool, state: ChannelState
  ) {
    let depth = min(max(depth, 1), Int(pair.entries) - 1, Self.maximumDepth)
    var bits = 0
    while 1 << bits < depth { bits += 1 }
    self.depth = depth
    slotBits = UInt64(bits)
    // All ones are no command's id: error logs mean none by them.
    let last = UInt32(1) << UInt32(16 - bits) - 2
    requests = Requests(capacity: depth, lastGeneration: last)
    unsafe lists =
      pair.memory.lists?.start.assumingMemoryBound(to: UInt64.self)
      ?? pair.submissions.assumingMemoryBound(to: UInt64.self)
    unsafe listPages = pair.memory.lists?.pageNumbers ?? pair.memory.submissions.pageNumbers
    self.namespace = namespace
    self.information = information
    geometry = information.geometry
    self.timeout = timeout
    self.takesDescriptors = takesDescriptors
    self.state = state
    self.pair = pair
  }

  /// An id has 16 bits: with so many slots a slot still has 14 generations.
  public static var maximumDepth: Int { 4096 }

  public var disk: DiskInformation? { information }
  public var counters: ChannelCounters { statistics }
  /// Entries taken from the completion queue so far.
  @inlinable public var received: UInt64 { statistics.received }
  /// Requests under way, those included that timed out and whose completion has not come.
  @inlinable public var count: Int { requests.count }
  @inlinable public var abandoned: Int { requests.abandoned }
  @inlinable public var isFull: Bool { requests.count >= depth }
  /// The queue's number at the controller.
  var number: UInt16 { pair.number }

  // MARK: - Sending

  /// Reads `blockCount` blocks to the start of the buffer.
  ///
  /// - Parameters:
  ///   - buffer: nil after success; after an error it is still the caller's.
  ///   - tag: comes back with the completion.
  @inlinable
  public mutating func read(
    at block: UInt64, blockCount: Int, into buffer: inout DMABuffer<HostVisible>?, tag: UInt64
  ) throws(StorageError) {
    let byteCount = try check(block, blockCount)
    let command = NVMeCommand(.read, namespace: namespace, block: block, count: blockCount)
    try submit(command, byteCount: byteCount, buffer: &buffer, tag: tag)
  }

  /// Writes `blockCount` blocks from the start of the buffer.
  ///
  /// - Parameter forced: on stable storage before it completes.
  @inlinable
  public mutating func write(
    at block: UInt64, blockCount: Int, from buffer: inout DMABuffer<HostVisible>?, tag: UInt64,
    forced: Bool = false
  ) throws(StorageError) {
    let byteCount = try check(block, blockCount)
    let command = NVMeCommand(
      .write, namespace: namespace, block: block, count: blockCount, forced: forced)
    try submit(command, byteCount: byteCount, buffer: &buffer, tag: tag)
  }

  /// Brings all writes that have completed to stable storage.
  @inlinable
  public mutating func flush(tag: UInt64) throws(StorageError) {
    var none: DMABuffer<HostVisible>?
    try submit(
      NVMeCommand(.flush, namespace: namespace), byteCount: 0, buffer: &none, tag: tag)
  }

  @inlinable
  func check(_ block: UInt64, _ blockCount: Int) throws(StorageError) -> Int {
    let maximum = geometry.maximumTransferByteCount / geometry.blockByteCount
    guard blockCount > 0, blockCount <= maximum else { throw .badLength(blockCount) }
    let byteCount = blockCount &* geometry.blockByteCount
    guard block < geometry.blockCount, UInt64(blockCount) <= geometry.blockCount &- block else {
      throw .outOfRange(
        offset: block.multipliedReportingOverflow(by: UInt64(geometry.blockByteCount))
          .partialValue, byteCount: byteCount, capacity: geometry.byteCount)
    }
    return byteCount
  }

  /// Puts in a command. With a buffer, its first `byteCount` bytes are given to the device.
  @inlinable
  mutating func submit(
    _ command: NVMeCommand, byteCount: Int, buffer: inout DMABuffer<HostVisible>?, tag: UInt64
  ) throws(StorageError) {
    guard isOpen, requests.count < depth, let id = requests.nextID else { throw .wouldBlock }
    let slot = id & 0xFFFF_FFFF
    var command = command
    command.identifier = UInt16(truncatingIfNeeded: (id >> 32) << slotBits | slot)
    var lent = buffer.take()
    if var target = lent.take() {
      guard byteCount > 0, byteCount <= target.byteCount,
        describe(target, byteCount, slot: Int(slot), in: &command)
      else {
        buffer = consume target
        throw .badLength(byteCount)
      }
      target.lend(byteCount)
      lent = consume target
    }
    pair.push(command)
    statistics.sent &+= 1
    requests.insert(
      NVMeRequest(
        tag: tag, byteCount: byteCount, identifier: command.identifier, buffer: lent),
      deadline: MonotonicClock.coarse() &+ timeout)
  }

  /// Tells where the data lies: the first page, then the second one or a list of all that follow; or, where
  /// the controller takes it, the one stretch that they are.
  ///
  /// - Returns: false when there are more pages than a list of this queue holds.
  @inlinable
  func describe(
    _ buffer: borrowing DMABuffer<HostVisible>, _ byteCount: Int, slot: Int,
    in command: inout NVMeCommand
  ) -> Bool {
    let first = buffer.deviceAddress(ofPage: 0)
    command.data1 = first
    let pages = (Int(first & 4095) &+ byteCount &+ 4095) >> 12
    guard pages > 1 else { return true }
    guard pages > 2 else {
      command.data2 = buffer.deviceAddress(ofPage: 1)
      return true
    }
    if takesDescriptors, Self.isOneStretch(buffer, pages) {
      command.descriptor = NVMeDescriptor(
        address: first, length: UInt32(truncatingIfNeeded: byteCount))
      return true
    }
    let listByteCount = pair.memory.listByteCount
    guard pages &- 1 <= listByteCount / 8 else { return false }
    // Safe: each slot has a list of so many bytes, and the slot is below the number of them.
    let start = slot &* listByteCount
    let list = unsafe lists + start / 8
    for index in 1..<pages {
      unsafe list[index &- 1] = buffer.deviceAddress(ofPage: index).littleEndian
    }
    command.data2 = unsafe listPages[start >> 12] &<< 12 | UInt64(start & 4095)
    return true
  }

  /// Whether the device finds the buffer's first pages one after the other.
  @inlinable
  static func isOneStretch(_ buffer: borrowing DMABuffer<HostVisible>, _ pages: Int) -> Bool {
    var expected = buffer.deviceAddress(ofPage: 0) & ~4095
    for index in 1..<pages {
      expected &+= 4096
      if buffer.deviceAddress(ofPage: index) != expected { return false }
    }
    return true
  }

  // MARK: - Receiving

  /// The next request that has ended, or nil when there is none now. When the controller is over, each
  /// request that was under way comes out once, failed.
  @inlinable
  public mutating func next() -> StorageCompletion<HostVisible>? {
    // A device that never stops to complete what was not asked must not keep the worker here.
    var left = Int(pair.entries)
    while left > 0, isOpen, let completion = pair.pop() {
      left &-= 1
      statistics.received &+= 1
      guard completion.queue == pair.number else {
        statistics.malformed &+= 1
        continue
      }
      let identifier = UInt64(completion.identifier)
      let slot = identifier & (1 &<< slotBits &- 1)
      guard var request = requests.complete((identifier &>> slotBits) &<< 32 | slot) else {
        statistics.unknownCompletions &+= 1
        continue
      }
      if var buffer = request.payload.buffer.take() {
        buffer.takeBack()
        request.payload.buffer = consume buffer
      }
      // Its user was told that it timed out; the buffer is free from now on.
      if request.wasAbandoned {
        lateCompletions &+= 1
        continue
      }
      let status = NVMeStatus(field: completion.status)
      return StorageCompletion(
        tag: request.payload.tag,
        result: status.condition == .success
          ? .success(request.payload.byteCount) : .failure(.rejected(status)),
        buffer: request.payload.buffer.take())
    }
    if state.ended == nil { return nil }
    return ended()
  }

  /// After the controller's end.
  @usableFromInline
  mutating func ended() -> StorageCompletion<HostVisible>? {
    if failure == nil { failure = .channel(.ended(state.ended ?? .closed)) }
    return nextExpired(now: .max)
  }

  // MARK: - Publishing, sleeping, deadlines

  /// Shows the controller what was put in, and gives it back the entries that were taken out. Call it
  /// once after a burst.
  @inlinable
  public mutating func publish() {
    guard isOpen else { return }
    statistics.doorbells &+= UInt64(truncatingIfNeeded: pair.publish())
  }

  /// There is an interrupt for each burst of completions, asked for or not, and it wakes the worker once.
  ///
  /// - Returns: true when there is something to do already.
  public mutating func arm() -> Bool {
    publish()
    if state.ended != nil { return failure == nil || requests.abandoned != requests.count }
    return isOpen && pair.hasCompletion
  }

  public mutating func disarm() {}

  /// When `nextExpired` is to be called; nanoseconds of the monotonic clock.
  public var nextDeadline: UInt64 { requests.nextDeadline }

  /// The next request that is late, or nil when there is none. The device keeps its buffer.
  public mutating func nextExpired(now: UInt64) -> StorageCompletion<HostVisible>? {
    let error = failure ?? .timedOut
    var expired: (tag: UInt64, identifier: UInt16)?
    requests.expire(now: now, limit: 1) { request in
      expired = (request.tag, request.identifier)
    }
    guard let expired else { return nil }
    lastExpired = expired.identifier
    return StorageCompletion(tag: expired.tag, result: .failure(error), buffer: nil)
  }

  /// The command id of what `nextExpired` returned last.
  var lastExpired: UInt16 = 0

  // MARK: - Resets

  /// The controller is about to be reset: nothing is put in or taken out from now on.
  mutating func suspend() { isOpen = false }

  /// The controller was reset, and has no request any more; it will know the queue anew. Calls `body` for
  /// each that was under way and whose user was not told yet; its buffer is free.
  mutating func restart(_ body: (UInt64) -> Void) {
    pair.restart()
    // `drain` ends all of them: their buffers are taken back, since the controller is quiet.
    requests.drainWithBuffers(body)
  }

  /// The controller knows the queue again.
  mutating func resume() { isOpen = true }
}

extension Requests where Payload == NVMeRequest {
  fileprivate mutating func drainWithBuffers(_ body: (UInt64) -> Void) {
    drainAll { request, wasAbandoned in
      var request = request
      if var buffer = request.buffer.take() { buffer.takeBack() }
      if !wasAbandoned { body(request.tag) }
    }
  }
}

/// What a queue keeps of a request under way.
@usableFromInline
@frozen
struct NVMeRequest: ~Copyable {
  @usableFromInline let tag: UInt64
  @usableFromInline let byteCount: Int
  @usableFromInline let identifier: UInt16
  @usableFromInline var buffer: DMABuffer<HostVisible>?

  @inlinable
  init(
    tag: UInt64, byteCount: Int, identifier: UInt16,
    buffer: consuming DMABuffer<HostVisible>?
  ) {
    self.tag = tag
    self.byteCount = byteCount
    self.identifier = identifier
    self.buffer = buffer
  }
}
