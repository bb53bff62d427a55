// SPDX-License-Identifier: Apache-2.0

import BalloonProtocol
import Platform
import VSC

/// The balloon on its worker's thread: the channel, the protocol and the memory together.
///
/// Packets are taken one by one: the next one stays in the ring until all that the last one asked
/// for is done and its answers are sent. A host that floods the channel fills its own ring.
struct BalloonService<Ring: Visibility, External: Visibility>: Pollable, ~Copyable {
  /// What is being done, a slice in each poll.
  private enum Job {
    case none
    case inflate(requested: UInt64, left: UInt64, given: UInt64, small: Bool)
    /// The ranges that are left, the last first.
    case deflate([PageRange], returned: UInt64)
  }

  /// Huge pages in one poll: to clear one takes about a tenth of a millisecond, and to find one
  /// much longer when memory is fragmented.
  private static var slice: Int { 4 }
  /// Pages given back in one poll; each is a system call or two.
  private static var releaseSlice: Int { 256 }

  private var channel: Channel<Ring, External>
  private var core: BalloonCore
  private var memory: PinnedMemory?
  private let limits: BalloonLimits
  private let addsBallooned: Bool
  private var job = Job.none
  /// Messages that wait for room in the ring, the next one last.
  private var outbox: [[UInt8]] = []
  private var status = BalloonStatus()
  private var failure: BalloonError?
  private let life: BalloonLife

  init(
    _ channel: consuming Channel<Ring, External>, core: BalloonCore,
    memory: consuming PinnedMemory?, problem: BalloonMemoryError?, limits: BalloonLimits,
    life: BalloonLife
  ) {
    self.channel = channel
    self.core = core
    self.memory = memory
    self.limits = limits
    self.life = life
    // Where each mapping counts as committed, the system has counted the balloon already.
    addsBallooned = !SystemMemory.countsEveryMapping
    status.memoryProblem = problem?.description
    status.floorPages = limits.floor
    status.maximumPages = limits.maximum
    let actions = self.core.start(now: MonotonicClock.now())
    perform(actions)
  }

  deinit { life.end(failure ?? .channel(channelEnd), status) }

  private var channelEnd: ChannelError { .ended(channel.ended ?? .closed) }

  // MARK: - Pollable

  mutating func poll(budget: Int) -> Int? {
    do throws(ChannelError) {
      var work = try send()
      work += continueJob()
      while work < budget, isIdle, failure == nil, let packet = try channel.receive() {
        work += 1
        take(packet)
        work += try send()
      }
      if !isIdle, let end = channel.ended { throw .ended(end) }
      channel.flush()
      // A worker that never sleeps looks at its clock seldom.
      if work > 0, MonotonicClock.coarse() >= core.deadline { expire(now: MonotonicClock.now()) }
      return failure == nil ? work : nil
    } catch {
      failure = failure ?? .channel(error)
      return nil
    }
  }

  private var isIdle: Bool {
    if case .none = job { outbox.isEmpty } else { false }
  }

  mutating func arm() -> Bool {
    if case .none = job {
      return channel.arm(untilFree: outbox.last.map { Packet.byteCount(payload: $0.count) } ?? 0)
    }
    // There is work left only when `poll` is called again.
    return outbox.isEmpty ? true : channel.arm(untilFree: 4096 + 64)
  }

  mutating func disarm() { channel.disarm() }

  // After a failure the next poll ends this value; it comes at once.
  var nextDeadline: UInt64 { failure == nil ? core.deadline : 0 }

  mutating func expire(now: UInt64) {
    guard failure == nil else { return }
    switch core.expire(now: now) {
    case .nothing: break
    case .failed(let error): failure = error
    case .reportDue: report()
    }
    channel.flush()
  }

  // MARK: - Messages

  /// Sends what waits, as far as there is room.
  private mutating func send() throws(ChannelError) -> Int {
    var work = 0
    while let message = outbox.last {
      do throws(ChannelError) {
        try channel.send(unsafe message.span.bytes)
      } catch .ring(.full) {
        break
      }
      outbox.removeLast()
      work += 1
    }
    return work
  }

  private mutating func take(_ packet: Packet) {
    do throws(BalloonProtocolError) {
      guard packet.type == .inBand else { throw .packetType(packet.type.rawValue) }
      var next = core
      let actions = try next.receive(channel.payload(of: packet), now: MonotonicClock.now())
      core = next
      perform(actions)
    } catch {
      channel.counters.malformed &+= 1
      switch error {
      case .malformed, .packetType: status.malformedMessages &+= 1
      case .unexpected: status.unexpectedMessages &+= 1
      case .unknown: status.unknownMessages &+= 1
      }
      tell(.dropped(error))
    }
  }

  private mutating func perform(_ actions: [BalloonCore.Action]) {
    var messages: [[UInt8]] = []
    for action in actions {
      switch action {
      case .send(let message): messages.append(message)
      case .ready(let version):
        status.protocolVersion = "\(version)"
        status.areReportsSuppressed = core.areReportsSuppressed
        tell(.ready)
        life.ready()
      case .take(let count): beginInflating(count)
      case .release(let ranges):
        status.unballoonRequests &+= 1
        job = .deflate(ranges.reversed(), returned: 0)
      case .refusedHotAdd:
        status.refusedHotAdds &+= 1
        tell(.refusedHotAdd)
      case .maximumPageCount(let count):
        status.hostMaximumPages = count
        tell(.hostInformation)
      case .hostError:
        status.hostErrors &+= 1
        tell(.hostError)
      case .fail(let error): failure = error
      }
    }
    outbox.insert(contentsOf: messages.reversed(), at: 0)
  }

  private mutating func tell(_ event: BalloonEvent) {
    if let pages = memory?.pageCount { status.balloonedPages = pages }
    if let pages = memory?.heldPageCount { status.heldPages = pages }
    if let pages = memory?.hugePageCount { status.hugePages = pages }
    life.tell(event, status)
  }

  private mutating func report() {
    let system: SystemMemory
    do throws(BalloonMemoryError) {
      system = try SystemMemory.now()
    } catch {
      status.memoryProblem = error.description
      status.reportsSkipped &+= 1
      return
    }
    // A host that does not read gets no queue of old reports.
    guard outbox.isEmpty else {
      status.reportsSkipped &+= 1
      return
    }
    // As Linux does: what the balloon holds counts as committed, and so does the floor, so that
    // the host leaves that much.
    let taken = addsBallooned ? takenPages() : 0
    let committed = system.committed &+ taken &+ min(limits.floor, system.total)
    let before = outbox.count
    let message = core.report(available: system.available, committed: committed)
    perform([message])
    do throws(ChannelError) {
      _ = try send()
    } catch {
      failure = .channel(error)
      return
    }
    if outbox.count > before {
      outbox.removeLast()
      status.reportsSkipped &+= 1
      return
    }
    status.reportsSent &+= 1
    status.lastReport = .init(availablePages: system.available, committedPages: committed)
    tell(.reported)
  }

  /// Pages that the system does not have.
  private mutating func takenPages() -> UInt64 {
    (memory?.pageCount ?? 0) &+ (memory?.heldPageCount ?? 0)
  }

  // MARK: - Memory

  private mutating func beginInflating(_ requested: UInt32) {
    status.balloonRequests &+= 1
    status.requestedPages &+= UInt64(requested)
    var allowed: UInt64 = 0
    if memory != nil, let system = try? SystemMemory.now() {
      status.memoryProblem = nil
      allowed = limits.allowance(requested: requested, taken: takenPages(), memory: system)
    }
    job = .inflate(requested: UInt64(requested), left: allowed, given: 0, small: false)
  }

  /// Does a slice of the job. Returns the work that this was.
  private mutating func continueJob() -> Int {
    // Answers first: what the host does not read must not pile up here.
    guard outbox.isEmpty, failure == nil else { return 0 }
    switch job {
    case .none: return 0
    case .inflate(let requested, let left, let given, let small):
      inflate(requested, left, given, small)
    case .deflate(let ranges, let returned):
      deflate(ranges, returned)
    }
    return 1
  }

  private mutating func inflate(
    _ requested: UInt64, _ allowed: UInt64, _ before: UInt64, _ wasSmall: Bool
  ) {
    var (left, given, small) = (allowed, before, wasSmall)
    var ranges: [PageRange] = []
    do throws(BalloonMemoryError) {
      // Others take memory meanwhile, too.
      let system = try SystemMemory.now()
      left = min(
        left, limits.allowance(requested: .max, taken: takenPages(), memory: system))
      for _ in 0..<Self.slice where left > 0 {
        small = small || left < PinnedMemory.blockPageCount
        let count = try memory?.take(left, small: small, &ranges) ?? 0
        if count == 0, small { left = 0 }
        // No huge page is free: small ones from here on.
        if count == 0 { small = true }
        left -= min(count, left)
        given &+= count
      }
    } catch {
      status.memoryProblem = error.description
      left = 0
    }
    if left > 0 {
      job = .inflate(requested: requested, left: left, given: given, small: small)
      let actions = core.inflated(ranges, isLast: false)
      perform(actions)
      return
    }
    job = .none
    if given < requested { status.partialAnswers &+= 1 }
    if given == 0, requested > 0 { status.refusedRequests &+= 1 }
    let actions = core.inflated(ranges, isLast: true)
    perform(actions)
    tell(.inflated(requestedPages: requested, givenPages: given))
  }

  private mutating func deflate(_ ranges: [PageRange], _ before: UInt64) {
    var (ranges, returned) = (ranges, before)
    var budget = Self.releaseSlice
    while budget > 0, let range = ranges.popLast() {
      let result =
        memory?.release(range, maximumUnits: budget) ?? (pages: 0, units: 0, rest: nil)
      // A range of nothing is work, too.
      budget -= max(result.units, 1)
      returned &+= result.pages
      status.returnedPages &+= result.pages
      let done = range.count &- (result.rest?.count ?? 0)
      status.foreignPages &+= done &- result.pages
      if let rest = result.rest { ranges.append(rest) }
    }
    guard ranges.isEmpty else {
      job = .deflate(ranges, returned: returned)
      return
    }
    job = .none
    let actions = core.deflated()
    perform(actions)
    tell(.deflated(pages: returned))
  }
}

/// What the service tells those who are on other threads.
final class BalloonLife: Sendable {
  let started = Promise<BalloonError?>()
  private let whenChanged: @Sendable (BalloonEvent, BalloonStatus) -> Void

  init(_ whenChanged: @escaping @Sendable (BalloonEvent, BalloonStatus) -> Void) {
    self.whenChanged = whenChanged
  }

  func ready() { started.keep(nil) }

  func tell(_ event: BalloonEvent, _ status: BalloonStatus) { whenChanged(event, status) }

  func end(_ error: BalloonError, _ status: BalloonStatus) {
    whenChanged(.ended(error), status)
    started.keep(error)
  }
}
