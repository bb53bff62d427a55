// SPDX-License-Identifier: Apache-2.0

import VMBus

/// What an NVSP message is (offset 0).
public struct NVSPMessageType: WireInteger {
  public var rawValue: UInt32
  @inlinable public init(rawValue: UInt32) { self.rawValue = rawValue }

  @inlinable public static var initialize: Self { Self(rawValue: 1) }
  @inlinable public static var initializeComplete: Self { Self(rawValue: 2) }
  @inlinable public static var sendNDISVersion: Self { Self(rawValue: 100) }
  @inlinable public static var sendReceiveBuffer: Self { Self(rawValue: 101) }
  @inlinable public static var sendReceiveBufferComplete: Self { Self(rawValue: 102) }
  @inlinable public static var revokeReceiveBuffer: Self { Self(rawValue: 103) }
  @inlinable public static var sendSendBuffer: Self { Self(rawValue: 104) }
  @inlinable public static var sendSendBufferComplete: Self { Self(rawValue: 105) }
  @inlinable public static var revokeSendBuffer: Self { Self(rawValue: 106) }
  @inlinable public static var sendRNDISPacket: Self { Self(rawValue: 107) }
  @inlinable public static var sendRNDISPacketComplete: Self { Self(rawValue: 108) }
  @inlinable public static var sendNDISConfiguration: Self { Self(rawValue: 125) }
  @inlinable public static var allocateChimneyHandle: Self { Self(rawValue: 126) }
  @inlinable public static var allocateChimneyHandleComplete: Self { Self(rawValue: 127) }
  @inlinable public static var sendVFAssociation: Self { Self(rawValue: 128) }
  @inlinable public static var switchDataPath: Self { Self(rawValue: 129) }
  @inlinable public static var uplinkConnectState: Self { Self(rawValue: 130) }
  @inlinable public static var oidQueryEx: Self { Self(rawValue: 131) }
  @inlinable public static var oidQueryExComplete: Self { Self(rawValue: 132) }
  @inlinable public static var subchannel: Self { Self(rawValue: 133) }
  @inlinable public static var sendIndirectionTable: Self { Self(rawValue: 134) }
  @inlinable public static var pdAPI: Self { Self(rawValue: 135) }
  @inlinable public static var pdPostBatch: Self { Self(rawValue: 136) }

  /// The version that brought a message; nil for one that nobody knows.
  public var firstVersion: NVSPVersion? {
    switch rawValue {
    case 1, 2, 100...108: .v1
    case 109...127: .v2
    case 128...130: .v4
    case 131...134: .v5
    case 135, 136: .v61
    default: nil
    }
  }
}

extension NVSPMessageType: CustomStringConvertible {
  public var description: String {
    switch rawValue {
    case 1: "INIT"
    case 2: "INIT_COMPLETE"
    case 100: "SEND_NDIS_VERSION"
    case 101: "SEND_RECEIVE_BUFFER"
    case 102: "SEND_RECEIVE_BUFFER_COMPLETE"
    case 103: "REVOKE_RECEIVE_BUFFER"
    case 104: "SEND_SEND_BUFFER"
    case 105: "SEND_SEND_BUFFER_COMPLETE"
    case 106: "REVOKE_SEND_BUFFER"
    case 107: "SEND_RNDIS_PACKET"
    case 108: "SEND_RNDIS_PACKET_COMPLETE"
    case 125: "SEND_NDIS_CONFIG"
    case 126: "ALLOCATE_CHIMNEY_HANDLE"
    case 127: "ALLOCATE_CHIMNEY_HANDLE_COMPLETE"
    case 128: "SEND_VF_ASSOCIATION"
    case 129: "SWITCH_DATA_PATH"
    case 130: "UPLINK_CONNECT_STATE"
    case 131: "OID_QUERY_EX"
    case 132: "OID_QUERY_EX_COMPLETE"
    case 133: "SUBCHANNEL"
    case 134: "SEND_INDIRECTION_TABLE"
    case 135: "PD_API"
    case 136: "PD_POST_BATCH"
    default: "NVSP message \(rawValue)"
    }
  }
}

/// The outcome that a completion of NVSP tells.
public struct NVSPStatus: WireInteger {
  public var rawValue: UInt32
  @inlinable public init(rawValue: UInt32) { self.rawValue = rawValue }

  @inlinable public static var none: Self { Self(rawValue: 0) }
  @inlinable public static var success: Self { Self(rawValue: 1) }
  @inlinable public static var failure: Self { Self(rawValue: 2) }
  @inlinable public static var protocolTooNew: Self { Self(rawValue: 3) }
  @inlinable public static var protocolTooOld: Self { Self(rawValue: 4) }
  @inlinable public static var invalidRNDISPacket: Self { Self(rawValue: 5) }
  @inlinable public static var busy: Self { Self(rawValue: 6) }
  @inlinable public static var protocolUnsupported: Self { Self(rawValue: 7) }
}

extension NVSPStatus: CustomStringConvertible {
  public var description: String {
    switch rawValue {
    case 0: "NONE"
    case 1: "SUCCESS"
    case 2: "FAILURE"
    case 3: "PROTOCOL_TOO_NEW"
    case 4: "PROTOCOL_TOO_OLD"
    case 5: "INVALID_RNDIS_PACKET"
    case 6: "BUSY"
    case 7: "PROTOCOL_UNSUPPORTED"
    default: "status \(rawValue)"
    }
  }
}

/// What each NVSP message begins with; the body follows at offset 4.
public struct NVSPHeader: WireLayout, Equatable {
  public var type = NVSPMessageType(rawValue: 0)

  @inlinable public init() {}
  @inlinable public init(_ type: NVSPMessageType) { self.type = type }

  @inlinable public static var name: WireName { "NVSPHeader" }
  @inlinable public static var byteCount: Int { 4 }

  @inlinable
  public mutating func visitFields<Visitor: FieldVisitor & ~Copyable & ~Escapable>(
    _ visitor: inout Visitor
  ) {
    visitor.integer("type", &type)
  }
}

/// The body of one message.
public protocol NVSPBody: WireLayout {
  static var type: NVSPMessageType { get }
}

extension NVSPBody {
  /// Parses a whole message of this type, header included.
  @inlinable
  public init(message: RawSpan) throws(WireError) {
    let header = try NVSPHeader(parsing: message)
    guard header.type == Self.type else {
      throw .unknownType(Self.name, value: UInt64(header.type.rawValue))
    }
    try self.init(parsing: message.extracting(droppingFirst: NVSPHeader.byteCount))
  }

  /// The whole message, as long as the longest of any version: unused bytes are zero. Send the
  /// first `NVSPVersion.messageByteCount` bytes of it, or all.
  @inlinable public var message: NVSPMessage {
    var message = NVSPMessage(repeating: 0)
    NVSPHeader(Self.type).write(into: &message)
    write(into: &message, at: NVSPHeader.byteCount)
    return message
  }
}

/// The bytes of one message.
public typealias NVSPMessage = InlineArray<40, UInt8>
