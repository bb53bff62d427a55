// SPDX-License-Identifier: Apache-2.0

/// A channel's number on one connection (relid): 1 to 2047, given out by the server.
public struct ChannelID: WireInteger, Comparable, ExpressibleByIntegerLiteral {
  public var rawValue: UInt32

  public init(rawValue: UInt32) { self.rawValue = rawValue }
  public init(_ value: UInt32) { rawValue = value }
  public init(integerLiteral value: UInt32) { rawValue = value }

  /// The event flags page has 2048 bits per SINT, and bit 0 belongs to no channel.
  public static let valid: ClosedRange<ChannelID> = 1...2047

  public static func < (left: ChannelID, right: ChannelID) -> Bool {
    left.rawValue < right.rawValue
  }
}

extension ChannelID: CustomStringConvertible {
  public var description: String { "\(rawValue)" }
}

/// The number of a GPADL, chosen by the guest and unique on its connection.
public struct GPADLID: WireInteger, Comparable, ExpressibleByIntegerLiteral {
  public var rawValue: UInt32

  public init(rawValue: UInt32) { self.rawValue = rawValue }
  public init(_ value: UInt32) { rawValue = value }
  public init(integerLiteral value: UInt32) { rawValue = value }

  public static func < (left: GPADLID, right: GPADLID) -> Bool { left.rawValue < right.rawValue }
}

extension GPADLID: CustomStringConvertible {
  public var description: String { "0x\(String(rawValue, radix: 16))" }
}

/// The result of a request (an NTSTATUS; errors have the top bit).
public struct ControlStatus: WireInteger {
  public var rawValue: UInt32

  public init(rawValue: UInt32) { self.rawValue = rawValue }

  public static let success = ControlStatus(rawValue: 0)
  /// A request that failed for whatever reason.
  public static let unsuccessful = ControlStatus(rawValue: 0x8000_FFFF)
  /// Nobody listens at the other end of an hvsock connect.
  public static let connectionRefused = ControlStatus(rawValue: 0xC000_0236)

  public var isSuccess: Bool { rawValue == 0 }
  /// The sign bit: the value as NTSTATUS is below zero.
  public var isError: Bool { rawValue & 0x8000_0000 != 0 }
}

extension ControlStatus: CustomStringConvertible {
  public var description: String { "0x\(String(rawValue, radix: 16))" }
}

/// The state that `VersionResponse` and `ModifyConnectionResponse` tell.
public struct ConnectionStatus: WireInteger {
  public var rawValue: UInt8

  public init(rawValue: UInt8) { self.rawValue = rawValue }

  public static let successful = ConnectionStatus(rawValue: 0)
  public static let failedLowResources = ConnectionStatus(rawValue: 1)
  public static let failedUnknownFailure = ConnectionStatus(rawValue: 2)
}

/// The number of a control message.
public struct MessageType: WireInteger {
  public var rawValue: UInt32

  public init(rawValue: UInt32) { self.rawValue = rawValue }

  public static let offerChannel = MessageType(rawValue: 1)
  public static let rescindChannelOffer = MessageType(rawValue: 2)
  public static let requestOffers = MessageType(rawValue: 3)
  public static let allOffersDelivered = MessageType(rawValue: 4)
  public static let openChannel = MessageType(rawValue: 5)
  public static let openChannelResult = MessageType(rawValue: 6)
  public static let closeChannel = MessageType(rawValue: 7)
  public static let gpadlHeader = MessageType(rawValue: 8)
  public static let gpadlBody = MessageType(rawValue: 9)
  public static let gpadlCreated = MessageType(rawValue: 10)
  public static let gpadlTeardown = MessageType(rawValue: 11)
  public static let gpadlTorndown = MessageType(rawValue: 12)
  public static let relIDReleased = MessageType(rawValue: 13)
  public static let initiateContact = MessageType(rawValue: 14)
  public static let versionResponse = MessageType(rawValue: 15)
  public static let unload = MessageType(rawValue: 16)
  public static let unloadComplete = MessageType(rawValue: 17)
  public static let openReservedChannel = MessageType(rawValue: 18)
  public static let closeReservedChannel = MessageType(rawValue: 19)
  public static let closeReservedChannelResponse = MessageType(rawValue: 20)
  public static let tlConnectRequest = MessageType(rawValue: 21)
  public static let modifyChannel = MessageType(rawValue: 22)
  public static let tlConnectResult = MessageType(rawValue: 23)
  public static let modifyChannelResponse = MessageType(rawValue: 24)
  public static let modifyConnection = MessageType(rawValue: 25)
  public static let modifyConnectionResponse = MessageType(rawValue: 26)
  public static let pause = MessageType(rawValue: 27)
  public static let pauseResponse = MessageType(rawValue: 28)
  public static let resume = MessageType(rawValue: 29)
}

extension MessageType: CustomStringConvertible {
  public var description: String {
    ControlMessageTable.row(self).map { $0.name.description } ?? "message \(rawValue)"
  }
}
