// SPDX-License-Identifier: Apache-2.0

import VMBus

/// INIT: the versions that a client can speak. Hosts look at the first only, so both are the same.
public struct NVSPInitialize: NVSPBody, Equatable {
  public var minimum = NVSPVersion.v61
  public var maximum = NVSPVersion.v61

  @inlinable public init() {}

  @inlinable
  public init(minimum: NVSPVersion = NVSPVersion.v61, maximum: NVSPVersion = NVSPVersion.v61) {
    self.minimum = minimum
    self.maximum = maximum
  }

  @inlinable public static var type: NVSPMessageType { .initialize }
  @inlinable public static var name: WireName { "NVSPInitialize" }
  @inlinable public static var byteCount: Int { 8 }

  @inlinable
  public mutating func visitFields<Visitor: FieldVisitor & ~Copyable & ~Escapable>(
    _ visitor: inout Visitor
  ) {
    visitor.integer("minimum", &minimum)
    visitor.integer("maximum", &maximum)
  }
}

/// INIT_COMPLETE.
public struct NVSPInitializeComplete: NVSPBody, Equatable {
  /// The version in the answer of a host of version 1; all others say 0xFFFFFFFF.
  public var version: UInt32 = 0xFFFF_FFFF
  /// Pieces of memory that one packet may consist of.
  public var maximumMDLChainLength: UInt32 = 0
  public var status = NVSPStatus.none

  @inlinable public init() {}

  @inlinable
  public init(
    version: UInt32 = 0xFFFF_FFFF, maximumMDLChainLength: UInt32 = 0,
    status: NVSPStatus = NVSPStatus.none
  ) {
    self.version = version
    self.maximumMDLChainLength = maximumMDLChainLength
    self.status = status
  }

  @inlinable public static var type: NVSPMessageType { .initializeComplete }
  @inlinable public static var name: WireName { "NVSPInitializeComplete" }
  @inlinable public static var byteCount: Int { 12 }

  @inlinable
  public mutating func visitFields<Visitor: FieldVisitor & ~Copyable & ~Escapable>(
    _ visitor: inout Visitor
  ) {
    visitor.integer("version", &version)
    visitor.integer("maximumMDLChainLength", &maximumMDLChainLength)
    visitor.integer("status", &status)
  }
}

/// SEND_NDIS_VERSION; no completion tells anything of it.
public struct NVSPNDISVersion: NVSPBody, Equatable {
  public var major: UInt32 = 0
  public var minor: UInt32 = 0

  @inlinable public init() {}

  @inlinable
  public init(major: UInt32 = 0, minor: UInt32 = 0) {
    self.major = major
    self.minor = minor
  }

  @inlinable public static var type: NVSPMessageType { .sendNDISVersion }
  @inlinable public static var name: WireName { "NVSPNDISVersion" }
  @inlinable public static var byteCount: Int { 8 }

  @inlinable
  public mutating func visitFields<Visitor: FieldVisitor & ~Copyable & ~Escapable>(
    _ visitor: inout Visitor
  ) {
    visitor.integer("major", &major)
    visitor.integer("minor", &minor)
  }
}

/// SEND_NDIS_CONFIG: it precedes the buffers.
public struct NVSPNDISConfiguration: NVSPBody, Equatable {
  /// Bytes of the largest frame, Ethernet header included: MTU + 14.
  public var frameByteCount: UInt32 = 0
  public var capabilities: NVSPCapabilities = []

  @inlinable public init() {}

  @inlinable
  public init(frameByteCount: UInt32 = 0, capabilities: NVSPCapabilities = []) {
    self.frameByteCount = frameByteCount
    self.capabilities = capabilities
  }

  @inlinable public static var type: NVSPMessageType { .sendNDISConfiguration }
  @inlinable public static var name: WireName { "NVSPNDISConfiguration" }
  @inlinable public static var byteCount: Int { 16 }

  @inlinable
  public mutating func visitFields<Visitor: FieldVisitor & ~Copyable & ~Escapable>(
    _ visitor: inout Visitor
  ) {
    visitor.integer("frameByteCount", &frameByteCount)
    visitor.padding(4)
    visitor.integer("capabilities", &capabilities)
  }
}

/// SEND_RECEIVE_BUFFER: memory that the host writes received packets to.
public struct NVSPReceiveBuffer: NVSPBody, Equatable {
  public var gpadl: UInt32 = 0
  public var id: UInt16 = 0

  @inlinable public init() {}

  @inlinable
  public init(gpadl: UInt32 = 0, id: UInt16 = 0) {
    self.gpadl = gpadl
    self.id = id
  }

  @inlinable public static var type: NVSPMessageType { .sendReceiveBuffer }
  @inlinable public static var name: WireName { "NVSPReceiveBuffer" }
  @inlinable public static var byteCount: Int { 8 }

  @inlinable
  public mutating func visitFields<Visitor: FieldVisitor & ~Copyable & ~Escapable>(
    _ visitor: inout Visitor
  ) {
    visitor.integer("gpadl", &gpadl)
    visitor.integer("id", &id)
    visitor.padding(2)
  }
}

/// How a host divides a receive buffer.
public struct ReceiveBufferSection: WireLayout, Equatable {
  /// Bytes from the buffer's start.
  public var offset: UInt32 = 0
  public var suballocationByteCount: UInt32 = 0
  public var suballocationCount: UInt32 = 0
  /// Bytes from the buffer's start to behind the last sub-allocation.
  public var endOffset: UInt32 = 0

  @inlinable public init() {}

  @inlinable
  public init(
    offset: UInt32 = 0, suballocationByteCount: UInt32 = 0, suballocationCount: UInt32 = 0,
    endOffset: UInt32 = 0
  ) {
    self.offset = offset
    self.suballocationByteCount = suballocationByteCount
    self.suballocationCount = suballocationCount
    self.endOffset = endOffset
  }

  @inlinable public static var name: WireName { "ReceiveBufferSection" }
  @inlinable public static var byteCount: Int { 16 }

  @inlinable
  public mutating func visitFields<Visitor: FieldVisitor & ~Copyable & ~Escapable>(
    _ visitor: inout Visitor
  ) {
    visitor.integer("offset", &offset)
    visitor.integer("suballocationByteCount", &suballocationByteCount)
    visitor.integer("suballocationCount", &suballocationCount)
    visitor.integer("endOffset", &endOffset)
  }
}

/// SEND_RECEIVE_BUFFER_COMPLETE.
public struct NVSPReceiveBufferComplete: NVSPBody, Equatable {
  public var status = NVSPStatus.none
  /// Always 1.
  public var sectionCount: UInt32 = 0
  /// The first section.
  public var section = ReceiveBufferSection()

  @inlinable public init() {}

  @inlinable
  public init(
    status: NVSPStatus = NVSPStatus.none, sectionCount: UInt32 = 0,
    section: ReceiveBufferSection = ReceiveBufferSection()
  ) {
    self.status = status
    self.sectionCount = sectionCount
    self.section = section
  }

  @inlinable public static var type: NVSPMessageType { .sendReceiveBufferComplete }
  @inlinable public static var name: WireName { "NVSPReceiveBufferComplete" }
  @inlinable public static var byteCount: Int { 24 }

  @inlinable
  public mutating func visitFields<Visitor: FieldVisitor & ~Copyable & ~Escapable>(
    _ visitor: inout Visitor
  ) {
    visitor.integer("status", &status)
    visitor.integer("sectionCount", &sectionCount)
    visitor.structure("section", &section)
  }
}

/// REVOKE_RECEIVE_BUFFER: no completion; the GPADL can be torn down after it.
public struct NVSPRevokeReceiveBuffer: NVSPBody, Equatable {
  public var id: UInt16 = 0

  @inlinable public init() {}

  @inlinable
  public init(id: UInt16 = 0) {
    self.id = id
  }

  @inlinable public static var type: NVSPMessageType { .revokeReceiveBuffer }
  @inlinable public static var name: WireName { "NVSPRevokeReceiveBuffer" }
  @inlinable public static var byteCount: Int { 4 }

  @inlinable
  public mutating func visitFields<Visitor: FieldVisitor & ~Copyable & ~Escapable>(
    _ visitor: inout Visitor
  ) {
    visitor.integer("id", &id)
    visitor.padding(2)
  }
}

/// SEND_SEND_BUFFER: memory that the host reads small packets from.
public struct NVSPSendBuffer: NVSPBody, Equatable {
  public var gpadl: UInt32 = 0
  public var id: UInt16 = 0

  @inlinable public init() {}

  @inlinable
  public init(gpadl: UInt32 = 0, id: UInt16 = 0) {
    self.gpadl = gpadl
    self.id = id
  }

  @inlinable public static var type: NVSPMessageType { .sendSendBuffer }
  @inlinable public static var name: WireName { "NVSPSendBuffer" }
  @inlinable public static var byteCount: Int { 8 }

  @inlinable
  public mutating func visitFields<Visitor: FieldVisitor & ~Copyable & ~Escapable>(
    _ visitor: inout Visitor
  ) {
    visitor.integer("gpadl", &gpadl)
    visitor.integer("id", &id)
    visitor.padding(2)
  }
}

/// SEND_SEND_BUFFER_COMPLETE.
public struct NVSPSendBufferComplete: NVSPBody, Equatable {
  public var status = NVSPStatus.none
  /// The buffer is cut into sections of that many bytes.
  public var sectionByteCount: UInt32 = 0

  @inlinable public init() {}

  @inlinable
  public init(status: NVSPStatus = NVSPStatus.none, sectionByteCount: UInt32 = 0) {
    self.status = status
    self.sectionByteCount = sectionByteCount
  }

  @inlinable public static var type: NVSPMessageType { .sendSendBufferComplete }
  @inlinable public static var name: WireName { "NVSPSendBufferComplete" }
  @inlinable public static var byteCount: Int { 8 }

  @inlinable
  public mutating func visitFields<Visitor: FieldVisitor & ~Copyable & ~Escapable>(
    _ visitor: inout Visitor
  ) {
    visitor.integer("status", &status)
    visitor.integer("sectionByteCount", &sectionByteCount)
  }
}

/// REVOKE_SEND_BUFFER.
public struct NVSPRevokeSendBuffer: NVSPBody, Equatable {
  public var id: UInt16 = 0

  @inlinable public init() {}

  @inlinable
  public init(id: UInt16 = 0) {
    self.id = id
  }

  @inlinable public static var type: NVSPMessageType { .revokeSendBuffer }
  @inlinable public static var name: WireName { "NVSPRevokeSendBuffer" }
  @inlinable public static var byteCount: Int { 4 }

  @inlinable
  public mutating func visitFields<Visitor: FieldVisitor & ~Copyable & ~Escapable>(
    _ visitor: inout Visitor
  ) {
    visitor.integer("id", &id)
    visitor.padding(2)
  }
}
