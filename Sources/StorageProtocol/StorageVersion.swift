// SPDX-License-Identifier: Apache-2.0

import VMBus

/// A version of the storage protocol: major in the high byte, minor in the low one.
public struct StorageVersion: WireInteger, Comparable {
  public var rawValue: UInt16
  @inlinable public init(rawValue: UInt16) { self.rawValue = rawValue }

  /// Windows Vista and Server 2008.
  @inlinable public static var windowsVista: Self { Self(rawValue: 0x0200) }
  /// Windows 7 and Server 2008 R2.
  @inlinable public static var windows7: Self { Self(rawValue: 0x0402) }
  /// Windows 8 and Server 2012: the first with the long request and with subchannels.
  @inlinable public static var windows8: Self { Self(rawValue: 0x0501) }
  /// Windows 8.1 and Server 2012 R2; the newest that the OpenHCL paravisor speaks.
  @inlinable public static var windows81: Self { Self(rawValue: 0x0600) }
  /// Windows 10 and Server 2016.
  @inlinable public static var windows10: Self { Self(rawValue: 0x0602) }

  @inlinable
  public static func < (left: Self, right: Self) -> Bool { left.rawValue < right.rawValue }

  /// Whether this is a version that some host or guest has ever spoken.
  @inlinable public var isKnown: Bool {
    switch self {
    case .windowsVista, .windows7, .windows8, .windows81, .windows10: true
    default: false
    }
  }

  /// What a client asks for next when the host refuses this version.
  @inlinable public var next: StorageVersion? {
    switch self {
    case .windows10: .windows81
    case .windows81: .windows8
    case .windows8: .windows7
    case .windows7: .windowsVista
    default: nil
    }
  }

  /// Bytes of the SCSI request in this version: the queue fields came with 5.1.
  @inlinable public var requestByteCount: Int {
    self < .windows8 ? SCSIRequest.Short.byteCount : SCSIRequest.byteCount
  }

  /// Bytes of a whole packet, header and body.
  @inlinable public var packetByteCount: Int {
    StoragePacketHeader.byteCount + requestByteCount
  }

  /// Whether the version knows CREATE_SUB_CHANNELS.
  @inlinable public var hasSubchannels: Bool { self >= .windows8 }
}

extension StorageVersion: CustomStringConvertible {
  public var description: String { "\(rawValue >> 8).\(rawValue & 0xff)" }
}
