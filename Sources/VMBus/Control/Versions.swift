// SPDX-License-Identifier: Apache-2.0

/// A version of the control protocol, as `InitiateContact` asks for it: major << 16 | minor.
public struct ProtocolVersion: WireInteger, Comparable {
  public var rawValue: UInt32

  public init(rawValue: UInt32) { self.rawValue = rawValue }

  public init(major: UInt16, minor: UInt16) {
    rawValue = UInt32(major) << 16 | UInt32(minor)
  }

  public var major: UInt16 { UInt16(truncatingIfNeeded: rawValue >> 16) }
  public var minor: UInt16 { UInt16(truncatingIfNeeded: rawValue) }

  /// Every version that this package speaks, newest first: the order in which a client tries.
  public static let supported: [ProtocolVersion] = [
    .v6_0, .v5_3, .v5_2, .v5_1, .v5_0, .v4_1, .v4_0,
  ]

  public static func < (left: ProtocolVersion, right: ProtocolVersion) -> Bool {
    left.rawValue < right.rawValue
  }
}

// A version is written as everyone writes it.
// swift-format-ignore: AlwaysUseLowerCamelCase
extension ProtocolVersion {
  /// Windows 10.
  public static let v4_0 = ProtocolVersion(major: 4, minor: 0)
  /// Adds ModifyChannel.
  public static let v4_1 = ProtocolVersion(major: 4, minor: 1)
  /// The host tells the connection id that messages are posted to; TargetInfo names the SINT.
  public static let v5_0 = ProtocolVersion(major: 5, minor: 0)
  /// TargetInfo's VTL counts.
  public static let v5_1 = ProtocolVersion(major: 5, minor: 1)
  /// The oldest one that an isolated machine may use.
  public static let v5_2 = ProtocolVersion(major: 5, minor: 2)
  /// Adds ModifyChannelResponse.
  public static let v5_3 = ProtocolVersion(major: 5, minor: 3)
  /// Adds feature flags.
  public static let v6_0 = ProtocolVersion(major: 6, minor: 0)
}

extension ProtocolVersion: CustomStringConvertible {
  public var description: String { "\(major).\(minor)" }
}

/// What client and server agree on beyond the version; only since version 6.0.
///
/// Wire: TargetInfo bits 32 to 63 of `InitiateContact`, offset 8 of `VersionResponse`.
public struct FeatureFlags: OptionSet, WireInteger {
  public var rawValue: UInt32

  public init(rawValue: UInt32) { self.rawValue = rawValue }

  /// The guest chooses event flag and connection id of a channel when it opens it.
  public static let guestSpecifiedSignalParameters = FeatureFlags(rawValue: 0x01)
  /// A channel's interrupt may be redirected to the paravisor.
  public static let channelInterruptRedirection = FeatureFlags(rawValue: 0x02)
  /// Monitor pages may be replaced while connected (messages 25 and 26).
  public static let modifyConnection = FeatureFlags(rawValue: 0x04)
  /// `InitiateContact` carries a GUID that names the client.
  public static let clientID = FeatureFlags(rawValue: 0x08)
  /// Offers may say that a channel uses encrypted memory. Only a trusted path grants it.
  public static let confidentialChannels = FeatureFlags(rawValue: 0x10)
  /// The client may pause the server's messages (27 to 29).
  public static let pauseResume = FeatureFlags(rawValue: 0x20)
  /// The server allocates the monitor pages.
  public static let serverSpecifiedMonitorPages = FeatureFlags(rawValue: 0x40)
  /// The host pins the guest's memory as offers ask for it.
  public static let gpaPinning = FeatureFlags(rawValue: 0x80)
}

/// Where a message came from, as the transport that took it in knows.
public enum MessageOrigin: Hashable, Sendable, CaseIterable {
  /// By a way that the host cannot touch: between the guest and its paravisor.
  case trusted
  /// Through the host, or by a way that the host could have used.
  case untrusted
}
