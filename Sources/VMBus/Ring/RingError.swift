// SPDX-License-Identifier: Apache-2.0

/// Why a ring can't be used, or can't be used any longer.
///
/// `full`, `packetTooLarge` and `unalignedRanges` when writing are the caller's affair and leave the
/// ring as it was.
/// Every other case means that the peer broke the protocol: the channel ends (law 1).
public enum RingError: Error, Equatable, Sendable {
  /// There is no room now for a packet of this many bytes (descriptor and trailer included).
  case full(needed: Int, free: Int)
  /// A packet of this many bytes does not fit this ring or this buffer, ever.
  case packetTooLarge(byteCount: Int, limit: Int)
  /// What lies between descriptor and payload must be a multiple of 8 bytes.
  case unalignedRanges(byteCount: Int)
  /// The data area is not a multiple of 4096 bytes, or too small or large.
  case badSize(Int)
  /// The peer's index is outside of the ring or not a multiple of 8.
  case badIndex(UInt32, ringByteCount: Int)
  /// The consumer's index left the bytes between where it was and what was published.
  case indexMovedBack(UInt32, from: Int, end: Int)
  /// The peer published fewer bytes than the smallest packet has.
  case truncated(available: Int)
  /// The lengths in the descriptor at `offset` contradict each other or the published index.
  case badLength(offset: UInt32, length8: UInt16, dataOffset8: UInt16, available: Int)
  /// A packet type that VMBus does not define for rings.
  case badType(offset: UInt32, type: UInt16)
  /// A flag other than "completion requested".
  case badFlags(offset: UInt32, flags: UInt16)
  /// The trailer does not name the packet's own offset.
  case badTrailer(offset: UInt32, found: UInt64)
}

extension RingError: CustomStringConvertible {
  public var description: String {
    switch self {
    case .full(let needed, let free):
      "the ring has \(free) bytes free, where \(needed) are needed"
    case .packetTooLarge(let byteCount, let limit):
      "a packet of \(byteCount) bytes, where at most \(limit) fit"
    case .unalignedRanges(let byteCount):
      "ranges of \(byteCount) bytes, which is no multiple of 8"
    case .badSize(let size):
      "\(size) bytes is no size for a ring: a multiple of 4096 below 2 GiB is"
    case .badIndex(let index, let size):
      "the peer's index \(index) is not a multiple of 8 below \(size)"
    case .indexMovedBack(let index, let from, let end):
      "the consumer's index moved from \(from) to \(index), and not towards \(end)"
    case .truncated(let available):
      "the peer published \(available) bytes, less than a packet has"
    case .badLength(let offset, let length8, let dataOffset8, let available):
      "packet at \(offset): \(length8)*8 bytes with data at \(dataOffset8)*8 in \(available)"
    case .badType(let offset, let type):
      "packet at \(offset): type \(type) is not known"
    case .badFlags(let offset, let flags):
      "packet at \(offset): flags 0x\(String(flags, radix: 16)) are not known"
    case .badTrailer(let offset, let found):
      "packet at \(offset): trailer 0x\(String(found, radix: 16))"
    }
  }
}
