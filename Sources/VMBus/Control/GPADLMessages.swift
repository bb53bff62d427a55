// SPDX-License-Identifier: Apache-2.0

// Bodies of the messages about GPADLs; how ranges lie in them is in GPADL.swift.

/// Message 8: the start of a GPADL; up to 27 words of its ranges follow.
public struct GPADLHeader: WireLayout, Equatable {
  public static let name: WireName = "GPADLHeader"
  public static let byteCount = 12

  public var channelID = ChannelID(0)
  public var gpadlID = GPADLID(0)
  /// Bytes of all ranges, over this message and the bodies that follow.
  public var length: UInt16 = 0
  public var rangeCount: UInt16 = 0

  public init() {}

  public mutating func visitFields<V: FieldVisitor & ~Copyable & ~Escapable>(_ visitor: inout V) {
    visitor.integer("channel_id", &channelID)
    visitor.integer("gpadl_id", &gpadlID)
    visitor.integer("len", &length)
    visitor.integer("count", &rangeCount)
  }
}

/// Message 9: up to 28 more words. It names no channel, so the id alone must tell the GPADL.
public struct GPADLBody: WireLayout, Equatable {
  public static let name: WireName = "GPADLBody"
  public static let byteCount = 8

  public var reserved: UInt32 = 0
  public var gpadlID = GPADLID(0)

  public init() {}

  public mutating func visitFields<V: FieldVisitor & ~Copyable & ~Escapable>(_ visitor: inout V) {
    visitor.integer("rsvd", &reserved)
    visitor.integer("gpadl_id", &gpadlID)
  }
}

/// Message 10: the host knows the GPADL, or has refused it.
public struct GPADLCreated: WireLayout, Equatable {
  public static let name: WireName = "GPADLCreated"
  public static let byteCount = 12

  public var channelID = ChannelID(0)
  public var gpadlID = GPADLID(0)
  public var status: ControlStatus = .success

  public init() {}

  public mutating func visitFields<V: FieldVisitor & ~Copyable & ~Escapable>(_ visitor: inout V) {
    visitor.integer("channel_id", &channelID)
    visitor.integer("gpadl_id", &gpadlID)
    visitor.integer("status", &status)
  }
}

/// Message 11: the guest wants its memory back.
public struct GPADLTeardown: WireLayout, Equatable {
  public static let name: WireName = "GPADLTeardown"
  public static let byteCount = 8

  public var channelID = ChannelID(0)
  public var gpadlID = GPADLID(0)

  public init() {}

  public mutating func visitFields<V: FieldVisitor & ~Copyable & ~Escapable>(_ visitor: inout V) {
    visitor.integer("channel_id", &channelID)
    visitor.integer("gpadl_id", &gpadlID)
  }
}

/// Message 12: the host no longer touches the memory.
public struct GPADLTorndown: WireLayout, Equatable {
  public static let name: WireName = "GPADLTorndown"
  public static let byteCount = 4

  public var gpadlID = GPADLID(0)

  public init() {}

  public mutating func visitFields<V: FieldVisitor & ~Copyable & ~Escapable>(_ visitor: inout V) {
    visitor.integer("gpadl_id", &gpadlID)
  }
}
