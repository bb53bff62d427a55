// SPDX-License-Identifier: Apache-2.0

// Bodies of the messages about the connection as a whole.

/// The first 8 bytes of every control message.
public struct MessageHeader: WireLayout, Equatable {
  public static let name: WireName = "MessageHeader"
  public static let byteCount = 8

  public var type = MessageType(rawValue: 0)

  public init() {}

  public mutating func visitFields<V: FieldVisitor & ~Copyable & ~Escapable>(_ visitor: inout V) {
    visitor.integer("message_type", &type)
    visitor.padding(4)
  }
}

extension WireLayout {
  /// All fields zero but those that `fill` sets.
  public init(_ fill: (inout Self) -> Void) {
    self.init()
    fill(&self)
  }
}

/// Where the guest wants its messages, and which features it asks for: since 5.0 this is what
/// `InitiateContact` has at offset 8.
public struct TargetInfo: Equatable, Sendable {
  public var sint: UInt8
  public var vtl: UInt8
  public var features: FeatureFlags

  public init(sint: UInt8 = 2, vtl: UInt8 = 0, features: FeatureFlags = []) {
    self.sint = sint
    self.vtl = vtl
    self.features = features
  }

  public init(rawValue: UInt64) {
    sint = UInt8(truncatingIfNeeded: rawValue)
    vtl = UInt8(truncatingIfNeeded: rawValue >> 8)
    features = FeatureFlags(rawValue: UInt32(truncatingIfNeeded: rawValue >> 32))
  }

  public var rawValue: UInt64 {
    UInt64(sint) | UInt64(vtl) << 8 | UInt64(features.rawValue) << 32
  }
}

/// Message 14: the guest asks for a connection of one version.
public struct InitiateContact: WireLayout, Equatable {
  public static let name: WireName = "InitiateContact"
  public static let byteCount = 32

  public var versionRequested = ProtocolVersion(rawValue: 0)
  /// Which processor is to get the server's messages.
  public var targetMessageVP: UInt32 = 0
  /// `TargetInfo` since 5.0; an interrupt page that nobody uses any more before.
  public var interruptPageOrTargetInfo: UInt64 = 0
  public var monitorPages = MonitorPages()

  public init() {}

  public mutating func visitFields<V: FieldVisitor & ~Copyable & ~Escapable>(_ visitor: inout V) {
    visitor.integer("version_requested", &versionRequested)
    visitor.integer("target_message_vp", &targetMessageVP)
    visitor.integer("interrupt_page_or_target_info", &interruptPageOrTargetInfo)
    visitor.structure("monitor_pages", &monitorPages)
  }

  /// What offset 8 means under the version that is asked for.
  public var targetInfo: TargetInfo {
    guard versionRequested >= .v5_0 else { return TargetInfo() }
    var info = TargetInfo(rawValue: interruptPageOrTargetInfo)
    if versionRequested < .v5_1 { info.vtl = 0 }
    if versionRequested < .v6_0 { info.features = [] }
    return info
  }
}

/// Message 14 with the feature `clientID`: its long form.
public struct InitiateContact2: WireLayout, Equatable {
  public static let name: WireName = "InitiateContact2"
  public static let byteCount = 48

  public var contact = InitiateContact()
  public var clientID = GUID()

  public init() {}

  public mutating func visitFields<V: FieldVisitor & ~Copyable & ~Escapable>(_ visitor: inout V) {
    visitor.structure("initiate_contact", &contact)
    visitor.guid("client_id", &clientID)
  }
}

/// Message 15: the answer to InitiateContact.
public struct VersionResponse: WireLayout, Equatable {
  public static let name: WireName = "VersionResponse"
  public static let byteCount = 8

  /// 0 when the host does not speak this version: the guest tries an older one.
  public var versionSupported: UInt8 = 0
  public var connectionState: ConnectionStatus = .successful
  /// Since 5.0 the connection id that messages are posted to from now on.
  public var selectedVersionOrConnectionID: UInt32 = 0

  public init() {}

  public mutating func visitFields<V: FieldVisitor & ~Copyable & ~Escapable>(_ visitor: inout V) {
    visitor.integer("version_supported", &versionSupported)
    visitor.integer("connection_state", &connectionState)
    visitor.padding(2)
    visitor.integer("selected_version_or_connection_id", &selectedVersionOrConnectionID)
  }
}

/// Message 15 of version 6.0: which of the requested features are granted.
public struct VersionResponse2: WireLayout, Equatable {
  public static let name: WireName = "VersionResponse2"
  public static let byteCount = 12

  public var response = VersionResponse()
  public var supportedFeatures: FeatureFlags = []

  public init() {}

  public mutating func visitFields<V: FieldVisitor & ~Copyable & ~Escapable>(_ visitor: inout V) {
    visitor.structure("version_response", &response)
    visitor.integer("supported_features", &supportedFeatures)
  }
}

/// Message 15 with the feature `serverSpecifiedMonitorPages`.
public struct VersionResponse3: WireLayout, Equatable {
  public static let name: WireName = "VersionResponse3"
  public static let byteCount = 32

  public var response = VersionResponse2()
  public var monitorPages = MonitorPages()

  public init() {}

  public mutating func visitFields<V: FieldVisitor & ~Copyable & ~Escapable>(_ visitor: inout V) {
    visitor.structure("version_response", &response)
    visitor.padding(4)
    visitor.structure("monitor_pages", &monitorPages)
  }
}

/// Message 21: the guest asks for an hvsock connection.
public struct TLConnectRequest: WireLayout, Equatable {
  public static let name: WireName = "TLConnectRequest"
  public static let byteCount = 32

  public var endpointID = GUID()
  public var serviceID = GUID()

  public init() {}

  public mutating func visitFields<V: FieldVisitor & ~Copyable & ~Escapable>(_ visitor: inout V) {
    visitor.guid("endpoint_id", &endpointID)
    visitor.guid("service_id", &serviceID)
  }
}

/// Message 23: the hvsock connection was refused. A granted one is an offer instead.
public struct TLConnectResult: WireLayout, Equatable {
  public static let name: WireName = "TLConnectResult"
  public static let byteCount = 36

  public var endpointID = GUID()
  public var serviceID = GUID()
  public var status: ControlStatus = .success

  public init() {}

  public mutating func visitFields<V: FieldVisitor & ~Copyable & ~Escapable>(_ visitor: inout V) {
    visitor.guid("endpoint_id", &endpointID)
    visitor.guid("service_id", &serviceID)
    visitor.integer("status", &status)
  }
}

/// Message 25: other monitor pages, or none.
public struct ModifyConnection: WireLayout, Equatable {
  public static let name: WireName = "ModifyConnection"
  public static let byteCount = 16

  public var monitorPages = MonitorPages()

  public init() {}

  public mutating func visitFields<V: FieldVisitor & ~Copyable & ~Escapable>(_ visitor: inout V) {
    visitor.structure("monitor_pages", &monitorPages)
  }
}

/// Message 26: whether the other monitor pages are in use.
public struct ModifyConnectionResponse: WireLayout, Equatable {
  public static let name: WireName = "ModifyConnectionResponse"
  public static let byteCount = 1

  public var connectionState: ConnectionStatus = .successful

  public init() {}

  public mutating func visitFields<V: FieldVisitor & ~Copyable & ~Escapable>(_ visitor: inout V) {
    visitor.integer("connection_state", &connectionState)
  }
}

/// Message 21 since 5.2: with the silo that the connection is for. Some guests of newer versions
/// still send the short form, so its length alone tells.
public struct TLConnectRequest2: WireLayout, Equatable {
  public static let name: WireName = "TLConnectRequest2"
  public static let byteCount = 48

  public var request = TLConnectRequest()
  public var siloID = GUID()

  public init() {}

  public mutating func visitFields<V: FieldVisitor & ~Copyable & ~Escapable>(_ visitor: inout V) {
    visitor.structure("tl_connect_request", &request)
    visitor.guid("silo_id", &siloID)
  }
}
