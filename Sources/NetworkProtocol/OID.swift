// SPDX-License-Identifier: Apache-2.0

import VMBus

/// An object that QUERY reads or SET writes.
public struct OID: WireInteger {
  public var rawValue: UInt32
  @inlinable public init(rawValue: UInt32) { self.rawValue = rawValue }

  public static let supportedList = Self(rawValue: 0x0001_0101)
  public static let hardwareStatus = Self(rawValue: 0x0001_0102)
  public static let mediaSupported = Self(rawValue: 0x0001_0103)
  public static let mediaInUse = Self(rawValue: 0x0001_0104)
  public static let maximumLookahead = Self(rawValue: 0x0001_0105)
  /// Bytes of the largest frame without its Ethernet header: the MTU.
  public static let maximumFrameByteCount = Self(rawValue: 0x0001_0106)
  /// In units of 100 bits per second.
  public static let linkSpeed = Self(rawValue: 0x0001_0107)
  public static let transmitBufferSpace = Self(rawValue: 0x0001_0108)
  public static let receiveBufferSpace = Self(rawValue: 0x0001_0109)
  public static let transmitBlockByteCount = Self(rawValue: 0x0001_010A)
  public static let receiveBlockByteCount = Self(rawValue: 0x0001_010B)
  public static let vendorID = Self(rawValue: 0x0001_010C)
  public static let vendorDescription = Self(rawValue: 0x0001_010D)
  public static let currentPacketFilter = Self(rawValue: 0x0001_010E)
  public static let currentLookahead = Self(rawValue: 0x0001_010F)
  public static let driverVersion = Self(rawValue: 0x0001_0110)
  public static let maximumTotalByteCount = Self(rawValue: 0x0001_0111)
  public static let protocolOptions = Self(rawValue: 0x0001_0112)
  public static let macOptions = Self(rawValue: 0x0001_0113)
  /// 0 for connected, 1 for not.
  public static let mediaConnectStatus = Self(rawValue: 0x0001_0114)
  public static let maximumSendPackets = Self(rawValue: 0x0001_0115)
  public static let vendorDriverVersion = Self(rawValue: 0x0001_0116)
  public static let mediaCapabilities = Self(rawValue: 0x0001_0201)
  public static let physicalMedium = Self(rawValue: 0x0001_0202)
  public static let receiveScaleCapabilities = Self(rawValue: 0x0001_0203)
  public static let receiveScaleParameters = Self(rawValue: 0x0001_0204)
  public static let maximumLinkSpeed = Self(rawValue: 0x0001_0206)
  public static let linkState = Self(rawValue: 0x0001_0207)
  public static let linkParameters = Self(rawValue: 0x0001_0208)
  public static let transmitOK = Self(rawValue: 0x0002_0101)
  public static let receiveOK = Self(rawValue: 0x0002_0102)
  public static let transmitError = Self(rawValue: 0x0002_0103)
  public static let receiveError = Self(rawValue: 0x0002_0104)
  public static let receiveNoBuffer = Self(rawValue: 0x0002_0105)
  /// UTF-16.
  public static let friendlyName = Self(rawValue: 0x0002_0216)
  public static let configurationParameter = Self(rawValue: 0x0001_021B)
  public static let permanentAddress = Self(rawValue: 0x0101_0101)
  public static let currentAddress = Self(rawValue: 0x0101_0102)
  public static let multicastList = Self(rawValue: 0x0101_0103)
  public static let maximumMulticastList = Self(rawValue: 0x0101_0104)
  public static let offloadEncapsulation = Self(rawValue: 0x0101_010A)
  public static let offloadCurrentConfiguration = Self(rawValue: 0xFC01_020B)
  /// Set: `NDISOffloadParameters`.
  public static let offloadParameters = Self(rawValue: 0xFC01_020C)
  /// Query: `NDISOffload`.
  public static let offloadCapabilities = Self(rawValue: 0xFC01_020D)
}

extension OID: CustomStringConvertible {
  public var description: String { "OID 0x" + String(rawValue, radix: 16) }
}

/// Which frames a client wants (OID 0x0001010E); none at all is 0.
public struct PacketFilter: OptionSet, WireInteger {
  public var rawValue: UInt32
  @inlinable public init(rawValue: UInt32) { self.rawValue = rawValue }

  @inlinable public static var directed: Self { Self(rawValue: 0x01) }
  @inlinable public static var multicast: Self { Self(rawValue: 0x02) }
  @inlinable public static var allMulticast: Self { Self(rawValue: 0x04) }
  @inlinable public static var broadcast: Self { Self(rawValue: 0x08) }
  @inlinable public static var promiscuous: Self { Self(rawValue: 0x20) }
}

/// The address of an Ethernet interface.
public struct MACAddress: WireLayout, Hashable, CustomStringConvertible {
  /// The address's bytes, the first one in the lowest bits.
  public var rawValue: UInt64 = 0

  public init() {}
  public init(_ bytes: InlineArray<6, UInt8>) {
    for index in bytes.indices { rawValue |= UInt64(bytes[index]) << UInt64(8 * index) }
  }

  /// "02:15:5d:00:00:01", with ":" or "-"; nil for anything else.
  public init?(_ text: String) {
    let parts = text.split(whereSeparator: { $0 == ":" || $0 == "-" })
    guard parts.count == 6 else { return nil }
    for (index, part) in parts.enumerated() {
      guard part.count <= 2, let byte = UInt8(part, radix: 16) else { return nil }
      rawValue |= UInt64(byte) << UInt64(8 * index)
    }
  }

  public static let broadcast = MACAddress(InlineArray(repeating: 0xFF))

  public var bytes: InlineArray<6, UInt8> {
    InlineArray { UInt8(truncatingIfNeeded: rawValue >> UInt64(8 * $0)) }
  }

  /// Not of one station.
  @inlinable public var isGroup: Bool { rawValue & 1 != 0 }

  public static let name: WireName = "MACAddress"
  public static let byteCount = 6

  public mutating func visitFields<Visitor: FieldVisitor & ~Copyable & ~Escapable>(
    _ visitor: inout Visitor
  ) {
    var bytes = bytes
    visitor.bytes("address", &bytes)
    self = MACAddress(bytes)
  }

  public var description: String {
    (0..<6).map { index in
      let byte = String((rawValue >> UInt64(8 * index)) & 0xFF, radix: 16)
      return byte.count == 1 ? "0" + byte : byte
    }.joined(separator: ":")
  }
}
