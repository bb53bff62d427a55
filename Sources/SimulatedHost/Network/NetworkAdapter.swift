// SPDX-License-Identifier: Apache-2.0

public import NetworkProtocol
import PacketIO
import Platform
import Synchronization
import SystemPackage

/// The network interface of one guest, as all its channels and everybody who sends to it see it.
///
/// It is set by the guest's primary channel and read on the data path by any thread.
public final class NetworkAdapter: Sendable {
  /// An address of it all that needs no reference counts.
  let state: AdapterState
  private let queues = Lock(Queues())
  private let queueCapacity: Int

  private struct Queues {
    var owners: [FrameQueueOwner] = []
    /// Each opening has a number: an old end of a channel does not close its new one.
    var openings: [Int: Int] = [:]
    var opened = 0
  }

  /// - Parameter queueCapacity: a power of two of frames that wait for each channel, at most.
  init(queueCapacity: Int) {
    self.queueCapacity = queueCapacity
    state = AdapterState.allocate()
  }

  deinit { state.deallocate() }

  public var address: MACAddress { state.address }
  public var filter: PacketFilter { state.filter }
  public var isLinkUp: Bool { state.isLinkUp }

  /// What one channel did so far.
  public func counters(of queue: Int) -> NetworkCounters { state.counters(of: queue) }

  /// Frames that found no room in the queue of a channel.
  public func overflows(of queue: Int) -> UInt64 {
    queues.withLock { queues in
      queues.owners.indices.contains(queue) ? queues.owners[queue].queue.dropped : 0
    }
  }

  /// The queue of a channel that opens, and its event; made where there is none.
  ///
  /// - Returns: also the number of this opening, for `closeQueue`.
  func openQueue(_ index: Int) throws(Errno) -> (owner: FrameQueueOwner, opening: Int) {
    let capacity = queueCapacity
    return try queues.withLock { queues throws(Errno) in
      while queues.owners.count <= index {
        let owner = try FrameQueueOwner(capacity: capacity)
        state.setQueue(queues.owners.count, owner.queue)
        queues.owners.append(owner)
      }
      let owner = queues.owners[index]
      // What was left over from another guest.
      while owner.queue.next() != nil { owner.queue.release() }
      queues.opened += 1
      queues.openings[index] = queues.opened
      state.setOpen(index, true)
      return (owner, queues.opened)
    }
  }

  func closeQueue(_ index: Int, opening: Int) {
    queues.withLock { queues in
      guard queues.openings[index] == opening else { return }
      queues.openings[index] = nil
      state.setOpen(index, false)
    }
  }
}

/// What one channel has carried.
public struct NetworkCounters: Equatable, Sendable {
  public var framesFromGuest: UInt64 = 0
  public var bytesFromGuest: UInt64 = 0
  public var framesToGuest: UInt64 = 0
  public var bytesToGuest: UInt64 = 0
  /// Frames of several segments, each way.
  public var largeFromGuest: UInt64 = 0
  public var largeToGuest: UInt64 = 0
  /// Those of more than 60,000 bytes.
  public var hugeFromGuest: UInt64 = 0
  public var hugeToGuest: UInt64 = 0
  /// Frames that could not be told apart from what a guest may not send.
  public var errorsFromGuest: UInt64 = 0
  /// Frames that were not for this guest, or too long for it.
  public var filtered: UInt64 = 0
  /// Times that frames had to wait for the guest to give receive buffers back.
  public var outOfBuffers: UInt64 = 0
  /// Completions of what was not sent.
  public var unknownCompletions: UInt64 = 0
  /// Receive buffers that the guest has.
  public var buffersWithGuest: UInt64 = 0

  static let fieldCount = 13

  /// What counts as huge.
  static let hugeByteCount = 60_000

  public init() {}
}

/// A plain address of what an adapter's channels share. The adapter owns it.
@safe
struct AdapterState: @unchecked Sendable {
  static let maximumQueues = 64
  static let maximumTable = 256

  @safe
  fileprivate struct Block: ~Copyable {
    let address = Atomic<UInt64>(0)
    let filter = Atomic<UInt32>(0)
    let isLinkUp = Atomic<Bool>(true)
    /// Bit by queue.
    let open = Atomic<UInt64>(0)
    /// Bit 0: the guest takes coalesced TCP over IPv4; bit 1: over IPv6.
    let coalescing = Atomic<UInt8>(0)
    /// Kinds of packet that are hashed; 0: no scaling.
    let hash = Atomic<UInt32>(0)
    let tableMask = Atomic<Int>(0)
    let table: UnsafeMutablePointer<Atomic<UInt8>>
    /// The key, 8 bytes a word.
    let key: UnsafeMutablePointer<Atomic<UInt64>>
    let queues: UnsafeMutablePointer<FrameQueue?>
    let counters: UnsafeMutablePointer<Atomic<UInt64>>
  }

  private let block: UnsafeMutablePointer<Block>

  private init(_ block: UnsafeMutablePointer<Block>) { unsafe self.block = block }

  // MARK: - The data path

  var address: MACAddress {
    var address = MACAddress()
    address.rawValue = unsafe block.pointee.address.load(ordering: .relaxed)
    return address
  }
  var filter: PacketFilter {
    PacketFilter(rawValue: unsafe block.pointee.filter.load(ordering: .relaxed))
  }
  var isLinkUp: Bool { unsafe block.pointee.isLinkUp.load(ordering: .relaxed) }

  /// Whether the guest takes frames of several segments.
  func coalesces(_ kind: FrameOffload.SegmentationKind) -> Bool {
    let bits = unsafe block.pointee.coalescing.load(ordering: .relaxed)
    return switch kind {
    case .tcpIPv4: bits & 1 != 0
    case .tcpIPv6: bits & 2 != 0
    case .udp: false
    }
  }

  /// Whether the guest wants a frame, by its first bytes.
  func wants(_ frame: RawSpan) -> Bool {
    let filter = filter
    guard !filter.isEmpty, isLinkUp else { return false }
    if filter.contains(.promiscuous) { return true }
    let destination = EthernetHeader.destination(frame)
    if destination == address.rawValue { return filter.contains(.directed) }
    if destination == MACAddress.broadcast.rawValue { return filter.contains(.broadcast) }
    // Multicast lists are kept, and not looked at: a guest gets all groups.
    return destination & 1 != 0
      && !filter.isDisjoint(with: [.multicast, .allMulticast])
  }

  /// The channel that a frame goes to, by its first bytes; `info` learns the hash.
  func queue(for frame: RawSpan, _ info: inout FrameInfo) -> Int {
    let kinds = RSSHash(rawValue: unsafe block.pointee.hash.load(ordering: .relaxed))
    guard !kinds.isEmpty, let hash = toeplitz.hash(frame: frame, kinds: kinds) else { return 0 }
    info.hashValue = hash.value
    info.hash = hash.kind
    // Safe: the mask is below the size of the table.
    let entry = unsafe block.pointee.table[
      Int(hash.value) & block.pointee.tableMask.load(ordering: .relaxed)
    ].load(ordering: .relaxed)
    return isOpen(Int(entry)) ? Int(entry) : 0
  }

  private var toeplitz: Toeplitz {
    var key = Toeplitz.Key(repeating: 0)
    for word in 0..<5 {
      let value = unsafe block.pointee.key[word].load(ordering: .relaxed)
      for byte in 0..<8 {
        key[8 &* word &+ byte] = UInt8(truncatingIfNeeded: value >> UInt64(8 &* byte))
      }
    }
    return Toeplitz(key)
  }

  /// Puts a frame into the queue of a channel. Returns false if it was dropped.
  func deliver(_ frame: RawSpan, _ info: FrameInfo, to queue: Int) -> Bool {
    openQueue(queue)?.push(frame, info) ?? false
  }

  /// The queue of a channel, if that is open.
  func openQueue(_ index: Int) -> FrameQueue? {
    isOpen(index) ? unsafe block.pointee.queues[index] : nil
  }

  /// Puts a frame into the queue that it belongs to.
  func deliver(_ frame: RawSpan, _ info: FrameInfo) -> Bool {
    var info = info
    let queue = queue(for: frame, &info)
    return deliver(frame, info, to: queue)
  }

  func isOpen(_ queue: Int) -> Bool {
    guard queue >= 0, queue < Self.maximumQueues else { return false }
    return unsafe block.pointee.open.load(ordering: .acquiring) >> UInt64(queue) & 1 != 0
  }

  // MARK: - Its channels

  func setAddress(_ address: MACAddress) {
    unsafe block.pointee.address.store(address.rawValue, ordering: .relaxed)
  }
  func setFilter(_ filter: PacketFilter) {
    unsafe block.pointee.filter.store(filter.rawValue, ordering: .relaxed)
  }
  func setCoalescing(ipv4: Bool, ipv6: Bool) {
    unsafe block.pointee.coalescing.store((ipv4 ? 1 : 0) | (ipv6 ? 2 : 0), ordering: .relaxed)
  }
  func setLinkUp(_ isUp: Bool) {
    unsafe block.pointee.isLinkUp.store(isUp, ordering: .relaxed)
  }

  /// While it changes, frames may go to queues of neither setting.
  func setScaling(_ scaling: ReceiveScaling?) {
    guard let scaling, scaling.table.count <= Self.maximumTable, !scaling.table.isEmpty else {
      unsafe block.pointee.hash.store(0, ordering: .relaxed)
      return
    }
    for (index, entry) in scaling.table.enumerated() {
      unsafe block.pointee.table[index].store(entry, ordering: .relaxed)
    }
    for word in 0..<5 {
      let value = (0..<8).reduce(UInt64(0)) {
        $0 | UInt64(scaling.key[8 * word + $1]) << UInt64(8 * $1)
      }
      unsafe block.pointee.key[word].store(value, ordering: .relaxed)
    }
    unsafe block.pointee.tableMask.store(scaling.table.count - 1, ordering: .relaxed)
    // The function's bit is no kind of packet.
    let kinds = scaling.hash.subtracting(.toeplitz)
    unsafe block.pointee.hash.store(kinds.rawValue, ordering: .releasing)
  }

  fileprivate func setQueue(_ index: Int, _ queue: FrameQueue) {
    guard index < Self.maximumQueues else { return }
    unsafe block.pointee.queues[index] = queue
  }

  fileprivate func setOpen(_ index: Int, _ isOpen: Bool) {
    guard index >= 0, index < Self.maximumQueues else { return }
    let bit = UInt64(1) << UInt64(index)
    if isOpen {
      unsafe block.pointee.open.bitwiseOr(bit, ordering: .sequentiallyConsistent)
    } else {
      unsafe block.pointee.open.bitwiseAnd(~bit, ordering: .sequentiallyConsistent)
    }
  }

  /// For those who ask; a channel tells now and then.
  func publish(_ counters: NetworkCounters, of queue: Int) {
    guard queue >= 0, queue < Self.maximumQueues else { return }
    let values: InlineArray<13, UInt64> = [
      counters.framesFromGuest, counters.bytesFromGuest, counters.framesToGuest,
      counters.bytesToGuest, counters.largeFromGuest, counters.largeToGuest,
      counters.hugeFromGuest, counters.hugeToGuest, counters.errorsFromGuest, counters.filtered,
      counters.outOfBuffers,
      counters.unknownCompletions, counters.buffersWithGuest,
    ]
    for index in values.indices {
      unsafe block.pointee.counters[queue * NetworkCounters.fieldCount + index]
        .store(values[index], ordering: .relaxed)
    }
  }

  func counters(of queue: Int) -> NetworkCounters {
    guard queue >= 0, queue < Self.maximumQueues else { return NetworkCounters() }
    let base = queue * NetworkCounters.fieldCount
    let fields: [WritableKeyPath<NetworkCounters, UInt64>] = [
      \.framesFromGuest, \.bytesFromGuest, \.framesToGuest, \.bytesToGuest, \.largeFromGuest,
      \.largeToGuest, \.hugeFromGuest, \.hugeToGuest, \.errorsFromGuest, \.filtered, \.outOfBuffers,
      \.unknownCompletions,
      \.buffersWithGuest,
    ]
    var counters = NetworkCounters()
    for (index, field) in fields.enumerated() {
      counters[keyPath: field] = unsafe block.pointee.counters[base + index]
        .load(ordering: .relaxed)
    }
    return counters
  }

  // MARK: - Memory

  fileprivate static func allocate() -> AdapterState {
    func atomics<T: AtomicRepresentable>(
      _ count: Int, _ value: T
    ) -> UnsafeMutablePointer<Atomic<T>> {
      let memory = UnsafeMutablePointer<Atomic<T>>.allocate(capacity: count)
      for index in 0..<count { unsafe (memory + index).initialize(to: Atomic(value)) }
      return unsafe memory
    }
    let queues = UnsafeMutablePointer<FrameQueue?>.allocate(capacity: maximumQueues)
    unsafe queues.initialize(repeating: nil, count: maximumQueues)
    let block = UnsafeMutablePointer<Block>.allocate(capacity: 1)
    unsafe block.initialize(
      to: Block(
        table: atomics(maximumTable, UInt8(0)), key: atomics(5, UInt64(0)), queues: queues,
        counters: atomics(maximumQueues * NetworkCounters.fieldCount, UInt64(0))))
    return unsafe AdapterState(block)
  }

  fileprivate func deallocate() {
    unsafe block.pointee.table.deallocate()
    unsafe block.pointee.key.deallocate()
    unsafe block.pointee.queues.deallocate()
    unsafe block.pointee.counters.deallocate()
    unsafe block.deinitialize(count: 1)
    unsafe block.deallocate()
  }
}

/// The first 12 bytes of a frame. Addresses are numbers with the first byte in the lowest bits.
enum EthernetHeader {
  static func destination(_ frame: RawSpan) -> UInt64 { address(frame, 0) }
  static func source(_ frame: RawSpan) -> UInt64 { address(frame, 6) }

  private static func address(_ frame: RawSpan, _ offset: Int) -> UInt64 {
    guard frame.byteCount >= offset &+ 8 else { return 0 }
    // Safe: any bit pattern is a number, and the span checks the bounds.
    let word = unsafe frame.unsafeLoadUnaligned(fromByteOffset: offset, as: UInt64.self)
    return UInt64(littleEndian: word) & 0xFFFF_FFFF_FFFF
  }
}
