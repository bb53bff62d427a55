// SPDX-License-Identifier: Apache-2.0

public import VMBus

/// A version of the dynamic memory protocol: major in the high half, minor in the low one.
public struct BalloonVersion: WireInteger, Comparable {
  public var rawValue: UInt32
  @inlinable public init(rawValue: UInt32) { self.rawValue = rawValue }

  public static func < (left: Self, right: Self) -> Bool { left.rawValue < right.rawValue }

  public var isKnown: Bool { self == .v0_3 || self == .v1_0 || self == .v2_0 }

  /// What a guest asks for next when the host refuses this version.
  public var next: BalloonVersion? {
    switch self {
    case .v2_0: .v1_0
    case .v1_0: .v0_3
    default: nil
    }
  }
}

// A version is written as everyone writes it.
// swift-format-ignore: AlwaysUseLowerCamelCase
extension BalloonVersion {
  /// Windows 7 and Server 2008 R2.
  public static let v0_3 = Self(rawValue: 0x0000_0003)
  /// Windows 8 and Server 2012.
  public static let v1_0 = Self(rawValue: 0x0001_0000)
  /// Windows 10 and Server 2016.
  public static let v2_0 = Self(rawValue: 0x0002_0000)
}

extension BalloonVersion: CustomStringConvertible {
  public var description: String { "\(rawValue >> 16).\(rawValue & 0xFFFF)" }
}

/// The guest asks for a version.
public struct BalloonVersionRequest: BalloonMessage, Equatable {
  public static let name: WireName = "BalloonVersionRequest"
  public static let byteCount = 16
  public static let type = BalloonMessageType.versionRequest

  public var header = BalloonHeader()
  public var version = BalloonVersion(rawValue: 0)
  public var flags: UInt32 = 0

  public init() {}

  public init(_ version: BalloonVersion, transactionID: UInt32) {
    self = .blank(transactionID)
    self.version = version
    flags = version.next == nil ? 1 : 0
  }

  /// The guest will ask for no other version after this one.
  public var isLastAttempt: Bool { flags & 1 != 0 }

  public mutating func visitFields<Visitor: FieldVisitor & ~Copyable & ~Escapable>(
    _ visitor: inout Visitor
  ) {
    visitor.structure("header", &header)
    visitor.integer("version", &version)
    visitor.integer("flags", &flags)
  }
}

/// The host accepts a version or does not.
public struct BalloonVersionResponse: BalloonMessage, Equatable {
  public static let name: WireName = "BalloonVersionResponse"
  public static let byteCount = 16
  public static let type = BalloonMessageType.versionResponse

  public var header = BalloonHeader()
  public var flags: UInt64 = 0

  public init() {}

  public init(isAccepted: Bool, transactionID: UInt32) {
    self = .blank(transactionID)
    flags = isAccepted ? 1 : 0
  }

  public var isAccepted: Bool { flags & 1 != 0 }

  public mutating func visitFields<Visitor: FieldVisitor & ~Copyable & ~Escapable>(
    _ visitor: inout Visitor
  ) {
    visitor.structure("header", &header)
    visitor.integer("flags", &flags)
  }
}

/// What a guest can do.
public struct BalloonCapabilitySet: WireInteger, OptionSet {
  public var rawValue: UInt64
  @inlinable public init(rawValue: UInt64) { self.rawValue = rawValue }

  public static let balloon = Self(rawValue: 1 << 0)
  public static let hotAdd = Self(rawValue: 1 << 1)
  public static let hotRemove = Self(rawValue: 1 << 6)

  /// The alignment that hot-added memory must have, as the logarithm to base 2 of so many MiB:
  /// 0 to 15.
  public var hotAddAlignment: UInt8 {
    get { UInt8(truncatingIfNeeded: rawValue >> 2 & 15) }
    set { rawValue = rawValue & ~(15 << 2) | UInt64(newValue & 15) << 2 }
  }
}

/// The guest tells what it can do.
public struct BalloonCapabilitiesReport: BalloonMessage, Equatable {
  public static let name: WireName = "BalloonCapabilitiesReport"
  public static let byteCount = 32
  public static let type = BalloonMessageType.capabilitiesReport

  public var header = BalloonHeader()
  public var capabilities: BalloonCapabilitySet = []
  /// Hosts do not look at it; Windows and Linux send 0.
  public var minimumPageCount: UInt64 = 0
  /// Hosts do not look at it; Windows and Linux send all ones.
  public var maximumPageNumber: UInt64 = 0

  public init() {}

  public init(_ capabilities: BalloonCapabilitySet, transactionID: UInt32) {
    self = .blank(transactionID)
    self.capabilities = capabilities
    maximumPageNumber = .max
  }

  public mutating func visitFields<Visitor: FieldVisitor & ~Copyable & ~Escapable>(
    _ visitor: inout Visitor
  ) {
    visitor.structure("header", &header)
    visitor.integer("capabilities", &capabilities)
    visitor.integer("minimumPageCount", &minimumPageCount)
    visitor.integer("maximumPageNumber", &maximumPageNumber)
  }
}

/// The host accepts the guest's capabilities or does not; then the guest must end the service.
public struct BalloonCapabilitiesResponse: BalloonMessage, Equatable {
  public static let name: WireName = "BalloonCapabilitiesResponse"
  public static let byteCount = 16
  public static let type = BalloonMessageType.capabilitiesResponse

  public struct Flags: WireInteger, OptionSet {
    public var rawValue: UInt64
    @inlinable public init(rawValue: UInt64) { self.rawValue = rawValue }

    public static let accepted = Self(rawValue: 1 << 0)
    public static let hotRemove = Self(rawValue: 1 << 1)
    /// The host wants no status reports.
    public static let suppressPressureReports = Self(rawValue: 1 << 2)
  }

  public var header = BalloonHeader()
  public var flags: Flags = []

  public init() {}

  public init(_ flags: Flags, transactionID: UInt32) {
    self = .blank(transactionID)
    self.flags = flags
  }

  public mutating func visitFields<Visitor: FieldVisitor & ~Copyable & ~Escapable>(
    _ visitor: inout Visitor
  ) {
    visitor.structure("header", &header)
    visitor.integer("flags", &flags)
  }
}
