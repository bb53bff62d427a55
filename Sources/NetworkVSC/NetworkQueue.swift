// SPDX-License-Identifier: Apache-2.0

public import NetworkProtocol
public import Synchronization
public import VSC

/// One queue of a network device, on one channel, for a program that drives it in bursts from the worker's
/// thread.
///
/// `receive` fills a burst with frames, and does all else that the channel brings: the start-up of the
/// primary channel, completions, control messages. So it is to be called in each poll, by those who only
/// send, too. `send` takes frames, and `publish` shows the host what was sent and gives back what was
/// received. None of them counts a reference or allocates for a packet (law 4).
@safe
public struct NetworkQueue<Ring: Visibility, External: Visibility>: ~Copyable {
  @usableFromInline
  enum Phase { case new, starting, ready, failed }

  /// 0 is the primary channel's.
  public let number: Int
  @usableFromInline var channel: Channel<Ring, External>
  @usableFromInline var requests: Requests<SendRequest<External>>
  @usableFromInline var frames: DMAPool<External>
  @usableFromInline var phase = Phase.new
  // Copied to a local before its pointee is changed by a method: Swift 6.3.1 can't compile that under
  // ThreadSanitizer otherwise.
  @usableFromInline let core: UnsafeMutablePointer<ReceiveCore>
  let coreOwner: ReceiveCoreOwner
  @usableFromInline var sections = SendSections()
  /// Private memory that headers are copied to before they are looked at.
  @usableFromInline var header = HeaderCopy()
  /// Bytes of the receive buffer.
  @usableFromInline let receiveByteCount: Int

  // The packet of the host whose ranges are being read.
  @usableFromInline var packet: Packet?
  @usableFromInline var slot: UInt32 = 0
  @usableFromInline var rangeIndex = 0
  @usableFromInline var rangesLeft = 0
  @usableFromInline var coalescing = Coalescing()

  // What was agreed on.
  @usableFromInline var messageByteCount = 40
  @usableFromInline var packetsPerMessage: UInt32 = 1
  @usableFromInline var alignmentMask = 7
  /// Bytes of the largest frame that is sent, Ethernet header included.
  public internal(set) var maximumFrameByteCount = 0
  /// Bytes of the largest frame that the host cuts into segments; 0 where it does not.
  public internal(set) var maximumLargeSendIPv4 = 0
  public internal(set) var maximumLargeSendIPv6 = 0
  @usableFromInline let timeout: UInt64
  @usableFromInline var counts = NetworkQueueStatistics()
  /// Bytes of the packet for which the ring had no room.
  @usableFromInline var blockedByteCount = 0
  @usableFromInline let sendTable: SendTable
  @usableFromInline let mail: MailFlag

  /// Why the queue can be used no more, or nil while it can.
  public internal(set) var failure: NetworkError?

  let life: QueueLife
  let mailbox: NetworkMailbox
  let sendBuffer: SharedBuffer<External>
  /// Queues that the sections are divided among.
  let shares: Int
  let isIsolated: Bool
  /// The start-up of a primary channel, until it is over.
  var negotiation: NetworkNegotiation?
  /// Queues that the host has granted, and those that are open; 0 until that is known.
  var grantedCount = 1
  var openCount = 0
  /// What the start-up led to: more than that the host is never asked for.
  var agreedOffloads = NetworkOffloads()
  /// What the host said before all queues were open.
  var earlyTable: SendIndirectionTable?
  var stepStart: UInt64 = 0
  var stepReported: UInt64 = 0
  /// SETs that have not been answered, by their request id.
  var settings: [UInt32: Setting] = [:]
  var nextSetting: UInt32 = 0x1000_0000
  var dataPathSwitch: (path: NVSPDataPath, promise: Promise<NetworkError?>)?
  /// In-band packets that the host wants completed.
  var owed: [UInt64] = []

  struct Setting {
    var promise: Promise<NetworkError?>
    var deadline: UInt64
  }

  /// What the queues of a device begin with.
  struct Parts: Sendable {
    var configuration: NetworkConfiguration
    var receiveBuffer: SharedBuffer<External>
    var sendBuffer: SharedBuffer<External>
    var sendTable: SendTable
    var life: NetworkLife
    /// Queues at most.
    var queueCount: Int
    var isIsolated: Bool
  }

  static var slotCount: Int { 2048 }
  /// Requests beside sections and frames.
  private static var reserve: Int { 16 }

  /// - Parameter agreement: nil for the primary channel, whose start-up makes it.
  init(
    _ channel: consuming Channel<Ring, External>, _ frames: consuming DMAPool<External>,
    _ parts: Parts, _ mailbox: NetworkMailbox, number: Int, agreement: NetworkAgreement?
  ) {
    let configuration = parts.configuration
    self.number = number
    self.channel = channel
    let scrubs = frames.isBounced
    self.frames = frames
    self.mailbox = mailbox
    mail = mailbox.flag
    life = QueueLife(parts.life, mailbox)
    sendTable = parts.sendTable
    sendBuffer = parts.sendBuffer
    shares = max(parts.queueCount, 1)
    isIsolated = parts.isIsolated
    timeout = configuration.timeout
    receiveByteCount = parts.receiveBuffer.byteCount
    let owner = unsafe ReceiveCoreOwner(
      parts.receiveBuffer.baseAddress, parts.receiveBuffer.owner, slotCount: Self.slotCount,
      scrubs: scrubs)
    unsafe core = owner.core
    coreOwner = owner
    // Sections are at least 128 bytes, so a share of them may be more than a table can hold.
    requests = Requests(
      capacity: min(parts.sendBuffer.byteCount / 1024 / shares, 8192) + configuration.frameBuffers
        + Self.reserve)
    counts.number = number
    if let agreement {
      adopt(agreement)
      phase = .ready
    } else {
      negotiation = NetworkNegotiation(
        configuration,
        NetworkNegotiation.Buffers(
          receiveGPADL: parts.receiveBuffer.gpadl.rawValue,
          receiveByteCount: parts.receiveBuffer.byteCount,
          sendGPADL: parts.sendBuffer.gpadl.rawValue, sendByteCount: parts.sendBuffer.byteCount),
        wantedQueues: parts.queueCount, isIsolated: parts.isIsolated)
    }
  }

  mutating func adopt(_ agreement: NetworkAgreement) {
    messageByteCount = agreement.version.messageByteCount
    packetsPerMessage = UInt32(agreement.packetsPerMessage)
    alignmentMask = agreement.alignment - 1
    maximumFrameByteCount = agreement.mtu + 14
    agreedOffloads = agreement.offloads
    use(agreement.offloads)
    let share = min(agreement.sectionCount / shares, requests.capacity - frames.available - 16)
    sections = unsafe SendSections(
      sendBuffer.baseAddress, owner: sendBuffer.owner, first: number * share,
      count: max(share, 0), byteCount: agreement.sectionByteCount,
      limit: agreement.maximumTransferByteCount)
  }

  mutating func use(_ offloads: NetworkOffloads) {
    maximumLargeSendIPv4 = offloads.ipv4LargeSend
    maximumLargeSendIPv6 = offloads.ipv6LargeSend
  }

  // MARK: - What it is

  /// The start-up is over: frames can be sent.
  @inlinable public var isReady: Bool { phase == .ready }
  /// Packets taken from the ring so far: a `poll` that took any has worked and must tell its worker so.
  @inlinable public var received: UInt64 { channel.counters.received }
  /// Whether the link is up, as the host told last.
  public var isLinkUp: Bool { life.shared.information.isLinkUp }
  /// The state of the rings, for people.
  public var snapshot: (outgoing: RingSnapshot, incoming: RingSnapshot) { channel.snapshot }

  /// The queue that the host wants a packet of that hash sent on.
  @inlinable public func preferredQueue(hash: UInt32) -> Int { sendTable.queue(hash) }

  public var statistics: NetworkQueueStatistics {
    var result = counts
    result.channel = channel.counters
    result.completionsPending = unsafe core.pointee.doneCount
    result.buffersOut = unsafe Self.slotCount - core.pointee.freeCount - core.pointee.doneCount
    result.sendsUnderWay = requests.count
    result.memory = frames.statistics
    unsafe result.memory.scrubbed &+= core.pointee.scrubbed
    return result
  }

  // MARK: - Publishing and sleeping

  /// Shows the host what was sent, and gives back what was received. Call it once after a burst.
  @inlinable
  public mutating func publish() {
    guard phase != .failed else { return }
    if sections.current != nil, sections.packets > 0 {
      do throws(NetworkError) { try sendSection() } catch { note(error) }
    }
    if unsafe core.pointee.doneCount > 0 { sendCompletions() }
    channel.flush()
  }

  /// Gives packets of the host back, as many as the ring has room for. The others wait: none is lost.
  @inlinable
  mutating func sendCompletions() {
    while unsafe core.pointee.doneCount > 0 {
      let done = unsafe core.pointee.firstDone
      // SEND_RNDIS_PACKET_COMPLETE and its status, in one word.
      let words: InlineArray<1, UInt64> = [(UInt64(done.status) << 32 | 108).littleEndian]
      do throws(ChannelError) {
        try unsafe channel.sendCompletion(words.span.bytes, transactionID: done.transactionID)
      } catch {
        return note(refusal(error))
      }
      let core = unsafe self.core
      unsafe core.pointee.popDone()
      counts.completionsSent &+= 1
    }
  }

  /// What a channel's refusal means here.
  @usableFromInline
  mutating func refusal(_ error: ChannelError) -> NetworkError {
    if case .ring(.full(let needed, _)) = error {
      blockedByteCount = needed
      return .wouldBlock
    }
    return .channel(error)
  }

  /// An error that nobody else hears of.
  @usableFromInline
  mutating func note(_ error: NetworkError) {
    if error.isFinal { fail(error) }
  }

  /// Asks for an interrupt when there is something to receive, or when the ring has room again.
  ///
  /// - Returns: true when there is something to do already.
  public mutating func arm() -> Bool {
    if phase == .new || phase == .failed || rangesLeft > 0 || mail.isRaised { return true }
    let hasWork = channel.arm(untilFree: blockedByteCount)
    // Otherwise what is asked once more waits for the same room.
    if hasWork { blockedByteCount = 0 }
    return hasWork
  }

  public mutating func disarm() {
    blockedByteCount = 0
    channel.disarm()
  }
}

/// Private memory for the header of one message and its info.
@safe
@usableFromInline
struct HeaderCopy: ~Copyable {
  @usableFromInline let start: UnsafeMutableRawPointer

  init() { unsafe start = .allocate(byteCount: 512, alignment: 64) }

  @usableFromInline
  deinit { unsafe start.deallocate() }

  /// Copies `count` bytes, at most 512, out of shared memory, once.
  @inlinable
  @_lifetime(borrow self)
  func take(_ source: UnsafeRawPointer, _ count: Int) -> RawSpan {
    unsafe start.copyMemory(from: source, byteCount: count)
    // What follows reads the copy, and never the source again.
    atomicMemoryFence(ordering: .acquiring)
    return unsafe _overrideLifetime(
      RawSpan(_unsafeStart: UnsafeRawPointer(start), byteCount: count), borrowing: self)
  }
}

/// A frame that the host sends in parts, as far as they have come.
@usableFromInline
struct Coalescing {
  @usableFromInline var segmentCount = 0
  @usableFromInline var byteCount = 0
  @usableFromInline var offset: UInt32 = 0
  @usableFromInline var firstByteCount: UInt32 = 0
  @usableFromInline var next = UInt32.max
  @usableFromInline var last = UInt32.max
  @usableFromInline var info = PerPacketInfo()

  @inlinable init() {}
}

/// Tells the end of a queue, whichever way it ends.
@safe
struct QueueLife: ~Copyable {
  let shared: NetworkLife
  let mailbox: NetworkMailbox

  init(_ shared: NetworkLife, _ mailbox: NetworkMailbox) {
    self.shared = shared
    self.mailbox = mailbox
  }

  deinit {
    shared.end(.channel(.ended(.closed)))
    mailbox.close(shared.endReason ?? .channel(.ended(.closed)))
  }
}
