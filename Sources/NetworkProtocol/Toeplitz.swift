// SPDX-License-Identifier: Apache-2.0

import VMBus

/// The hash that packets are spread over queues by.
public struct Toeplitz: Sendable {
  public typealias Key = InlineArray<40, UInt8>

  public let key: Key

  @inlinable public init(_ key: Key = Toeplitz.defaultKey) { self.key = key }

  /// The key that Microsoft's documents verify implementations with, and that most drivers set.
  public static let defaultKey: Key = [
    0x6d, 0x5a, 0x56, 0xda, 0x25, 0x5b, 0x0e, 0xc2, 0x41, 0x67, 0x25, 0x3d, 0x43, 0xa3, 0x8f, 0xb0,
    0xd0, 0xca, 0x2b, 0xcb, 0xae, 0x7b, 0x30, 0xb4, 0x77, 0xcb, 0x2d, 0xa3, 0x80, 0x30, 0xf2, 0x0c,
    0x6a, 0x42, 0xb7, 0x3b, 0xbe, 0xac, 0x01, 0xfa,
  ]

  /// Hashes up to 36 bytes, what follows them is ignored.
  public func hash(_ input: RawSpan) -> UInt32 {
    var state = Toeplitz.State(key)
    for index in 0..<min(input.byteCount, 36) {
      state.add(unsafe input.unsafeLoad(fromByteOffset: index, as: UInt8.self), key, index)
    }
    return state.result
  }

  /// The hash so far, with the 64 bits of the key that the next bytes meet.
  struct State {
    var result: UInt32 = 0
    /// The key's next 40 bits are the highest ones.
    var window: UInt64 = 0

    init(_ key: borrowing Key) {
      for index in 0..<8 { window = window << 8 | UInt64(key[index]) }
    }

    mutating func add(_ byte: UInt8, _ key: borrowing Key, _ index: Int) {
      var bits = byte
      var window = window
      for _ in 0..<8 {
        // All ones where the bit is set.
        let mask = UInt32(truncatingIfNeeded: Int32(Int8(bitPattern: bits) >> 7))
        result ^= UInt32(truncatingIfNeeded: window >> 32) & mask
        bits <<= 1
        window <<= 1
      }
      let next = index + 8
      self.window = window | (next < 40 ? UInt64(key[next]) : 0)
    }
  }
}

extension Toeplitz {
  /// The hash of an Ethernet frame's flow, and what of it was hashed; nil for one that is neither IPv4
  /// nor IPv6. Fragments are hashed without their ports, since only the first one has them.
  ///
  /// - Parameters:
  ///   - frame: its first bytes, enough for its headers. They are only hashed, so they may change.
  ///   - kinds: what may be hashed.
  public func hash(
    frame: RawSpan,
    kinds: RSSHash = [.ipv4, .tcpIPv4, .udpIPv4, .ipv6, .tcpIPv6, .udpIPv6]
  ) -> (value: UInt32, kind: RSSHash)? {
    var offset = 12
    var etherType = Self.word(frame, offset)
    if etherType == 0x8100 || etherType == 0x88A8 {
      offset = 16
      etherType = Self.word(frame, offset)
    }
    let network = offset + 2
    switch etherType {
    case 0x0800:
      guard frame.byteCount >= network + 20 else { return nil }
      let header = Int(Self.byte(frame, network) & 0xF) * 4
      let isWhole = Self.word(frame, network + 6) & 0x3FFF == 0
      return hash(
        frame, addresses: network + 12, 8, Self.byte(frame, network + 9),
        ports: isWhole && header >= 20 ? network + header : nil,
        (kinds.intersection(.tcpIPv4), kinds.intersection(.udpIPv4), kinds.intersection(.ipv4)))
    case 0x86DD:
      guard frame.byteCount >= network + 40 else { return nil }
      return hash(
        frame, addresses: network + 8, 32, Self.byte(frame, network + 6), ports: network + 40,
        (kinds.intersection(.tcpIPv6), kinds.intersection(.udpIPv6), kinds.intersection(.ipv6)))
    default:
      return nil
    }
  }

  private func hash(
    _ frame: RawSpan, addresses: Int, _ count: Int, _ nextHeader: UInt8, ports: Int?,
    _ kinds: (tcp: RSSHash, udp: RSSHash, ip: RSSHash)
  ) -> (value: UInt32, kind: RSSHash)? {
    var state = State(key)
    for index in 0..<count { state.add(Self.byte(frame, addresses + index), key, index) }
    let kind: RSSHash =
      switch nextHeader {
      case 6: kinds.tcp
      case 17: kinds.udp
      default: []
      }
    if let ports, !kind.isEmpty, frame.byteCount >= ports + 4 {
      for index in 0..<4 { state.add(Self.byte(frame, ports + index), key, count + index) }
      return (state.result, kind)
    }
    return kinds.ip.isEmpty ? nil : (state.result, kinds.ip)
  }

  /// Zero behind the frame's end.
  private static func byte(_ frame: RawSpan, _ offset: Int) -> UInt8 {
    guard offset < frame.byteCount else { return 0 }
    return unsafe frame.unsafeLoad(fromByteOffset: offset, as: UInt8.self)
  }

  private static func word(_ frame: RawSpan, _ offset: Int) -> UInt16 {
    UInt16(byte(frame, offset)) << 8 | UInt16(byte(frame, offset + 1))
  }
}
