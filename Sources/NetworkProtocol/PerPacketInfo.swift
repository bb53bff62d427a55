// SPDX-License-Identifier: Apache-2.0

import VMBus

/// The kinds of per-packet info. Those with the high bit are known to the two ends only, and not to
/// the NDIS above them.
public struct PerPacketInfoType: WireInteger {
  public var rawValue: UInt32
  @inlinable public init(rawValue: UInt32) { self.rawValue = rawValue }

  @inlinable public static var checksum: Self { Self(rawValue: 0) }
  @inlinable public static var ipsec: Self { Self(rawValue: 1) }
  @inlinable public static var largeSend: Self { Self(rawValue: 2) }
  @inlinable public static var classificationHandle: Self { Self(rawValue: 3) }
  @inlinable public static var scatterGatherList: Self { Self(rawValue: 5) }
  @inlinable public static var vlan: Self { Self(rawValue: 6) }
  @inlinable public static var originalPacket: Self { Self(rawValue: 7) }
  @inlinable public static var hashValue: Self { Self(rawValue: 8) }
  @inlinable public static var hashInfo: Self { Self(rawValue: 9) }
  @inlinable public static var cachedBufferList: Self { Self(rawValue: 10) }
  @inlinable public static var shortPacketPadding: Self { Self(rawValue: 11) }
  /// `PacketID`.
  @inlinable public static var packetID: Self { Self(rawValue: 0x8000_0001) }
}

/// The checksum of a packet, in a word whose bits mean one thing from the client and another one
/// from the host.
public struct ChecksumInfo: OptionSet, WireInteger {
  public var rawValue: UInt32
  @inlinable public init(rawValue: UInt32) { self.rawValue = rawValue }

  // From the client: compute them.
  @inlinable public static var isIPv4: Self { Self(rawValue: 1 << 0) }
  @inlinable public static var isIPv6: Self { Self(rawValue: 1 << 1) }
  @inlinable public static var tcp: Self { Self(rawValue: 1 << 2) }
  @inlinable public static var udp: Self { Self(rawValue: 1 << 3) }
  @inlinable public static var ipHeader: Self { Self(rawValue: 1 << 4) }

  /// From the client: bytes from the frame's start to the TCP or UDP header; below 1024.
  @inlinable public var tcpHeaderOffset: Int {
    get { Int((rawValue >> 16) & 0x3FF) }
    set {
      rawValue =
        rawValue & ~(0x3FF << 16) | (UInt32(truncatingIfNeeded: newValue) & 0x3FF) << 16
    }
  }

  // From the host: what it found.
  @inlinable public static var tcpFailed: Self { Self(rawValue: 1 << 0) }
  @inlinable public static var udpFailed: Self { Self(rawValue: 1 << 1) }
  @inlinable public static var ipFailed: Self { Self(rawValue: 1 << 2) }
  @inlinable public static var tcpSucceeded: Self { Self(rawValue: 1 << 3) }
  @inlinable public static var udpSucceeded: Self { Self(rawValue: 1 << 4) }
  @inlinable public static var ipSucceeded: Self { Self(rawValue: 1 << 5) }
  @inlinable public static var loopback: Self { Self(rawValue: 1 << 6) }
  /// The checksum was not computed, since sender and receiver share a machine.
  @inlinable public static var tcpValueInvalid: Self { Self(rawValue: 1 << 7) }
  @inlinable public static var ipValueInvalid: Self { Self(rawValue: 1 << 8) }
}

/// A TCP packet that the host is to cut into segments: large send, second version.
public struct LargeSendInfo: WireInteger {
  public var rawValue: UInt32
  @inlinable public init(rawValue: UInt32) { self.rawValue = rawValue }

  /// - Parameters:
  ///   - segmentByteCount: of TCP payload, below 2^20.
  ///   - tcpHeaderOffset: bytes from the frame's start, below 1024.
  @inlinable
  public init(segmentByteCount: Int, tcpHeaderOffset: Int, isIPv6: Bool) {
    rawValue =
      UInt32(truncatingIfNeeded: segmentByteCount) & 0xFFFFF
      | (UInt32(truncatingIfNeeded: tcpHeaderOffset) & 0x3FF) << 20 | 1 << 30
      | (isIPv6 ? 1 << 31 : 0)
  }

  @inlinable public var segmentByteCount: Int { Int(rawValue & 0xFFFFF) }
  @inlinable public var tcpHeaderOffset: Int { Int((rawValue >> 20) & 0x3FF) }
  @inlinable public var isVersion2: Bool { rawValue & 1 << 30 != 0 }
  @inlinable public var isIPv6: Bool { rawValue & 1 << 31 != 0 }

  /// Bytes that one packet may have, as hosts of Hyper-V and OpenVMM say.
  public static let maximumByteCount = 0xF53C
}

/// The 802.1Q tag of a packet, which its frame does not contain.
public struct VLANInfo: WireInteger {
  public var rawValue: UInt32
  @inlinable public init(rawValue: UInt32) { self.rawValue = rawValue }

  /// - Parameters:
  ///   - id: below 4096.
  ///   - priority: below 8.
  @inlinable
  public init(id: UInt16, priority: UInt8 = 0, isDropEligible: Bool = false) {
    rawValue =
      UInt32(priority & 7) | (isDropEligible ? 8 : 0) | UInt32(id & 0xFFF) << 4
  }

  /// From the 16 bits that follow 0x8100 in a frame, in the processor's order.
  @inlinable
  public init(tag: UInt16) {
    self.init(
      id: tag & 0xFFF, priority: UInt8(truncatingIfNeeded: tag >> 13),
      isDropEligible: tag & 0x1000 != 0)
  }

  @inlinable public var priority: UInt8 { UInt8(truncatingIfNeeded: rawValue & 7) }
  @inlinable public var isDropEligible: Bool { rawValue & 8 != 0 }
  @inlinable public var id: UInt16 { UInt16(truncatingIfNeeded: (rawValue >> 4) & 0xFFF) }
  @inlinable public var tag: UInt16 {
    UInt16(priority) << 13 | (isDropEligible ? 0x1000 : 0) | id
  }
}

/// Which part of a coalesced packet a data message is (NVSP 6.1).
public struct PacketID: WireInteger {
  public var rawValue: UInt32
  @inlinable public init(rawValue: UInt32) { self.rawValue = rawValue }

  @inlinable
  public init(isFirst: Bool, isLast: Bool, id: UInt16 = 0) {
    rawValue =
      1 | (1 | (isFirst ? 2 : 0) | (isLast ? 4 : 0)) << 8 | UInt32(id) << 16
  }

  /// Always 1.
  @inlinable public var version: UInt8 { UInt8(truncatingIfNeeded: rawValue) }
  /// The message is one of several that make a packet; without it the rest says nothing.
  @inlinable public var isSuballocation: Bool { rawValue & 0x100 != 0 }
  @inlinable public var isFirst: Bool { rawValue & 0x200 != 0 }
  @inlinable public var isLast: Bool { rawValue & 0x400 != 0 }
  @inlinable public var id: UInt16 { UInt16(truncatingIfNeeded: rawValue >> 16) }
}

/// All that is said of one packet beside its bytes. What is not in `present` is zero.
@frozen
public struct PerPacketInfo: Equatable, Sendable {
  public struct Kinds: OptionSet, Sendable {
    public var rawValue: UInt8
    @inlinable public init(rawValue: UInt8) { self.rawValue = rawValue }

    @inlinable public static var checksum: Self { Self(rawValue: 0x01) }
    @inlinable public static var largeSend: Self { Self(rawValue: 0x02) }
    @inlinable public static var vlan: Self { Self(rawValue: 0x04) }
    @inlinable public static var hashValue: Self { Self(rawValue: 0x08) }
    @inlinable public static var hashInfo: Self { Self(rawValue: 0x10) }
    @inlinable public static var packetID: Self { Self(rawValue: 0x20) }
  }

  public var present: Kinds = []
  /// Setting a value makes it present.
  public var checksum = ChecksumInfo(rawValue: 0) { didSet { present.insert(.checksum) } }
  public var largeSend = LargeSendInfo(rawValue: 0) { didSet { present.insert(.largeSend) } }
  public var vlan = VLANInfo(rawValue: 0) { didSet { present.insert(.vlan) } }
  public var hashValue: UInt32 = 0 { didSet { present.insert(.hashValue) } }
  public var hashInfo: RSSHash = [] { didSet { present.insert(.hashInfo) } }
  public var packetID = PacketID(rawValue: 0) { didSet { present.insert(.packetID) } }

  @inlinable public init() {}

  /// Bytes of one element: header and one word.
  @inlinable public static var elementByteCount: Int { 16 }
  /// Bytes that the elements of all kinds take.
  @inlinable public static var maximumByteCount: Int { 6 * elementByteCount }
  /// Bytes of elements that a parser looks at, at most. No peer sends that much.
  @inlinable public static var parsedByteCount: Int { 256 }

  /// Bytes that the elements take.
  @inlinable
  public var byteCount: Int { present.rawValue.nonzeroBitCount &* Self.elementByteCount }

  /// Parses the elements. Kinds that this does not know are passed over.
  ///
  /// - Parameter bytes: a private copy of all of them.
  @inlinable
  public init(parsing bytes: RawSpan) throws(WireError) {
    self.init()
    var reader = WireReader(bytes, name: "per-packet info")
    guard bytes.byteCount <= Self.parsedByteCount else {
      throw .invalid(
        "per-packet info", field: "length", value: UInt64(truncatingIfNeeded: bytes.byteCount))
    }
    // Each element takes 12 bytes or more, so this ends.
    while reader.remaining > 0 {
      let size: UInt32 = try reader.read()
      let type: UInt32 = try reader.read()
      let offset: UInt32 = try reader.read()
      guard size >= 12, size & 3 == 0 else {
        throw .invalid("per-packet info", field: "size", value: UInt64(size))
      }
      guard offset >= 12, offset <= size, offset & 3 == 0 else {
        throw .invalid("per-packet info", field: "offset", value: UInt64(offset))
      }
      let body = try reader.take(Int(size) &- 12)
      guard let kind = Self.kind(of: type) else { continue }
      guard size &- offset >= 4 else {
        throw .invalid("per-packet info", field: "offset", value: UInt64(offset))
      }
      guard present.isDisjoint(with: kind) else {
        throw .invalid("per-packet info", field: "repeated type", value: UInt64(type))
      }
      var content = WireReader(body, name: "per-packet info")
      try content.skip(Int(offset) &- 12)
      set(kind, try content.read())
    }
  }

  @inlinable
  static func kind(of type: UInt32) -> Kinds? {
    switch type {
    case 0: .checksum
    case 2: .largeSend
    case 6: .vlan
    case 8: .hashValue
    case 9: .hashInfo
    case 0x8000_0001: .packetID
    default: nil
    }
  }

  @inlinable
  mutating func set(_ kind: Kinds, _ word: UInt32) {
    switch kind {
    case .checksum: checksum = ChecksumInfo(rawValue: word)
    case .largeSend: largeSend = LargeSendInfo(rawValue: word)
    case .vlan: vlan = VLANInfo(rawValue: word)
    case .hashValue: hashValue = word
    case .hashInfo: hashInfo = RSSHash(rawValue: word)
    default: packetID = PacketID(rawValue: word)
    }
  }

  /// Writes the elements, `byteCount` bytes, which the caller has made room for.
  @inlinable
  @_lifetime(target: copy target)
  public func write(into target: inout MutableRawSpan, at start: Int) {
    var offset = start
    if present.contains(.checksum) { Self.put(0, checksum.rawValue, &target, &offset) }
    if present.contains(.largeSend) { Self.put(2, largeSend.rawValue, &target, &offset) }
    if present.contains(.vlan) { Self.put(6, vlan.rawValue, &target, &offset) }
    if present.contains(.hashValue) { Self.put(8, hashValue, &target, &offset) }
    if present.contains(.hashInfo) { Self.put(9, hashInfo.rawValue, &target, &offset) }
    if present.contains(.packetID) { Self.put(0x8000_0001, packetID.rawValue, &target, &offset) }
  }

  @inlinable
  @_lifetime(target: copy target)
  static func put(
    _ type: UInt32, _ word: UInt32, _ target: inout MutableRawSpan, _ offset: inout Int
  ) {
    target.storeBytes(of: UInt32(16).littleEndian, toByteOffset: offset, as: UInt32.self)
    target.storeBytes(of: type.littleEndian, toByteOffset: offset &+ 4, as: UInt32.self)
    target.storeBytes(of: UInt32(12).littleEndian, toByteOffset: offset &+ 8, as: UInt32.self)
    target.storeBytes(of: word.littleEndian, toByteOffset: offset &+ 12, as: UInt32.self)
    offset &+= 16
  }
}
