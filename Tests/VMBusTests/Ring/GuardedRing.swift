// SPDX-License-Identifier: Apache-2.0

import Glibc

@testable import VMBus

/// Ring memory with pages that nobody may touch round both of its areas, so that one byte too
/// far ends the test, whichever instruction does it.
@safe
final class GuardedRing: @unchecked Sendable {
  private let start: UnsafeMutableRawPointer
  private let byteCount: Int
  fileprivate let page: UnsafeMutableRawPointer
  fileprivate let data: UnsafeMutableRawPointer
  let size: Int

  /// - Parameter size: of the data area, a multiple of 4096.
  init(size: Int = 4096) {
    self.size = size
    byteCount = size + 4 * 4096
    // Guard, control page, guard, data, guard.
    guard
      let start = unsafe mmap(
        nil, byteCount, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0),
      unsafe start != MAP_FAILED
    else { fatalError("no memory for a test") }
    unsafe self.start = start
    unsafe page = start + 4096
    unsafe data = start + 3 * 4096
    let status =
      unsafe mprotect(page, 4096, PROT_READ | PROT_WRITE)
      | mprotect(data, size, PROT_READ | PROT_WRITE)
    precondition(status == 0)
  }

  deinit { unsafe munmap(start, byteCount) }

  /// One end's view.
  var end: End { End(ring: self) }

  struct End: RingMemory, Sendable {
    let ring: GuardedRing
    var controlPage: UnsafeMutableRawPointer { unsafe ring.page }
    var data: UnsafeMutableRawPointer { unsafe ring.data }
    var dataByteCount: Int { ring.size }
  }

  func producer() throws(RingError) -> RingProducer<End> { try RingProducer(end) }

  func consumer(
    trailerCheck: TrailerCheck = .verify
  ) throws(RingError) -> RingConsumer<End> {
    try RingConsumer(end, trailerCheck: trailerCheck)
  }

  // MARK: - What a hostile peer may do

  /// A word of the control page, by its offset in bytes.
  subscript(control offset: Int) -> UInt32 {
    get { unsafe page.load(fromByteOffset: offset, as: UInt32.self) }
    set { unsafe page.storeBytes(of: newValue, toByteOffset: offset, as: UInt32.self) }
  }

  var producerIndex: UInt32 {
    get { self[control: 0] }
    set { self[control: 0] = newValue }
  }
  var consumerIndex: UInt32 {
    get { self[control: 4] }
    set { self[control: 4] = newValue }
  }
  var interruptMask: UInt32 {
    get { self[control: 8] }
    set { self[control: 8] = newValue }
  }
  var pendingSendSize: UInt32 {
    get { self[control: 12] }
    set { self[control: 12] = newValue }
  }
  var featureBits: UInt32 {
    get { self[control: 64] }
    set { self[control: 64] = newValue }
  }

  /// 8 bytes of the data area; the offset goes round the end.
  subscript(offset: Int) -> UInt64 {
    get { unsafe data.load(fromByteOffset: offset % size, as: UInt64.self) }
    set { unsafe data.storeBytes(of: newValue, toByteOffset: offset % size, as: UInt64.self) }
  }

  func bytes(_ range: Range<Int>) -> [UInt8] {
    range.map { unsafe data.load(fromByteOffset: $0 % size, as: UInt8.self) }
  }

  func fill(_ byte: UInt8) {
    unsafe data.initializeMemory(as: UInt8.self, repeating: byte, count: size)
  }
}

/// The first word of a descriptor.
func descriptor(
  _ type: UInt16, dataOffset8: UInt16 = 2, length8: UInt16, flags: UInt16 = 0
) -> UInt64 {
  UInt64(type) | UInt64(dataOffset8) << 16 | UInt64(length8) << 32 | UInt64(flags) << 48
}

/// The error that a ring's end throws.
func refusal(_ body: () throws(RingError) -> Void) -> RingError? {
  do throws(RingError) { try body() } catch { return error }
  return nil
}

/// The span's bytes.
func array(_ bytes: RawSpan) -> [UInt8] {
  unsafe bytes.withUnsafeBytes { unsafe [UInt8]($0) }
}

/// A random number generator that gives the same numbers each time (splitmix64).
struct Seeded: RandomNumberGenerator {
  var state: UInt64
  mutating func next() -> UInt64 {
    state &+= 0x9e37_79b9_7f4a_7c15
    var z = state
    z = (z ^ (z >> 30)) &* 0xbf58_476d_1ce4_e5b9
    z = (z ^ (z >> 27)) &* 0x94d0_49bb_1331_11eb
    return z ^ (z >> 31)
  }
}

extension RingProducer where Memory: ~Copyable {
  /// Writes a packet of bytes in an array.
  mutating func send(
    _ payload: [UInt8], type: PacketType = .inBand, id: UInt64 = 0, completion: Bool = false,
    ranges: [UInt8] = []
  ) throws(RingError) {
    try unsafe write(
      type, transactionID: id, completionRequested: completion, ranges: ranges.span.bytes,
      payload: payload.span.bytes)
  }
}

extension RingConsumer where Memory: ~Copyable {
  /// The next packet with copies of its two parts.
  mutating func take(
    _ buffer: inout PacketBuffer
  ) throws(RingError) -> (packet: Packet, ranges: [UInt8], payload: [UInt8])? {
    guard let packet = try receive(into: &buffer) else { return nil }
    return (packet, array(buffer.ranges(of: packet)), array(buffer.payload(of: packet)))
  }
}
