// SPDX-License-Identifier: Apache-2.0

import VMBus

/// SEND_RNDIS_PACKET, of both ends: says where a RNDIS message lies, or several behind each other.
public struct NVSPRNDISPacket: NVSPBody, Equatable {
  public var channel = RNDISChannel.data
  /// Of the send buffer; `noSection` where the message lies in the packet's ranges.
  public var sectionIndex: UInt32 = 0xFFFF_FFFF
  /// Bytes used of the section.
  public var sectionByteCount: UInt32 = 0

  @inlinable public init() {}

  @inlinable
  public init(
    channel: RNDISChannel = RNDISChannel.data, sectionIndex: UInt32 = 0xFFFF_FFFF,
    sectionByteCount: UInt32 = 0
  ) {
    self.channel = channel
    self.sectionIndex = sectionIndex
    self.sectionByteCount = sectionByteCount
  }

  @inlinable public static var type: NVSPMessageType { .sendRNDISPacket }
  @inlinable public static var name: WireName { "NVSPRNDISPacket" }
  @inlinable public static var byteCount: Int { 12 }

  @inlinable
  public mutating func visitFields<Visitor: FieldVisitor & ~Copyable & ~Escapable>(
    _ visitor: inout Visitor
  ) {
    visitor.integer("channel", &channel)
    visitor.integer("sectionIndex", &sectionIndex)
    visitor.integer("sectionByteCount", &sectionByteCount)
  }
}

/// SEND_RNDIS_PACKET_COMPLETE, of both ends: the memory of the message may be used again.
public struct NVSPRNDISPacketComplete: NVSPBody, Equatable {
  public var status = NVSPStatus.success

  @inlinable public init() {}

  @inlinable
  public init(status: NVSPStatus = NVSPStatus.success) {
    self.status = status
  }

  @inlinable public static var type: NVSPMessageType { .sendRNDISPacketComplete }
  @inlinable public static var name: WireName { "NVSPRNDISPacketComplete" }
  @inlinable public static var byteCount: Int { 4 }

  @inlinable
  public mutating func visitFields<Visitor: FieldVisitor & ~Copyable & ~Escapable>(
    _ visitor: inout Visitor
  ) {
    visitor.integer("status", &status)
  }
}

/// SEND_VF_ASSOCIATION: the host offers a virtual function, or takes it away.
public struct NVSPVFAssociation: NVSPBody, Equatable {
  /// 1 where there is a virtual function.
  public var isAllocated: UInt32 = 0
  /// Of the virtual function's slot.
  public var serialNumber: UInt32 = 0

  @inlinable public init() {}

  @inlinable
  public init(isAllocated: UInt32 = 0, serialNumber: UInt32 = 0) {
    self.isAllocated = isAllocated
    self.serialNumber = serialNumber
  }

  @inlinable public static var type: NVSPMessageType { .sendVFAssociation }
  @inlinable public static var name: WireName { "NVSPVFAssociation" }
  @inlinable public static var byteCount: Int { 8 }

  @inlinable
  public mutating func visitFields<Visitor: FieldVisitor & ~Copyable & ~Escapable>(
    _ visitor: inout Visitor
  ) {
    visitor.integer("isAllocated", &isAllocated)
    visitor.integer("serialNumber", &serialNumber)
  }
}

/// SWITCH_DATA_PATH: where the host is to send packets.
public struct NVSPSwitchDataPath: NVSPBody, Equatable {
  public var path = NVSPDataPath.synthetic

  @inlinable public init() {}

  @inlinable
  public init(path: NVSPDataPath = NVSPDataPath.synthetic) {
    self.path = path
  }

  @inlinable public static var type: NVSPMessageType { .switchDataPath }
  @inlinable public static var name: WireName { "NVSPSwitchDataPath" }
  @inlinable public static var byteCount: Int { 4 }

  @inlinable
  public mutating func visitFields<Visitor: FieldVisitor & ~Copyable & ~Escapable>(
    _ visitor: inout Visitor
  ) {
    visitor.integer("path", &path)
  }
}

/// OID_QUERY_EX_COMPLETE.
public struct NVSPOIDQueryComplete: NVSPBody, Equatable {
  public var status: UInt32 = 0
  public var answerByteCount: UInt32 = 0

  @inlinable public init() {}

  @inlinable
  public init(status: UInt32 = 0, answerByteCount: UInt32 = 0) {
    self.status = status
    self.answerByteCount = answerByteCount
  }

  @inlinable public static var type: NVSPMessageType { .oidQueryExComplete }
  @inlinable public static var name: WireName { "NVSPOIDQueryComplete" }
  @inlinable public static var byteCount: Int { 8 }

  @inlinable
  public mutating func visitFields<Visitor: FieldVisitor & ~Copyable & ~Escapable>(
    _ visitor: inout Visitor
  ) {
    visitor.integer("status", &status)
    visitor.integer("answerByteCount", &answerByteCount)
  }
}

/// SUBCHANNEL from the client: that many are wanted beside the primary channel.
public struct NVSPSubchannelRequest: NVSPBody, Equatable {
  public var operation = NVSPSubchannelOperation.allocate
  public var count: UInt32 = 0

  @inlinable public init() {}

  @inlinable
  public init(
    operation: NVSPSubchannelOperation = NVSPSubchannelOperation.allocate, count: UInt32 = 0
  ) {
    self.operation = operation
    self.count = count
  }

  @inlinable public static var type: NVSPMessageType { .subchannel }
  @inlinable public static var name: WireName { "NVSPSubchannelRequest" }
  @inlinable public static var byteCount: Int { 8 }

  @inlinable
  public mutating func visitFields<Visitor: FieldVisitor & ~Copyable & ~Escapable>(
    _ visitor: inout Visitor
  ) {
    visitor.integer("operation", &operation)
    visitor.integer("count", &count)
  }
}

/// SUBCHANNEL as the host completes it.
public struct NVSPSubchannelComplete: NVSPBody, Equatable {
  public var status = NVSPStatus.none
  /// Subchannels that the host will offer.
  public var count: UInt32 = 0

  @inlinable public init() {}

  @inlinable
  public init(status: NVSPStatus = NVSPStatus.none, count: UInt32 = 0) {
    self.status = status
    self.count = count
  }

  @inlinable public static var type: NVSPMessageType { .subchannel }
  @inlinable public static var name: WireName { "NVSPSubchannelComplete" }
  @inlinable public static var byteCount: Int { 8 }

  @inlinable
  public mutating func visitFields<Visitor: FieldVisitor & ~Copyable & ~Escapable>(
    _ visitor: inout Visitor
  ) {
    visitor.integer("status", &status)
    visitor.integer("count", &count)
  }
}

/// The start of SEND_INDIRECTION_TABLE; the entries follow.
public struct NVSPIndirectionTableHeader: NVSPBody, Equatable {
  /// Entries: 16.
  public var count: UInt32 = 0
  /// Bytes from the message's start to the first entry.
  public var offset: UInt32 = 0

  @inlinable public init() {}

  @inlinable
  public init(count: UInt32 = 0, offset: UInt32 = 0) {
    self.count = count
    self.offset = offset
  }

  @inlinable public static var type: NVSPMessageType { .sendIndirectionTable }
  @inlinable public static var name: WireName { "NVSPIndirectionTableHeader" }
  @inlinable public static var byteCount: Int { 8 }

  @inlinable
  public mutating func visitFields<Visitor: FieldVisitor & ~Copyable & ~Escapable>(
    _ visitor: inout Visitor
  ) {
    visitor.integer("count", &count)
    visitor.integer("offset", &offset)
  }
}

extension NVSPRNDISPacket {
  /// The section index of a message that lies in no section.
  @inlinable public static var noSection: UInt32 { 0xFFFF_FFFF }
}

/// Which kind of RNDIS message a packet carries.
public struct RNDISChannel: WireInteger {
  public var rawValue: UInt32
  @inlinable public init(rawValue: UInt32) { self.rawValue = rawValue }

  @inlinable public static var data: Self { Self(rawValue: 0) }
  @inlinable public static var control: Self { Self(rawValue: 1) }
}

/// Where packets go.
public struct NVSPDataPath: WireInteger {
  public var rawValue: UInt32
  @inlinable public init(rawValue: UInt32) { self.rawValue = rawValue }

  @inlinable public static var synthetic: Self { Self(rawValue: 0) }
  @inlinable public static var virtualFunction: Self { Self(rawValue: 1) }
}

public struct NVSPSubchannelOperation: WireInteger {
  public var rawValue: UInt32
  @inlinable public init(rawValue: UInt32) { self.rawValue = rawValue }

  @inlinable public static var none: Self { Self(rawValue: 0) }
  @inlinable public static var allocate: Self { Self(rawValue: 1) }
}

/// What a client can do (SEND_NDIS_CONFIG).
public struct NVSPCapabilities: OptionSet, WireInteger {
  public var rawValue: UInt64
  @inlinable public init(rawValue: UInt64) { self.rawValue = rawValue }

  @inlinable public static var virtualMachineQueues: Self { Self(rawValue: 1 << 0) }
  @inlinable public static var chimney: Self { Self(rawValue: 1 << 1) }
  @inlinable public static var sriov: Self { Self(rawValue: 1 << 2) }
  @inlinable public static var ieee8021q: Self { Self(rawValue: 1 << 3) }
  @inlinable public static var correlationID: Self { Self(rawValue: 1 << 4) }
  @inlinable public static var teaming: Self { Self(rawValue: 1 << 5) }
  @inlinable public static var virtualSubnetID: Self { Self(rawValue: 1 << 6) }
  @inlinable public static var receiveCoalescing: Self { Self(rawValue: 1 << 7) }
}
