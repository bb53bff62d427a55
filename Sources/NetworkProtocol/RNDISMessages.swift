// SPDX-License-Identifier: Apache-2.0

import VMBus

/// INITIALIZE.
public struct RNDISInitialize: RNDISBody, Equatable {
  /// The client's; comes back in the completion.
  public var requestID: UInt32 = 0
  public var majorVersion: UInt32 = 1
  public var minorVersion: UInt32 = 0
  /// Bytes of one message that the client receives.
  public var maximumTransferByteCount: UInt32 = 0x4000

  @inlinable public init() {}

  @inlinable
  public init(
    requestID: UInt32 = 0, majorVersion: UInt32 = 1, minorVersion: UInt32 = 0,
    maximumTransferByteCount: UInt32 = 0x4000
  ) {
    self.requestID = requestID
    self.majorVersion = majorVersion
    self.minorVersion = minorVersion
    self.maximumTransferByteCount = maximumTransferByteCount
  }

  @inlinable public static var type: RNDISMessageType { .initialize }
  @inlinable public static var name: WireName { "RNDISInitialize" }
  @inlinable public static var byteCount: Int { 16 }

  @inlinable
  public mutating func visitFields<Visitor: FieldVisitor & ~Copyable & ~Escapable>(
    _ visitor: inout Visitor
  ) {
    visitor.integer("requestID", &requestID)
    visitor.integer("majorVersion", &majorVersion)
    visitor.integer("minorVersion", &minorVersion)
    visitor.integer("maximumTransferByteCount", &maximumTransferByteCount)
  }
}

/// INITIALIZE's completion.
public struct RNDISInitializeComplete: RNDISBody, Equatable {
  /// The client's; comes back in the completion.
  public var requestID: UInt32 = 0
  public var status = RNDISStatus.success
  public var majorVersion: UInt32 = 1
  public var minorVersion: UInt32 = 0
  /// 1 for connectionless.
  public var deviceFlags: UInt32 = 1
  /// 0 for 802.3.
  public var medium: UInt32 = 0
  /// Data messages that may follow each other in one NVSP packet.
  public var maximumPacketsPerMessage: UInt32 = 8
  /// Bytes of one NVSP packet's messages.
  public var maximumTransferByteCount: UInt32 = 0xEFFF_FFFF
  /// Messages that follow each other start at multiples of 2 to this power.
  public var packetAlignment: UInt32 = 3

  @inlinable public init() {}

  @inlinable
  public init(
    requestID: UInt32 = 0, status: RNDISStatus = RNDISStatus.success, majorVersion: UInt32 = 1,
    minorVersion: UInt32 = 0, deviceFlags: UInt32 = 1, medium: UInt32 = 0,
    maximumPacketsPerMessage: UInt32 = 8, maximumTransferByteCount: UInt32 = 0xEFFF_FFFF,
    packetAlignment: UInt32 = 3
  ) {
    self.requestID = requestID
    self.status = status
    self.majorVersion = majorVersion
    self.minorVersion = minorVersion
    self.deviceFlags = deviceFlags
    self.medium = medium
    self.maximumPacketsPerMessage = maximumPacketsPerMessage
    self.maximumTransferByteCount = maximumTransferByteCount
    self.packetAlignment = packetAlignment
  }

  @inlinable public static var type: RNDISMessageType { .initializeComplete }
  @inlinable public static var name: WireName { "RNDISInitializeComplete" }
  @inlinable public static var byteCount: Int { 44 }

  @inlinable
  public mutating func visitFields<Visitor: FieldVisitor & ~Copyable & ~Escapable>(
    _ visitor: inout Visitor
  ) {
    visitor.integer("requestID", &requestID)
    visitor.integer("status", &status)
    visitor.integer("majorVersion", &majorVersion)
    visitor.integer("minorVersion", &minorVersion)
    visitor.integer("deviceFlags", &deviceFlags)
    visitor.integer("medium", &medium)
    visitor.integer("maximumPacketsPerMessage", &maximumPacketsPerMessage)
    visitor.integer("maximumTransferByteCount", &maximumTransferByteCount)
    visitor.integer("packetAlignment", &packetAlignment)
    visitor.padding(8)
  }
}

/// HALT; it has no completion.
public struct RNDISHalt: RNDISBody, Equatable {
  /// The client's; comes back in the completion.
  public var requestID: UInt32 = 0

  @inlinable public init() {}

  @inlinable
  public init(requestID: UInt32 = 0) {
    self.requestID = requestID
  }

  @inlinable public static var type: RNDISMessageType { .halt }
  @inlinable public static var name: WireName { "RNDISHalt" }
  @inlinable public static var byteCount: Int { 4 }

  @inlinable
  public mutating func visitFields<Visitor: FieldVisitor & ~Copyable & ~Escapable>(
    _ visitor: inout Visitor
  ) {
    visitor.integer("requestID", &requestID)
  }
}

/// QUERY; an information buffer may follow.
public struct RNDISQuery: RNDISBody, Equatable {
  /// The client's; comes back in the completion.
  public var requestID: UInt32 = 0
  public var oid = OID(rawValue: 0)
  public var bufferByteCount: UInt32 = 0
  /// Bytes from the body's start, `requestID`.
  public var bufferOffset: UInt32 = 20

  @inlinable public init() {}

  @inlinable
  public init(
    requestID: UInt32 = 0, oid: OID = OID(rawValue: 0), bufferByteCount: UInt32 = 0,
    bufferOffset: UInt32 = 20
  ) {
    self.requestID = requestID
    self.oid = oid
    self.bufferByteCount = bufferByteCount
    self.bufferOffset = bufferOffset
  }

  @inlinable public static var type: RNDISMessageType { .query }
  @inlinable public static var name: WireName { "RNDISQuery" }
  @inlinable public static var byteCount: Int { 20 }

  @inlinable
  public mutating func visitFields<Visitor: FieldVisitor & ~Copyable & ~Escapable>(
    _ visitor: inout Visitor
  ) {
    visitor.integer("requestID", &requestID)
    visitor.integer("oid", &oid)
    visitor.integer("bufferByteCount", &bufferByteCount)
    visitor.integer("bufferOffset", &bufferOffset)
    visitor.padding(4)
  }
}

/// QUERY's completion, with an information buffer.
public struct RNDISQueryComplete: RNDISBody, Equatable {
  /// The client's; comes back in the completion.
  public var requestID: UInt32 = 0
  public var status = RNDISStatus.success
  public var bufferByteCount: UInt32 = 0
  /// Bytes from the body's start, `requestID`.
  public var bufferOffset: UInt32 = 16

  @inlinable public init() {}

  @inlinable
  public init(
    requestID: UInt32 = 0, status: RNDISStatus = RNDISStatus.success, bufferByteCount: UInt32 = 0,
    bufferOffset: UInt32 = 16
  ) {
    self.requestID = requestID
    self.status = status
    self.bufferByteCount = bufferByteCount
    self.bufferOffset = bufferOffset
  }

  @inlinable public static var type: RNDISMessageType { .queryComplete }
  @inlinable public static var name: WireName { "RNDISQueryComplete" }
  @inlinable public static var byteCount: Int { 16 }

  @inlinable
  public mutating func visitFields<Visitor: FieldVisitor & ~Copyable & ~Escapable>(
    _ visitor: inout Visitor
  ) {
    visitor.integer("requestID", &requestID)
    visitor.integer("status", &status)
    visitor.integer("bufferByteCount", &bufferByteCount)
    visitor.integer("bufferOffset", &bufferOffset)
  }
}

/// SET, with an information buffer.
public struct RNDISSet: RNDISBody, Equatable {
  /// The client's; comes back in the completion.
  public var requestID: UInt32 = 0
  public var oid = OID(rawValue: 0)
  public var bufferByteCount: UInt32 = 0
  /// Bytes from the body's start, `requestID`.
  public var bufferOffset: UInt32 = 20

  @inlinable public init() {}

  @inlinable
  public init(
    requestID: UInt32 = 0, oid: OID = OID(rawValue: 0), bufferByteCount: UInt32 = 0,
    bufferOffset: UInt32 = 20
  ) {
    self.requestID = requestID
    self.oid = oid
    self.bufferByteCount = bufferByteCount
    self.bufferOffset = bufferOffset
  }

  @inlinable public static var type: RNDISMessageType { .set }
  @inlinable public static var name: WireName { "RNDISSet" }
  @inlinable public static var byteCount: Int { 20 }

  @inlinable
  public mutating func visitFields<Visitor: FieldVisitor & ~Copyable & ~Escapable>(
    _ visitor: inout Visitor
  ) {
    visitor.integer("requestID", &requestID)
    visitor.integer("oid", &oid)
    visitor.integer("bufferByteCount", &bufferByteCount)
    visitor.integer("bufferOffset", &bufferOffset)
    visitor.padding(4)
  }
}

/// SET's completion.
public struct RNDISSetComplete: RNDISBody, Equatable {
  /// The client's; comes back in the completion.
  public var requestID: UInt32 = 0
  public var status = RNDISStatus.success

  @inlinable public init() {}

  @inlinable
  public init(requestID: UInt32 = 0, status: RNDISStatus = RNDISStatus.success) {
    self.requestID = requestID
    self.status = status
  }

  @inlinable public static var type: RNDISMessageType { .setComplete }
  @inlinable public static var name: WireName { "RNDISSetComplete" }
  @inlinable public static var byteCount: Int { 8 }

  @inlinable
  public mutating func visitFields<Visitor: FieldVisitor & ~Copyable & ~Escapable>(
    _ visitor: inout Visitor
  ) {
    visitor.integer("requestID", &requestID)
    visitor.integer("status", &status)
  }
}

/// RESET.
public struct RNDISReset: RNDISBody, Equatable {

  @inlinable public init() {}

  @inlinable public static var type: RNDISMessageType { .reset }
  @inlinable public static var name: WireName { "RNDISReset" }
  @inlinable public static var byteCount: Int { 4 }

  @inlinable
  public mutating func visitFields<Visitor: FieldVisitor & ~Copyable & ~Escapable>(
    _ visitor: inout Visitor
  ) {
    visitor.padding(4)
  }
}

/// RESET's completion.
public struct RNDISResetComplete: RNDISBody, Equatable {
  public var status = RNDISStatus.success
  /// Not zero: multicast lists and packet filter have to be set again.
  public var addressingReset: UInt32 = 0

  @inlinable public init() {}

  @inlinable
  public init(status: RNDISStatus = RNDISStatus.success, addressingReset: UInt32 = 0) {
    self.status = status
    self.addressingReset = addressingReset
  }

  @inlinable public static var type: RNDISMessageType { .resetComplete }
  @inlinable public static var name: WireName { "RNDISResetComplete" }
  @inlinable public static var byteCount: Int { 8 }

  @inlinable
  public mutating func visitFields<Visitor: FieldVisitor & ~Copyable & ~Escapable>(
    _ visitor: inout Visitor
  ) {
    visitor.integer("status", &status)
    visitor.integer("addressingReset", &addressingReset)
  }
}

/// INDICATE_STATUS: the host tells a change.
public struct RNDISIndicateStatus: RNDISBody, Equatable {
  public var status = RNDISStatus.success
  public var bufferByteCount: UInt32 = 0
  /// Bytes from the body's start, `status`.
  public var bufferOffset: UInt32 = 0

  @inlinable public init() {}

  @inlinable
  public init(
    status: RNDISStatus = RNDISStatus.success, bufferByteCount: UInt32 = 0, bufferOffset: UInt32 = 0
  ) {
    self.status = status
    self.bufferByteCount = bufferByteCount
    self.bufferOffset = bufferOffset
  }

  @inlinable public static var type: RNDISMessageType { .indicateStatus }
  @inlinable public static var name: WireName { "RNDISIndicateStatus" }
  @inlinable public static var byteCount: Int { 12 }

  @inlinable
  public mutating func visitFields<Visitor: FieldVisitor & ~Copyable & ~Escapable>(
    _ visitor: inout Visitor
  ) {
    visitor.integer("status", &status)
    visitor.integer("bufferByteCount", &bufferByteCount)
    visitor.integer("bufferOffset", &bufferOffset)
  }
}

/// KEEPALIVE, of either end.
public struct RNDISKeepalive: RNDISBody, Equatable {
  /// The client's; comes back in the completion.
  public var requestID: UInt32 = 0

  @inlinable public init() {}

  @inlinable
  public init(requestID: UInt32 = 0) {
    self.requestID = requestID
  }

  @inlinable public static var type: RNDISMessageType { .keepalive }
  @inlinable public static var name: WireName { "RNDISKeepalive" }
  @inlinable public static var byteCount: Int { 4 }

  @inlinable
  public mutating func visitFields<Visitor: FieldVisitor & ~Copyable & ~Escapable>(
    _ visitor: inout Visitor
  ) {
    visitor.integer("requestID", &requestID)
  }
}

/// KEEPALIVE's completion.
public struct RNDISKeepaliveComplete: RNDISBody, Equatable {
  /// The client's; comes back in the completion.
  public var requestID: UInt32 = 0
  public var status = RNDISStatus.success

  @inlinable public init() {}

  @inlinable
  public init(requestID: UInt32 = 0, status: RNDISStatus = RNDISStatus.success) {
    self.requestID = requestID
    self.status = status
  }

  @inlinable public static var type: RNDISMessageType { .keepaliveComplete }
  @inlinable public static var name: WireName { "RNDISKeepaliveComplete" }
  @inlinable public static var byteCount: Int { 8 }

  @inlinable
  public mutating func visitFields<Visitor: FieldVisitor & ~Copyable & ~Escapable>(
    _ visitor: inout Visitor
  ) {
    visitor.integer("requestID", &requestID)
    visitor.integer("status", &status)
  }
}
