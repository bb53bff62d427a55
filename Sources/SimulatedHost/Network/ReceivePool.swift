// SPDX-License-Identifier: Apache-2.0

import NetworkProtocol
import Synchronization

/// The buffers that a guest has given for its network interface, shared by its channels.
///
/// The host keeps them until the last channel lets go of this object.
@safe
final class NetworkBuffers: @unchecked Sendable {
  let receive: GuestBuffer
  let division: ReceiveBufferDivision
  /// Goes with every packet that names a piece.
  let id: UInt16
  /// Which channel may use each piece: set before that channel is offered.
  fileprivate let owners: UnsafeMutablePointer<Atomic<UInt8>>
  /// For each piece, touched by its owner only: `free`, or the next of its packet.
  fileprivate let links: UnsafeMutablePointer<UInt32>

  static let free: UInt32 = 0x7FFF_FFFF
  static let end: UInt32 = 0x7FFF_FFFE
  /// The first piece of a packet.
  static let start: UInt32 = 0x8000_0000

  init(_ receive: GuestBuffer, _ division: ReceiveBufferDivision, id: UInt16) {
    self.receive = receive
    self.division = division
    self.id = id
    unsafe owners = .allocate(capacity: division.pieceCount)
    unsafe links = .allocate(capacity: division.pieceCount)
    for piece in 0..<division.pieceCount {
      unsafe (owners + piece).initialize(to: Atomic(0))
      unsafe (links + piece).initialize(to: Self.free)
    }
  }

  deinit {
    unsafe owners.deallocate()
    unsafe links.deallocate()
  }
}

/// The pieces of a receive buffer that one channel may write to, and those that the guest has.
///
/// Packets are told apart by the number of their first piece: DPDK's client takes the transaction id
/// for the number of a section, and refuses what is larger.
@safe
struct ReceivePool: ~Copyable {
  let buffers: NetworkBuffers?
  /// Goes with every packet that names a piece.
  let bufferID: UInt16
  let queue: UInt8
  // Plain addresses of what `buffers` owns.
  private let owners: UnsafeMutablePointer<Atomic<UInt8>>
  private let links: UnsafeMutablePointer<UInt32>
  private let memory: UnsafeMutableRawPointer
  let pieceCount: Int
  let pieceByteCount: Int
  /// A stack of the pieces that may be written.
  private let free: UnsafeMutablePointer<UInt32>
  private(set) var freeCount = 0
  /// Pieces that the guest has.
  private(set) var lentCount = 0

  /// No buffer, no piece.
  init() {
    buffers = nil
    bufferID = 0
    queue = 0
    (pieceCount, pieceByteCount) = (0, 0)
    // Never followed: there is no piece.
    unsafe free = .allocate(capacity: 1)
    unsafe owners = UnsafeMutablePointer(bitPattern: 8).unsafelyUnwrapped
    unsafe links = UnsafeMutablePointer(bitPattern: 8).unsafelyUnwrapped
    unsafe memory = UnsafeMutableRawPointer(free)
  }

  /// The primary channel's: all pieces.
  init(_ buffers: NetworkBuffers) {
    self.init(buffers, queue: 0, capacity: buffers.division.pieceCount)
    // The lowest number on top.
    for piece in (0..<pieceCount).reversed() { put(UInt32(piece)) }
  }

  /// A subchannel's: those that were set aside for it.
  init(_ buffers: NetworkBuffers, subchannel queue: Int) {
    var own = 0
    for piece in 0..<buffers.division.pieceCount
    where unsafe buffers.owners[piece].load(ordering: .acquiring)
      == UInt8(truncatingIfNeeded: queue)
    { own += 1 }
    self.init(buffers, queue: UInt8(truncatingIfNeeded: queue), capacity: own)
    for piece in (0..<pieceCount).reversed()
    where unsafe owners[piece].load(ordering: .relaxed) == self.queue {
      // The guest can't give back any more what it had from this channel before it was closed.
      unsafe links[piece] = NetworkBuffers.free
      put(UInt32(piece))
    }
  }

  private init(_ buffers: NetworkBuffers, queue: UInt8, capacity: Int) {
    self.buffers = buffers
    bufferID = buffers.id
    self.queue = queue
    unsafe owners = buffers.owners
    unsafe links = buffers.links
    unsafe memory = buffers.receive.start
    pieceCount = buffers.division.pieceCount
    pieceByteCount = buffers.division.pieceByteCount
    unsafe free = .allocate(capacity: max(capacity, 1))
  }

  deinit { unsafe free.deallocate() }

  private mutating func put(_ piece: UInt32) {
    unsafe free[freeCount] = piece
    freeCount &+= 1
  }

  /// Sets an equal part of the free pieces aside for each of `count` subchannels.
  mutating func share(withSubchannels count: Int) {
    // Some for control messages, which have the primary channel only.
    let part = max(freeCount - ReceiveBufferDivision.controlPieceCount, 0) / (count + 1)
    for subchannel in 0..<count {
      for _ in 0..<part {
        freeCount -= 1
        // Releasing, since the subchannel's thread reads it when it is opened.
        unsafe owners[Int(free[freeCount])].store(
          UInt8(truncatingIfNeeded: subchannel + 1), ordering: .releasing)
      }
    }
  }

  /// Takes a piece and adds it to a packet.
  ///
  /// - Parameter last: the piece of the packet that was taken before; nil for its first.
  mutating func take(after last: UInt32?) -> UInt32? {
    guard freeCount > 0 else { return nil }
    freeCount &-= 1
    lentCount &+= 1
    let piece = unsafe free[freeCount]
    if let last {
      let isStart = unsafe links[Int(last)] & NetworkBuffers.start
      unsafe links[Int(last)] = piece | isStart
      unsafe links[Int(piece)] = NetworkBuffers.end
    } else {
      unsafe links[Int(piece)] = NetworkBuffers.end | NetworkBuffers.start
    }
    return piece
  }

  /// The guest has completed a packet: takes its pieces back.
  ///
  /// - Parameter id: the guest's word.
  /// - Returns: false if there is no such packet of this channel.
  mutating func complete(_ id: UInt64) -> Bool {
    guard id < UInt64(pieceCount) else { return false }
    let piece = Int(id)
    // The owner first: the links of other channels' pieces are theirs.
    guard unsafe owners[piece].load(ordering: .relaxed) == queue,
      unsafe links[piece] & NetworkBuffers.start != 0
    else { return false }
    var next = unsafe links[piece] & ~NetworkBuffers.start
    unsafe links[piece] = NetworkBuffers.free
    put(UInt32(piece))
    lentCount &-= 1
    while next != NetworkBuffers.end {
      let current = Int(next)
      next = unsafe links[current]
      unsafe links[current] = NetworkBuffers.free
      put(UInt32(current))
      lentCount &-= 1
    }
    return true
  }

  /// Takes all pieces back that the guest has: for a host that does not care who uses them.
  mutating func takeBack() {
    for piece in 0..<pieceCount
    where unsafe owners[piece].load(ordering: .relaxed) == queue
      && links[piece] != NetworkBuffers.free
    {
      unsafe links[piece] = NetworkBuffers.free
      put(UInt32(piece))
    }
    lentCount = 0
  }

  /// The bytes of a piece that was taken.
  @_lifetime(&self)
  mutating func bytes(of piece: UInt32) -> MutableRawSpan {
    // Safe: pieces lie within the buffer, which is mapped as long as `buffers` lives.
    unsafe _overrideLifetime(
      MutableRawSpan(
        _unsafeStart: memory + Int(piece) &* pieceByteCount, byteCount: pieceByteCount),
      mutating: &self)
  }
}
