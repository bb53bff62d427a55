// SPDX-License-Identifier: Apache-2.0

import VMBus

/// Kinds of checksum (`NDISChecksumCapabilities`).
public struct NDISChecksums: OptionSet, WireInteger {
  public var rawValue: UInt32
  @inlinable public init(rawValue: UInt32) { self.rawValue = rawValue }

  /// IPv4 with options, or IPv6 with extension headers.
  @inlinable public static var ipOptions: Self { Self(rawValue: 0x001) }
  @inlinable public static var tcpOptions: Self { Self(rawValue: 0x004) }
  @inlinable public static var tcp: Self { Self(rawValue: 0x010) }
  @inlinable public static var udp: Self { Self(rawValue: 0x040) }
  /// The header checksum, of IPv4 only.
  @inlinable public static var ip: Self { Self(rawValue: 0x100) }
}

/// What a client wants of one offload.
public struct OffloadSetting: WireInteger {
  public var rawValue: UInt8
  @inlinable public init(rawValue: UInt8) { self.rawValue = rawValue }

  @inlinable public static var unchanged: Self { Self(rawValue: 0) }
  @inlinable public static var disabled: Self { Self(rawValue: 1) }
  /// A checksum in packets that the client sends, and not in those that it receives; any other
  /// offload, enabled.
  @inlinable public static var transmit: Self { Self(rawValue: 2) }
  /// A checksum in packets that the client receives, only.
  @inlinable public static var receive: Self { Self(rawValue: 3) }
  @inlinable public static var both: Self { Self(rawValue: 4) }
  /// Large send and coalesced receive.
  @inlinable public static var enabled: Self { Self(rawValue: 2) }
}

public struct RSSCapabilityFlags: OptionSet, WireInteger {
  public var rawValue: UInt32
  @inlinable public init(rawValue: UInt32) { self.rawValue = rawValue }

  @inlinable public static var tcpIPv4: Self { Self(rawValue: 0x100) }
  @inlinable public static var tcpIPv6: Self { Self(rawValue: 0x200) }
  @inlinable public static var tcpIPv6Extensions: Self { Self(rawValue: 0x400) }
  @inlinable public static var udpIPv4: Self { Self(rawValue: 0x800) }
  @inlinable public static var udpIPv6: Self { Self(rawValue: 0x1000) }
}

/// What of `RSSParameters` is to be left as it is, or switched off.
public struct RSSFlags: OptionSet, WireInteger {
  public var rawValue: UInt16
  @inlinable public init(rawValue: UInt16) { self.rawValue = rawValue }

  @inlinable public static var baseProcessorUnchanged: Self { Self(rawValue: 0x01) }
  @inlinable public static var hashUnchanged: Self { Self(rawValue: 0x02) }
  @inlinable public static var tableUnchanged: Self { Self(rawValue: 0x04) }
  @inlinable public static var keyUnchanged: Self { Self(rawValue: 0x08) }
  @inlinable public static var disable: Self { Self(rawValue: 0x10) }
}

/// The function and the kinds of packet that are hashed, in `RSSParameters` and beside packets.
public struct RSSHash: OptionSet, WireInteger {
  public var rawValue: UInt32
  @inlinable public init(rawValue: UInt32) { self.rawValue = rawValue }

  @inlinable public static var toeplitz: Self { Self(rawValue: 0x01) }
  @inlinable public static var ipv4: Self { Self(rawValue: 0x100) }
  @inlinable public static var tcpIPv4: Self { Self(rawValue: 0x200) }
  @inlinable public static var ipv6: Self { Self(rawValue: 0x400) }
  @inlinable public static var ipv6Extensions: Self { Self(rawValue: 0x800) }
  @inlinable public static var tcpIPv6: Self { Self(rawValue: 0x1000) }
  @inlinable public static var tcpIPv6Extensions: Self { Self(rawValue: 0x2000) }
  @inlinable public static var udpIPv4: Self { Self(rawValue: 0x4000) }
  @inlinable public static var udpIPv6: Self { Self(rawValue: 0x8000) }
}
