// SPDX-License-Identifier: Apache-2.0

public import NetworkProtocol
public import Platform
import Synchronization
public import SystemPackage

/// A learning switch between the guests of one host.
///
/// A frame goes to the guest whose address it names, or to all others as long as nobody knows that
/// address, and for groups. A guest that sends to one faster than that one takes is held up, so that its
/// own ring fills. That has an end, lest a guest that takes nothing stops its neighbours: what it does
/// not take in time then is dropped, and counted as overflows of its queue.
public final class NetworkSwitch: NetworkBackend {
  private let pool = AdapterPool()
  private let table = SwitchTable.allocate()
  private let numbers = Lock<[ObjectIdentifier: Int]>([:])
  private let patience: UInt64

  /// - Parameter patience: nanoseconds that a guest is held up for one that takes nothing.
  public init(patience: UInt64 = 10_000_000) { self.patience = patience }

  deinit { table.deallocate() }

  public func connect(address: MACAddress) throws(Errno) -> NetworkAdapter {
    let adapter = pool.take(address)
    // Adapters are few and never go, so each keeps its number.
    let number = numbers.withLock { numbers -> Int? in
      if let number = numbers[ObjectIdentifier(adapter)] { return number }
      guard numbers.count < SwitchTable.maximumPorts else { return nil }
      numbers[ObjectIdentifier(adapter)] = numbers.count
      table.add(adapter.state)
      return numbers.count - 1
    }
    guard number != nil else {
      pool.put(adapter)
      throw .tooManyOpenFiles
    }
    // The host has given it this address: nobody must wait for a frame from there.
    if let number { table.learn(address.rawValue, number) }
    return adapter
  }

  public func disconnect(_ adapter: NetworkAdapter) {
    if let number = number(of: adapter) { table.forget(number) }
  }

  public func recycle(_ adapter: NetworkAdapter) { pool.put(adapter) }

  private func number(of adapter: NetworkAdapter) -> Int? {
    numbers.withLock { $0[ObjectIdentifier(adapter)] }
  }

  public func open(
    _ channel: consuming sending NetworkChannel, on worker: Worker
  ) throws(Errno) {
    let adapter = channel.adapter
    let inbox = try FrameInbox(adapter, queue: channel.queue, on: worker)
    channel.serve(
      SwitchPort(
        inbox, self, table, number: number(of: adapter) ?? SwitchTable.maximumPorts,
        patience: patience),
      on: worker)
  }
}

/// One channel's end of a switch.
public struct SwitchPort: NetworkPort, ~Copyable {
  private var inbox: FrameInbox
  /// Keeps the table.
  private let hub: NetworkSwitch
  private let table: SwitchTable
  private let number: Int
  private let patience: UInt64
  /// A queue that this port's frames may find no room in, and until when that is waited for; 0 as long
  /// as nobody has waited.
  private var full: FrameQueue?
  private var deadline: UInt64 = 0

  init(
    _ inbox: consuming FrameInbox, _ hub: NetworkSwitch, _ table: SwitchTable, number: Int,
    patience: UInt64
  ) {
    self.inbox = inbox
    self.hub = hub
    self.table = table
    self.number = number
    self.patience = patience
  }

  public mutating func send(_ frame: RawSpan, _ info: FrameInfo) {
    let head = FrameHead(frame)
    if let queue = table.forward(frame, info, head: head.span, from: number),
      !queue.hasRoom(Self.reserve)
    {
      full = queue
    }
  }

  /// As many frames of usual length as a guest sends with one packet.
  private static var reserve: Int { 128 }

  public mutating func mustWait() -> Bool {
    guard let queue = full else { return false }
    if queue.hasRoom(Self.reserve) {
      full = nil
      deadline = 0
      return false
    }
    let now = MonotonicClock.coarse()
    if deadline == 0 { deadline = patience > .max - now ? .max : now + patience }
    return now < deadline
  }

  public mutating func next() -> FrameInfo? { inbox.queue.next() }

  @_lifetime(&self)
  public mutating func frame(_ info: FrameInfo) -> MutableRawSpan { inbox.frame(info.byteCount) }

  public mutating func release() { inbox.queue.release() }
  public mutating func arm() -> Bool { inbox.queue.arm() }
  public mutating func disarm() { inbox.queue.disarm() }
}

/// The ports of a switch and what it has learnt, as a plain address. The switch owns it.
@safe
struct SwitchTable: @unchecked Sendable {
  static let maximumPorts = 256
  private static let addressCount = 4096
  private static let probes = 4

  @safe
  private struct Block: ~Copyable {
    let portCount = Atomic<Int>(0)
    let ports: UnsafeMutablePointer<AdapterState?>
    /// An address in the lower 48 bits, its port's number plus one above; 0 for none.
    let addresses: UnsafeMutablePointer<Atomic<UInt64>>
  }

  private let block: UnsafeMutablePointer<Block>

  private init(_ block: UnsafeMutablePointer<Block>) { unsafe self.block = block }

  /// - Parameter head: a private copy of the frame's first bytes.
  /// - Returns: the only queue that it went to.
  func forward(
    _ frame: RawSpan, _ info: FrameInfo, head: RawSpan, from number: Int
  ) -> FrameQueue? {
    let source = EthernetHeader.source(head)
    if source & 1 == 0 { learn(source, number) }
    let destination = EthernetHeader.destination(head)
    let known = destination & 1 == 0 ? port(of: destination) : nil
    if let known {
      return known == number ? nil : deliver(frame, info, head, to: known)
    }
    let count = unsafe block.pointee.portCount.load(ordering: .acquiring)
    for port in 0..<count where port != number { _ = deliver(frame, info, head, to: port) }
    return nil
  }

  private func deliver(
    _ frame: RawSpan, _ info: FrameInfo, _ head: RawSpan, to port: Int
  ) -> FrameQueue? {
    guard port < Self.maximumPorts, let adapter = unsafe block.pointee.ports[port],
      adapter.wants(head)
    else { return nil }
    var info = info
    guard let queue = adapter.openQueue(adapter.queue(for: head, &info)) else { return nil }
    _ = queue.push(frame, info)
    return queue
  }

  private func port(of address: UInt64) -> Int? {
    let start = Self.place(address)
    for probe in 0..<Self.probes {
      let entry = unsafe block.pointee.addresses[(start &+ probe) & (Self.addressCount - 1)]
        .load(ordering: .relaxed)
      if entry & 0xFFFF_FFFF_FFFF == address, entry != 0 { return Int(entry >> 48) &- 1 }
    }
    return nil
  }

  func learn(_ address: UInt64, _ number: Int) {
    let entry = address | UInt64(number &+ 1) << 48
    let start = Self.place(address)
    var free = start
    for probe in (0..<Self.probes).reversed() {
      let index = (start &+ probe) & (Self.addressCount - 1)
      let found = unsafe block.pointee.addresses[index].load(ordering: .relaxed)
      if found == entry { return }
      if found == 0 { free = index }
      if found != 0, found & 0xFFFF_FFFF_FFFF == address {
        free = index
        break
      }
    }
    unsafe block.pointee.addresses[free].store(entry, ordering: .relaxed)
  }

  private static func place(_ address: UInt64) -> Int {
    Int((address &* 0x9E37_79B9_7F4A_7C15) >> 52)
  }

  // MARK: - Not on the data path

  func add(_ adapter: AdapterState) {
    let count = unsafe block.pointee.portCount.load(ordering: .relaxed)
    guard count < Self.maximumPorts else { return }
    unsafe block.pointee.ports[count] = adapter
    unsafe block.pointee.portCount.store(count + 1, ordering: .releasing)
  }

  /// A guest is gone: its addresses may come up elsewhere.
  func forget(_ number: Int) {
    for index in 0..<Self.addressCount {
      let found = unsafe block.pointee.addresses[index].load(ordering: .relaxed)
      if found >> 48 == UInt64(number + 1) {
        unsafe block.pointee.addresses[index].store(0, ordering: .relaxed)
      }
    }
  }

  static func allocate() -> SwitchTable {
    let ports = UnsafeMutablePointer<AdapterState?>.allocate(capacity: maximumPorts)
    unsafe ports.initialize(repeating: nil, count: maximumPorts)
    let addresses = UnsafeMutablePointer<Atomic<UInt64>>.allocate(capacity: addressCount)
    for index in 0..<addressCount { unsafe (addresses + index).initialize(to: Atomic(0)) }
    let block = UnsafeMutablePointer<Block>.allocate(capacity: 1)
    unsafe block.initialize(to: Block(ports: ports, addresses: addresses))
    return unsafe SwitchTable(block)
  }

  func deallocate() {
    unsafe block.pointee.ports.deallocate()
    unsafe block.pointee.addresses.deallocate()
    unsafe block.deinitialize(count: 1)
    unsafe block.deallocate()
  }
}
