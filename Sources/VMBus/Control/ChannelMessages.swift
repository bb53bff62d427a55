// SPDX-License-Identifier: Apache-2.0

// Bodies of the messages about one channel. The 8-byte header is `MessageHeader`.

/// Message 2: the host takes an offer back; the guest must answer with RelIDReleased.
public struct RescindChannelOffer: WireLayout, Equatable {
  public static let name: WireName = "RescindChannelOffer"
  public static let byteCount = 4

  public var channelID = ChannelID(0)

  public init() {}

  public mutating func visitFields<V: FieldVisitor & ~Copyable & ~Escapable>(_ visitor: inout V) {
    visitor.integer("channel_id", &channelID)
  }
}

/// Message 5: the guest opens a channel on a ring that it has described by a GPADL.
public struct OpenChannel: WireLayout, Equatable {
  public static let name: WireName = "OpenChannel"
  public static let byteCount = 140
  /// The target VP of a channel that wants no interrupts.
  public static let interruptsDisabledVP: UInt32 = 0xFFFF_FFFF

  public var channelID = ChannelID(0)
  /// Comes back in the result.
  public var openID: UInt32 = 0
  public var ringGPADL = GPADLID(0)
  /// Which processor is interrupted; `interruptsDisabledVP` for none.
  public var targetVP: UInt32 = 0
  /// The page of the GPADL at which the ring from host to guest starts.
  public var downstreamPageOffset: UInt32 = 0
  public var userData = UserData()

  public init() {}

  public mutating func visitFields<V: FieldVisitor & ~Copyable & ~Escapable>(_ visitor: inout V) {
    visitor.integer("channel_id", &channelID)
    visitor.integer("open_id", &openID)
    visitor.integer("ring_buffer_gpadl_id", &ringGPADL)
    visitor.integer("target_vp", &targetVP)
    visitor.integer("downstream_ring_buffer_page_offset", &downstreamPageOffset)
    visitor.bytes("user_data", &userData.bytes)
  }
}

/// The tail of message 5 where the guest chooses how the channel is signalled (6.0).
public struct SignalParameters: WireLayout, Equatable {
  public static let name: WireName = "SignalParameters"
  public static let byteCount = 8

  /// What the guest will signal the host with.
  public var connectionID: UInt32 = 0
  /// The bit of the event flags page that the host sets.
  public var eventFlag: UInt16 = 0
  /// Bit 0: the interrupt is redirected.
  public var flags: UInt16 = 0

  public init() {}

  public mutating func visitFields<V: FieldVisitor & ~Copyable & ~Escapable>(_ visitor: inout V) {
    visitor.integer("connection_id", &connectionID)
    visitor.integer("event_flag", &eventFlag)
    visitor.integer("flags", &flags)
  }
}

/// Message 6: the host has opened the channel, or not.
public struct OpenChannelResult: WireLayout, Equatable {
  public static let name: WireName = "OpenChannelResult"
  public static let byteCount = 12

  public var channelID = ChannelID(0)
  public var openID: UInt32 = 0
  public var status: ControlStatus = .success

  public init() {}

  public mutating func visitFields<V: FieldVisitor & ~Copyable & ~Escapable>(_ visitor: inout V) {
    visitor.integer("channel_id", &channelID)
    visitor.integer("open_id", &openID)
    visitor.integer("status", &status)
  }
}

/// Message 7: the guest closes a channel; nothing answers it.
public struct CloseChannel: WireLayout, Equatable {
  public static let name: WireName = "CloseChannel"
  public static let byteCount = 4

  public var channelID = ChannelID(0)

  public init() {}

  public mutating func visitFields<V: FieldVisitor & ~Copyable & ~Escapable>(_ visitor: inout V) {
    visitor.integer("channel_id", &channelID)
  }
}

/// Message 13: the guest has forgotten a rescinded channel; its id may be used again.
public struct RelIDReleased: WireLayout, Equatable {
  public static let name: WireName = "RelIDReleased"
  public static let byteCount = 4

  public var channelID = ChannelID(0)

  public init() {}

  public mutating func visitFields<V: FieldVisitor & ~Copyable & ~Escapable>(_ visitor: inout V) {
    visitor.integer("channel_id", &channelID)
  }
}

/// Message 18: opens one of the channels that exist without a connection.
public struct OpenReservedChannel: WireLayout, Equatable {
  public static let name: WireName = "OpenReservedChannel"
  public static let byteCount = 20

  public var channelID = ChannelID(0)
  public var targetVP: UInt32 = 0
  public var targetSINT: UInt32 = 0
  public var ringGPADL = GPADLID(0)
  public var downstreamPageOffset: UInt32 = 0

  public init() {}

  public mutating func visitFields<V: FieldVisitor & ~Copyable & ~Escapable>(_ visitor: inout V) {
    visitor.integer("channel_id", &channelID)
    visitor.integer("target_vp", &targetVP)
    visitor.integer("target_sint", &targetSINT)
    visitor.integer("ring_buffer_gpadl", &ringGPADL)
    visitor.integer("downstream_page_offset", &downstreamPageOffset)
  }
}

/// Message 19: closes a reserved channel; it needs no connection.
public struct CloseReservedChannel: WireLayout, Equatable {
  public static let name: WireName = "CloseReservedChannel"
  public static let byteCount = 12

  public var channelID = ChannelID(0)
  public var targetVP: UInt32 = 0
  public var targetSINT: UInt32 = 0

  public init() {}

  public mutating func visitFields<V: FieldVisitor & ~Copyable & ~Escapable>(_ visitor: inout V) {
    visitor.integer("channel_id", &channelID)
    visitor.integer("target_vp", &targetVP)
    visitor.integer("target_sint", &targetSINT)
  }
}

/// Message 20: the reserved channel is closed.
public struct CloseReservedChannelResponse: WireLayout, Equatable {
  public static let name: WireName = "CloseReservedChannelResponse"
  public static let byteCount = 4

  public var channelID = ChannelID(0)

  public init() {}

  public mutating func visitFields<V: FieldVisitor & ~Copyable & ~Escapable>(_ visitor: inout V) {
    visitor.integer("channel_id", &channelID)
  }
}

/// Message 22: another processor is to be interrupted.
public struct ModifyChannel: WireLayout, Equatable {
  public static let name: WireName = "ModifyChannel"
  public static let byteCount = 8

  public var channelID = ChannelID(0)
  public var targetVP: UInt32 = 0

  public init() {}

  public mutating func visitFields<V: FieldVisitor & ~Copyable & ~Escapable>(_ visitor: inout V) {
    visitor.integer("channel_id", &channelID)
    visitor.integer("target_vp", &targetVP)
  }
}

/// Message 24: since 5.3, the answer to ModifyChannel.
public struct ModifyChannelResponse: WireLayout, Equatable {
  public static let name: WireName = "ModifyChannelResponse"
  public static let byteCount = 8

  public var channelID = ChannelID(0)
  public var status: ControlStatus = .success

  public init() {}

  public mutating func visitFields<V: FieldVisitor & ~Copyable & ~Escapable>(_ visitor: inout V) {
    visitor.integer("channel_id", &channelID)
    visitor.integer("status", &status)
  }
}
