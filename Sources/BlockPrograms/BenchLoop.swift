// SPDX-License-Identifier: Apache-2.0

public import BlockStorage
import NVMe
import ProgramSupport
import StorageVSC
import Synchronization
public import VSC

/// Keeps `depth` requests under way until the time is over.
@safe
public struct BenchLoop<Queue: BlockQueue & ~Copyable>: Pollable, ~Copyable {
  private var queue: Queue
  private var pool: DMAPool<Queue.Memory>
  private let plan: BenchPlan
  private let gate: BenchGate
  /// Which of the channels this is.
  private let index: Int
  private let bounces: Bool
  private let whenReady: @Sendable (borrowing Queue) -> Void
  private var latencies = Latencies()
  /// For each tag: when its request began, and whether it reads.
  private let begun: UnsafeMutablePointer<UInt64>
  private let isRead: UnsafeMutablePointer<Bool>
  /// The application's own memory, for a bounced measurement.
  private let application: UnsafeMutableRawBufferPointer
  private var isRunning = false
  private var isAnnounced = false
  private var published: UInt64 = 0
  private var limit = UInt64.max
  private var start: UInt64 = 0
  private var stop: UInt64 = .max
  private var slots: UInt64 = 0
  private var blocksPerRequest = 1
  private var next: UInt64 = 0
  private var random: UInt64 = 0x9E37_79B9_7F4A_7C15
  /// Copies that were timed: one in sixteen, as they come, with cold and warm memory.
  private var copies: UInt64 = 0
  private var timedCopies: UInt64 = 0
  private var timedNanoseconds: UInt64 = 0

  /// - Parameter whenReady: called when the queue's start-up is over.
  public init(
    _ queue: consuming Queue, _ pool: consuming DMAPool<Queue.Memory>, isBounced: Bool,
    _ plan: BenchPlan, _ gate: BenchGate, index: Int,
    whenReady: @escaping @Sendable (borrowing Queue) -> Void = { _ in }
  ) {
    bounces = plan.bounces || isBounced
    self.whenReady = whenReady
    self.queue = queue
    self.pool = pool
    self.plan = plan
    self.gate = gate
    self.index = index
    random &+= UInt64(index) &* 0xBF58_476D_1CE4_E5B9
    unsafe begun = .allocate(capacity: plan.depth)
    unsafe begun.initialize(repeating: 0, count: plan.depth)
    unsafe isRead = .allocate(capacity: plan.depth)
    unsafe isRead.initialize(repeating: true, count: plan.depth)
    unsafe application = .allocate(byteCount: plan.byteCount * plan.depth, alignment: 4096)
    unsafe application.initializeMemory(as: UInt8.self, repeating: 0)
  }

  deinit {
    unsafe begun.deallocate()
    unsafe isRead.deallocate()
    unsafe application.deallocate()
  }

  // For the reason that `Pollable.poll` tells.
  @_specialize(where Queue == StorageQueue<HostVisible, HostVisible>)
  @_specialize(where Queue == StorageQueue<Encrypted, HostVisible>)
  @_specialize(where Queue == StorageQueue<Encrypted, Encrypted>)
  @_specialize(where Queue == NVMeQueue)
  public mutating func poll(budget: Int) -> Int? {
    let before = queue.received
    var work = 0
    while work < budget, var completion = queue.next() {
      work &+= 1
      if case .failure(let error) = completion.result { return finish(.failure(.storage(error))) }
      let now = MonotonicClock.now()
      let slot = Int(truncatingIfNeeded: completion.tag)
      // Safe: a completion's tag is one of ours, below the depth.
      unsafe latencies.record(now &- begun[slot])
      if now >= stop || latencies.count &+ UInt64(queue.count) >= limit { continue }
      guard var buffer = completion.buffer.take() else { continue }
      if bounces {
        if unsafe isRead[slot] { copyOut(slot, &buffer) }
        // As where each request has a buffer of its own: this one is scrubbed. There is one more than
        // requests.
        guard let fresh = pool.take() else { continue }
        buffer = fresh
      }
      if let failure = send(slot, buffer, now) { return finish(.failure(failure)) }
    }
    if let error = queue.failure { return finish(.failure(.storage(error))) }
    if !isRunning, let disk = queue.disk {
      if !isAnnounced {
        isAnnounced = true
        whenReady(queue)
      }
      if gate.isOpen, let failure = begin(disk) { return finish(.failure(failure)) }
    }
    queue.publish()
    gate.publish(latencies.count &- published)
    published = latencies.count
    if isRunning, queue.count == 0 { return finish(.success(part())) }
    return max(work, Int(truncatingIfNeeded: queue.received &- before))
  }

  public mutating func arm() -> Bool { queue.arm() }
  public mutating func disarm() { queue.disarm() }
  public var nextDeadline: UInt64 { queue.nextDeadline }

  public mutating func expire(now: UInt64) {
    if let late = queue.nextExpired(now: now) {
      if case .failure(let error) = late.result { _ = finish(.failure(.storage(error))) }
    }
  }

  private func finish(_ outcome: Result<BenchPart, BenchFailure>) -> Int? {
    gate.finish(index, outcome)
    return nil
  }

  // MARK: - Requests

  private mutating func begin(_ disk: DiskInformation) -> BenchFailure? {
    let geometry = disk.geometry
    guard plan.byteCount % geometry.blockByteCount == 0 else {
      return .plan(
        "--block-size \(plan.byteCount) is no multiple of the disk's block, "
          + "\(geometry.blockByteCount) bytes")
    }
    guard plan.byteCount <= geometry.maximumTransferByteCount else {
      return .plan(
        "--block-size \(plan.byteCount) is more than the host moves at once, "
          + "\(geometry.maximumTransferByteCount) bytes")
    }
    if plan.pattern.writes, disk.isReadOnly { return .storage(.readOnly) }
    blocksPerRequest = plan.byteCount / geometry.blockByteCount
    slots = geometry.blockCount / UInt64(blocksPerRequest)
    guard slots > 0 else {
      return .plan("--block-size \(plan.byteCount) is more than the disk has")
    }
    let channels = UInt64(gate.channelCount)
    limit = plan.requests / channels + (UInt64(index) < plan.requests % channels ? 1 : 0)
    next = slots / channels &* UInt64(index)
    isRunning = true
    start = MonotonicClock.now()
    stop = start &+ plan.nanoseconds
    for slot in 0..<plan.depth where UInt64(slot) < limit {
      guard let buffer = pool.take() else { break }
      if let failure = send(slot, buffer, MonotonicClock.now()) { return failure }
    }
    return nil
  }

  private mutating func send(
    _ slot: Int, _ buffer: consuming DMABuffer<Queue.Memory>, _ now: UInt64
  ) -> BenchFailure? {
    random ^= random << 13
    random ^= random >> 7
    random ^= random << 17
    let reads = random >> 32 % 100 < plan.pattern.readShare
    var place = next
    if plan.pattern.isRandom {
      // The high half of the product: even over all slots, without a division.
      place = slots.multipliedFullWidth(by: random).high
    } else {
      next = next &+ 1 == slots ? 0 : next &+ 1
    }
    unsafe begun[slot] = now
    unsafe isRead[slot] = reads
    let block = place &* UInt64(blocksPerRequest)
    do throws(StorageError) {
      if reads {
        var given = Optional.some(buffer)
        try queue.read(
          at: block, blockCount: blocksPerRequest, into: &given, tag: UInt64(slot))
      } else {
        if bounces { copyIn(slot, &buffer) }
        var given = Optional.some(buffer)
        try queue.write(
          at: block, blockCount: blocksPerRequest, from: &given, tag: UInt64(slot), forced: false)
      }
      return nil
    } catch {
      return .storage(error)
    }
  }

  private mutating func copyIn(_ slot: Int, _ buffer: inout DMABuffer<Queue.Memory>) {
    let begun = beginCopy()
    buffer.copyIn(
      unsafe RawSpan(_unsafeBytes: UnsafeRawBufferPointer(memory(of: slot))))
    endCopy(begun)
  }

  private mutating func copyOut(_ slot: Int, _ buffer: inout DMABuffer<Queue.Memory>) {
    let begun = beginCopy()
    var target = unsafe MutableRawSpan(_unsafeBytes: memory(of: slot))
    buffer.moveOut(from: 0, into: &target)
    endCopy(begun)
  }

  /// 0 for a copy that is not timed.
  private mutating func beginCopy() -> UInt64 {
    copies &+= 1
    return copies & 15 == 0 ? MonotonicClock.now() : 0
  }

  private mutating func endCopy(_ begun: UInt64) {
    guard begun != 0 else { return }
    timedNanoseconds &+= MonotonicClock.now() &- begun
    timedCopies &+= 1
  }

  private func memory(of slot: Int) -> UnsafeMutableRawBufferPointer {
    let start = slot * plan.byteCount
    return unsafe UnsafeMutableRawBufferPointer(
      rebasing: application[start..<start + plan.byteCount])
  }

  // MARK: - The report

  private mutating func part() -> BenchPart {
    // Copies that are made to time them only do not count.
    let statistics = pool.statistics
    return BenchPart(
      latencies: latencies.record, nanoseconds: MonotonicClock.now() &- start,
      requests: latencies.count, isBounced: bounces, memory: "\(Queue.Memory.memory)",
      copyNanoseconds: copyNanoseconds(), doorbells: queue.counters.doorbells,
      statistics: statistics)
  }

  /// One copy of a block between the application's memory and DMA memory: as it was during the
  /// measurement, or, if there was none, now, with warm memory.
  private mutating func copyNanoseconds() -> Double {
    if timedCopies == 0, var buffer = pool.take() {
      for round in 0..<16_000 { copyOut(round % plan.depth, &buffer) }
    }
    guard timedCopies > 0 else { return 0 }
    // What reading the clock twice costs is no copy.
    let start = MonotonicClock.now()
    for _ in 0..<1000 { _ = MonotonicClock.now() }
    let clock = Double(MonotonicClock.now() &- start) / 1000
    return max(Double(timedNanoseconds) / Double(timedCopies) - clock, 0)
  }
}
