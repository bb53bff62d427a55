// SPDX-License-Identifier: Apache-2.0

/// Where the headers of an Ethernet frame lie, as far as its bytes have them. The frame may come from
/// anybody: whatever it says, each offset here lies within it.
public struct FrameHeaders: Equatable, Sendable {
  public enum Network: Equatable, Sendable {
    case ipv4, ipv6, other
  }

  public enum Transport: Equatable, Sendable {
    case tcp, udp
    /// Another protocol, a later fragment, or a header that is cut off.
    case other
  }

  /// Of the innermost VLAN tag's, or of the frame's without one.
  public let etherType: UInt16
  /// The tag control information of the outermost VLAN tag.
  public let vlan: UInt16?
  public let network: Network
  public let transport: Transport
  /// Whether the packet is a fragment of a larger one: no checksum can be looked at.
  public let isFragment: Bool
  /// Bytes from the frame's start to the IP header (or to the payload of another protocol).
  public let networkOffset: Int
  /// The same to the TCP or UDP header; for other protocols to what follows the IP header.
  public let transportOffset: Int
  /// The same to the end of the IP packet: what follows is padding of Ethernet's. The frame's end where
  /// the header gives no length, as for large sends.
  public let end: Int

  /// Where a TCP or UDP checksum lies behind the start of its header.
  @inlinable
  public var checksumOffset: Int? {
    switch transport {
    case .tcp: 16
    case .udp: 6
    case .other: nil
    }
  }

  /// Bytes from the frame's start to the payload of TCP or UDP.
  @inlinable
  public func payloadOffset(in frame: RawSpan) -> Int? {
    switch transport {
    case .tcp:
      guard let byte = frame.byte(at: transportOffset &+ 12) else { return nil }
      let count = Int(byte >> 4) &* 4
      guard count >= 20, transportOffset &+ count <= frame.byteCount else { return nil }
      return transportOffset &+ count
    case .udp: return transportOffset &+ 8
    case .other: return nil
    }
  }

  /// - Returns: nil for fewer bytes than an Ethernet header has.
  public init?(_ frame: RawSpan) {
    guard var type = frame.bigEndian16(at: 12) else { return nil }
    var offset = 14
    var tag: UInt16?
    // Two tags at most: 802.1ad around 802.1Q.
    for _ in 0..<2 where type == 0x8100 || type == 0x88A8 {
      guard let control = frame.bigEndian16(at: offset),
        let inner = frame.bigEndian16(at: offset &+ 2)
      else { break }
      if tag == nil { tag = control }
      type = inner
      offset &+= 4
    }
    etherType = type
    vlan = tag
    networkOffset = offset
    let packet: Packet? =
      switch type {
      case 0x0800: Packet(ipv4: frame, offset)
      case 0x86DD: Packet(ipv6: frame, offset)
      default: nil
      }
    guard let packet else {
      (network, transport, isFragment) = (.other, .other, false)
      (transportOffset, end) = (offset, frame.byteCount)
      return
    }
    network = type == 0x0800 ? .ipv4 : .ipv6
    isFragment = packet.isFragment
    transportOffset = packet.payload
    end = packet.end
    let room = packet.end &- packet.payload
    transport =
      switch packet.next {
      case 6 where room >= 20 && !packet.isFragment: .tcp
      case 17 where room >= 8 && !packet.isFragment: .udp
      default: .other
      }
  }

  /// The IP header's facts.
  private struct Packet {
    var next: UInt8
    var payload: Int
    var end: Int
    var isFragment: Bool

    init?(ipv4 frame: RawSpan, _ start: Int) {
      guard let first = frame.byte(at: start), first >> 4 == 4,
        let total = frame.bigEndian16(at: start &+ 2),
        let fragment = frame.bigEndian16(at: start &+ 6),
        let proto = frame.byte(at: start &+ 9)
      else { return nil }
      let count = Int(first & 15) &* 4
      guard count >= 20, start &+ count <= frame.byteCount else { return nil }
      payload = start &+ count
      // A total of 0: a large send, whose segments get their own.
      end = total == 0 ? frame.byteCount : start &+ Int(total)
      guard end >= payload, end <= frame.byteCount else { return nil }
      next = proto
      isFragment = fragment & 0x3FFF != 0
    }

    init?(ipv6 frame: RawSpan, _ start: Int) {
      guard let first = frame.byte(at: start), first >> 4 == 6,
        let total = frame.bigEndian16(at: start &+ 4), var following = frame.byte(at: start &+ 6),
        start &+ 40 <= frame.byteCount
      else { return nil }
      var offset = start &+ 40
      end = total == 0 ? frame.byteCount : offset &+ Int(total)
      guard end <= frame.byteCount else { return nil }
      isFragment = false
      // Extension headers; more than a packet of good faith has are not followed.
      for _ in 0..<8 {
        switch following {
        case 0, 43, 60:
          guard let after = frame.byte(at: offset), let words = frame.byte(at: offset &+ 1) else {
            return nil
          }
          following = after
          offset &+= (Int(words) &+ 1) &* 8
        case 44:
          guard let after = frame.byte(at: offset),
            let fragment = frame.bigEndian16(at: offset &+ 2)
          else { return nil }
          if fragment & 0xFFF9 != 0 { isFragment = true }
          following = after
          offset &+= 8
        default:
          guard offset <= end else { return nil }
          (next, payload) = (following, offset)
          return
        }
        guard offset <= end else { return nil }
      }
      return nil
    }
  }
}
