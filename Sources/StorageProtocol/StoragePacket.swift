// SPDX-License-Identifier: Apache-2.0

import VMBus

/// What a storage packet asks for (header, offset 0).
public struct StorageOperation: WireInteger {
  public var rawValue: UInt32
  @inlinable public init(rawValue: UInt32) { self.rawValue = rawValue }

  @inlinable public static var completeIO: Self { Self(rawValue: 1) }
  @inlinable public static var removeDevice: Self { Self(rawValue: 2) }
  @inlinable public static var executeSRB: Self { Self(rawValue: 3) }
  @inlinable public static var resetLUN: Self { Self(rawValue: 4) }
  @inlinable public static var resetAdapter: Self { Self(rawValue: 5) }
  @inlinable public static var resetBus: Self { Self(rawValue: 6) }
  @inlinable public static var beginInitialization: Self { Self(rawValue: 7) }
  @inlinable public static var endInitialization: Self { Self(rawValue: 8) }
  @inlinable public static var queryProtocolVersion: Self { Self(rawValue: 9) }
  @inlinable public static var queryProperties: Self { Self(rawValue: 10) }
  @inlinable public static var enumerateBus: Self { Self(rawValue: 11) }
  @inlinable public static var fibreChannelData: Self { Self(rawValue: 12) }
  @inlinable public static var createSubchannels: Self { Self(rawValue: 13) }
  @inlinable public static var eventNotification: Self { Self(rawValue: 14) }
}

extension StorageOperation: CustomStringConvertible {
  public var description: String {
    switch self {
    case .completeIO: "COMPLETE_IO"
    case .removeDevice: "REMOVE_DEVICE"
    case .executeSRB: "EXECUTE_SRB"
    case .resetLUN: "RESET_LUN"
    case .resetAdapter: "RESET_ADAPTER"
    case .resetBus: "RESET_BUS"
    case .beginInitialization: "BEGIN_INITIALIZATION"
    case .endInitialization: "END_INITIALIZATION"
    case .queryProtocolVersion: "QUERY_PROTOCOL_VERSION"
    case .queryProperties: "QUERY_PROPERTIES"
    case .enumerateBus: "ENUMERATE_BUS"
    case .fibreChannelData: "FC_HBA_DATA"
    case .createSubchannels: "CREATE_SUB_CHANNELS"
    case .eventNotification: "EVENT_NOTIFICATION"
    default: "operation \(rawValue)"
    }
  }
}

/// The flags of a storage packet (header, offset 4).
public struct StoragePacketFlags: OptionSet, WireInteger {
  public var rawValue: UInt32
  @inlinable public init(rawValue: UInt32) { self.rawValue = rawValue }

  /// The sender wants a completion. It goes with the same bit of the packet descriptor.
  @inlinable public static var requestCompletion: Self { Self(rawValue: 1) }
}

/// What each storage packet begins with; the body follows at offset 12.
public struct StoragePacketHeader: WireLayout, Equatable {
  public var operation = StorageOperation(rawValue: 0)
  public var flags: StoragePacketFlags = []
  /// Zero from the client; the result in a completion.
  public var status = NTStatus.success

  @inlinable public init() {}

  @inlinable
  public init(
    _ operation: StorageOperation, flags: StoragePacketFlags = [], status: NTStatus = .success
  ) {
    self.operation = operation
    self.flags = flags
    self.status = status
  }

  @inlinable public static var name: WireName { "StoragePacketHeader" }
  @inlinable public static var byteCount: Int { 12 }

  @inlinable
  public mutating func visitFields<Visitor: FieldVisitor & ~Copyable & ~Escapable>(
    _ visitor: inout Visitor
  ) {
    visitor.integer("operation", &operation)
    visitor.integer("flags", &flags)
    visitor.integer("status", &status)
  }
}

/// The body of QUERY_PROTOCOL_VERSION and of its completion.
public struct StorageProtocolVersion: WireLayout, Equatable {
  public var version = StorageVersion(rawValue: 0)

  @inlinable public init() {}
  @inlinable public init(_ version: StorageVersion) { self.version = version }

  @inlinable public static var name: WireName { "StorageProtocolVersion" }
  @inlinable public static var byteCount: Int { 4 }

  @inlinable
  public mutating func visitFields<Visitor: FieldVisitor & ~Copyable & ~Escapable>(
    _ visitor: inout Visitor
  ) {
    visitor.integer("version", &version)
    visitor.padding(2)
  }
}

/// What a storage channel can do (`StorageChannelProperties`, offset 8).
public struct StorageChannelFlags: OptionSet, WireInteger {
  public var rawValue: UInt32
  @inlinable public init(rawValue: UInt32) { self.rawValue = rawValue }

  @inlinable public static var multiChannel: Self { Self(rawValue: 1) }
}

/// The body of the completion of QUERY_PROPERTIES.
public struct StorageChannelProperties: WireLayout, Equatable {
  /// Subchannels beyond the primary one.
  public var maximumSubchannels: UInt16 = 0
  public var flags: StorageChannelFlags = []
  /// Bytes that one request may move.
  public var maximumTransferBytes: UInt32 = 0

  @inlinable public init() {}

  @inlinable public static var name: WireName { "StorageChannelProperties" }
  @inlinable public static var byteCount: Int { 24 }

  @inlinable
  public mutating func visitFields<Visitor: FieldVisitor & ~Copyable & ~Escapable>(
    _ visitor: inout Visitor
  ) {
    visitor.padding(4)
    visitor.integer("maximumSubchannels", &maximumSubchannels)
    visitor.padding(2)
    visitor.integer("flags", &flags)
    visitor.integer("maximumTransferBytes", &maximumTransferBytes)
    visitor.padding(8)
  }
}

/// The body of CREATE_SUB_CHANNELS.
public struct StorageSubchannelRequest: WireLayout, Equatable {
  public var count: UInt16 = 0

  @inlinable public init() {}
  @inlinable public init(count: UInt16) { self.count = count }

  @inlinable public static var name: WireName { "StorageSubchannelRequest" }
  @inlinable public static var byteCount: Int { 2 }

  @inlinable
  public mutating func visitFields<Visitor: FieldVisitor & ~Copyable & ~Escapable>(
    _ visitor: inout Visitor
  ) {
    visitor.integer("count", &count)
  }
}
