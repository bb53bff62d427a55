// SPDX-License-Identifier: Apache-2.0

import VMBus

/// A version of NVSP, the protocol between a network client and its provider: major in the high
/// half, minor in the low one.
public struct NVSPVersion: WireInteger, Comparable {
  public var rawValue: UInt32
  @inlinable public init(rawValue: UInt32) { self.rawValue = rawValue }

  /// 0.2: Windows Server 2008.
  @inlinable public static var v1: Self { Self(rawValue: 0x0000_0002) }
  /// 3.2: Windows Server 2008 R2; the first with SEND_NDIS_CONFIG.
  @inlinable public static var v2: Self { Self(rawValue: 0x0003_0002) }
  /// Windows 8 and Server 2012: virtual functions.
  @inlinable public static var v4: Self { Self(rawValue: 0x0004_0000) }
  /// Windows 8.1 and Server 2012 R2: subchannels.
  @inlinable public static var v5: Self { Self(rawValue: 0x0005_0000) }
  @inlinable public static var v6: Self { Self(rawValue: 0x0006_0000) }
  /// Windows Server 2019: coalesced receive.
  @inlinable public static var v61: Self { Self(rawValue: 0x0006_0001) }

  /// What clients ask for, the newest first.
  public static let newestFirst: [NVSPVersion] = [.v61, .v6, .v5, .v4, .v2, .v1]

  @inlinable
  public static func < (left: Self, right: Self) -> Bool { left.rawValue < right.rawValue }

  /// What a client asks for next when the host refuses this version.
  public var next: NVSPVersion? { Self.newestFirst.first { $0 < self } }

  public var isKnown: Bool { Self.newestFirst.contains(self) }

  /// Bytes of every message of the version: only 6.1 has longer ones.
  @inlinable public var messageByteCount: Int { self >= .v61 ? 40 : 28 }

  @inlinable public var hasNDISConfiguration: Bool { self >= .v2 }
  @inlinable public var hasVirtualFunctions: Bool { self >= .v4 }
  @inlinable public var hasSubchannels: Bool { self >= .v5 }
  @inlinable public var hasReceiveCoalescing: Bool { self >= .v61 }

  /// The NDIS version that goes with it.
  public var ndisVersion: NVSPNDISVersion {
    NVSPNDISVersion(major: 6, minor: self >= .v5 ? 30 : 1)
  }
}

extension NVSPVersion: CustomStringConvertible {
  public var description: String { "\(rawValue >> 16).\(rawValue & 0xffff)" }
}
