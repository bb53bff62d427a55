// SPDX-License-Identifier: Apache-2.0

/// What both ends of a ring do rarely, and outside of their callers' loops.
///
/// Values go in and come out: were the ends themselves handed over, a compiler would have to write
/// their indices back to memory for each packet.
@usableFromInline
enum RingSlowPath {
  /// The consumer's index, which only moves on, and not past what was published. A peer that
  /// pretends otherwise would have us overwrite packets of the batch that is being written.
  @inline(__always)
  static func consumerIndex(
    _ control: RingControl, _ size: Int, _ peer: Int, _ committed: Int
  ) throws(RingError) -> Int {
    let index = try checkedIndex(control.consumerIndex.load(), size)
    guard
      RingMath.distance(from: index, to: committed, size)
        <= RingMath.distance(from: peer, to: committed, size)
    else {
      throw .indexMovedBack(UInt32(truncatingIfNeeded: index), from: peer, end: committed)
    }
    return index
  }

  /// Writes a packet that starts before the end of the data area and ends behind its start.
  ///
  /// `start` is a multiple of 8 below `size`, and the packet fits between it and the peer's index.
  @unsafe
  @usableFromInline
  @inline(never)
  static func write(
    _ first: UInt64, _ transactionID: UInt64, _ ranges: RawSpan, _ payload: RawSpan,
    _ data: UnsafeMutableRawPointer, _ size: Int, _ start: Int
  ) {
    var offset = start
    unsafe put(first, data, size, at: &offset)
    unsafe put(transactionID, data, size, at: &offset)
    if ranges.byteCount > 0 { offset = unsafe put(ranges, data, size, at: offset) }
    if payload.byteCount & 7 != 0 {
      // The last word, before the payload: what it does not fill stays zero.
      var last = offset &+ (payload.byteCount & ~7)
      if last >= size { last &-= size }
      unsafe put(0, data, size, at: &last)
    }
    offset = unsafe put(payload, data, size, at: offset)
    offset = (offset &+ 7) & ~7
    if offset == size { offset = 0 }
    unsafe put(UInt64(truncatingIfNeeded: start) << 32, data, size, at: &offset)
  }

  @unsafe
  @inline(__always)
  private static func put(
    _ value: UInt64, _ data: UnsafeMutableRawPointer, _ size: Int, at offset: inout Int
  ) {
    unsafe RingMath.store(value, data + offset)
    offset &+= 8
    if offset == size { offset = 0 }
  }

  @unsafe
  private static func put(
    _ bytes: RawSpan, _ data: UnsafeMutableRawPointer, _ size: Int, at offset: Int
  ) -> Int {
    let count = bytes.byteCount
    let untilEnd = size &- offset
    unsafe bytes.withUnsafeBytes { bytes in
      guard let source = bytes.baseAddress else { return }
      // Safe: both parts are within the bytes, and the packet fits behind `offset`.
      if count <= untilEnd {
        unsafe RingMath.copy(from: source, to: data + offset, count)
      } else {
        unsafe RingMath.copy(from: source, to: data + offset, untilEnd)
        unsafe RingMath.copy(from: source + untilEnd, to: data, count &- untilEnd)
      }
    }
    let end = offset &+ count
    return end >= size ? end &- size : end
  }

  /// Copies the body of the packet at `start` out, which lies round the end of the data area, or
  /// right before it. Returns the trailer. The caller has checked `count` against the published
  /// bytes and against the target.
  @unsafe
  @usableFromInline
  @inline(never)
  static func copy(
    _ count: Int, of start: Int, _ data: UnsafeMutableRawPointer, _ size: Int,
    to target: UnsafeMutableRawPointer
  ) -> UInt64 {
    var offset = start &+ 16
    if offset >= size { offset &-= size }
    let untilEnd = size &- offset
    if count <= untilEnd {
      unsafe RingMath.copy(from: data + offset, to: target, count)
    } else {
      unsafe RingMath.copy(from: data + offset, to: target, untilEnd)
      unsafe RingMath.copy(from: data, to: target + untilEnd, count &- untilEnd)
    }
    offset &+= count
    if offset >= size { offset &-= size }
    return unsafe RingMath.load(data + offset)
  }

  /// Whether a consumer's step from `before` to `next` gave the peer the bytes that it waits for.
  @usableFromInline
  @inline(never)
  static func frees(
    _ pending: Int, _ control: RingControl, _ size: Int, from before: Int, to next: Int
  ) -> Bool {
    // A corrupt index is found, and reported, by the next `receive`.
    guard let producer = try? checkedIndex(control.producerIndex.load(), size) else {
      return false
    }
    let limit = size &- 8
    return limit &- RingMath.distance(from: before, to: producer, size) < pending
      && limit &- RingMath.distance(from: next, to: producer, size) >= pending
  }

  /// What is wrong with a descriptor that was refused, told from the private copy of it.
  @usableFromInline
  @inline(never)
  static func fault(
    _ first: UInt64, _ start: Int, _ available: Int, _ capacity: Int
  ) -> RingError {
    let offset = UInt32(truncatingIfNeeded: start)
    let type = PacketType(rawValue: UInt16(truncatingIfNeeded: first))
    let dataOffset8 = UInt16(truncatingIfNeeded: first >> 16)
    let length8 = UInt16(truncatingIfNeeded: first >> 32)
    let flags = UInt16(truncatingIfNeeded: first >> 48)
    let least: UInt16
    switch type {
    case .inBand, .completion: least = 2
    case .gpaDirect, .transferPages: least = 3
    default: return .badType(offset: offset, type: type.rawValue)
    }
    guard dataOffset8 >= least, length8 >= dataOffset8, Int(length8) &* 8 &+ 8 <= available else {
      return .badLength(
        offset: offset, length8: length8, dataOffset8: dataOffset8, available: available)
    }
    guard flags <= 1 else { return .badFlags(offset: offset, flags: flags) }
    return .packetTooLarge(byteCount: Int(length8) &* 8 &- 16, limit: capacity)
  }
}

extension RingControl {
  /// Looks how far the peer has read, and returns its index. Throws if that does not make room for
  /// `needed` bytes, and for what can never be written.
  ///
  /// Small rings come here for every second packet. So the arguments are few and this is a method:
  /// a static function gets a thunk, which moves the arguments that lie on the stack two at a
  /// time, and reading two words at once that were just stored one by one holds a processor up
  /// for longer than all the rest takes.
  @usableFromInline
  @inline(never)
  func makeRoom(
    _ needed: Int, ranges: Int, _ size: Int, peer: Int, committed: Int, next: Int
  ) throws(RingError) -> Int {
    let limit = RingMath.maximumPacketByteCount(size)
    guard needed <= limit else { throw .packetTooLarge(byteCount: needed, limit: limit) }
    guard ranges & 7 == 0 else { throw .unalignedRanges(byteCount: ranges) }
    let index = try RingSlowPath.consumerIndex(self, size, peer, committed)
    let free = size &- 8 &- RingMath.distance(from: index, to: next, size)
    guard needed <= free else { throw .full(needed: needed, free: free) }
    return index
  }
}
