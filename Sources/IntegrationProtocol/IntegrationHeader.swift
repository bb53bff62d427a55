// SPDX-License-Identifier: Apache-2.0

public import VMBus

/// The kinds of message of the integration components.
public struct IntegrationMessageType: WireInteger {
  public var rawValue: UInt16
  @inlinable public init(rawValue: UInt16) { self.rawValue = rawValue }

  public static let negotiate = Self(rawValue: 0)
  public static let heartbeat = Self(rawValue: 1)
  public static let shutdown = Self(rawValue: 3)
  public static let timeSync = Self(rawValue: 4)
}

/// A version of the framework or of a component's messages.
public struct IntegrationVersion: WireLayout, Hashable, Comparable {
  public static let name: WireName = "IntegrationVersion"
  public static let byteCount = 4

  public var major: UInt16 = 0
  public var minor: UInt16 = 0

  public init() {}

  public init(_ major: UInt16, _ minor: UInt16) {
    self.major = major
    self.minor = minor
  }

  public static func < (left: Self, right: Self) -> Bool {
    (left.major, left.minor) < (right.major, right.minor)
  }

  public mutating func visitFields<Visitor: FieldVisitor & ~Copyable & ~Escapable>(
    _ visitor: inout Visitor
  ) {
    visitor.integer("major", &major)
    visitor.integer("minor", &minor)
  }
}

extension IntegrationVersion: CustomStringConvertible {
  public var description: String { "\(major).\(minor)" }
}

/// What a message is.
public struct IntegrationFlags: OptionSet, WireInteger {
  public var rawValue: UInt8
  @inlinable public init(rawValue: UInt8) { self.rawValue = rawValue }

  /// It is one half of an exchange, whose other half has the same number.
  public static let transaction = Self(rawValue: 1)
  public static let request = Self(rawValue: 2)
  public static let response = Self(rawValue: 4)
}

/// How a request went (an HRESULT).
public struct IntegrationStatus: WireInteger {
  public var rawValue: UInt32
  @inlinable public init(rawValue: UInt32) { self.rawValue = rawValue }

  public static let success = Self(rawValue: 0)
  public static let failed = Self(rawValue: 0x8000_4005)
  public static let notSupported = Self(rawValue: 0x8007_0032)
}

extension IntegrationStatus: CustomStringConvertible {
  public var description: String { "0x\(String(rawValue, radix: 16))" }
}

/// What each message begins with, behind the `PipeHeader`. The channels are pipes of messages, one
/// message in each in-band packet.
///
/// The host asks; the guest answers with the same bytes, changed where it has something to say, and
/// other flags.
public struct IntegrationHeader: WireLayout, Equatable {
  public static let name: WireName = "IntegrationHeader"
  public static let byteCount = 20

  public var frameworkVersion = IntegrationVersion()
  public var type = IntegrationMessageType(rawValue: 0)
  public var messageVersion = IntegrationVersion()
  /// Bytes behind this header.
  public var size: UInt16 = 0
  public var status: IntegrationStatus = .success
  public var transactionID: UInt8 = 0
  public var flags: IntegrationFlags = []

  public init() {}

  public mutating func visitFields<Visitor: FieldVisitor & ~Copyable & ~Escapable>(
    _ visitor: inout Visitor
  ) {
    visitor.structure("framework_version", &frameworkVersion)
    visitor.integer("message_type", &type)
    visitor.structure("message_version", &messageVersion)
    visitor.integer("message_size", &size)
    visitor.integer("status", &status)
    visitor.integer("transaction_id", &transactionID)
    visitor.integer("flags", &flags)
    visitor.padding(2)
  }

  /// A whole packet: pipe header, this header with its size filled in, and what follows.
  public func packet(_ body: [UInt8]) -> [UInt8] {
    var header = self
    header.size = UInt16(truncatingIfNeeded: body.count)
    let pipe = PipeHeader(length: UInt32(Self.byteCount + body.count))
    return pipe.wireBytes + header.wireBytes + body
  }

  /// A packet of the guest: its header, and what lies behind it.
  ///
  /// Guests answer with as many bytes as they were sent, and Linux sets `size` to 16 where it answers
  /// a negotiation: more bytes than the size says are right, fewer are not.
  @_lifetime(copy packet)
  public static func message(in packet: RawSpan) throws(WireError) -> IntegrationMessageBytes {
    let payload = try PipeHeader.payload(of: packet)
    let header = try IntegrationHeader(parsing: payload)
    let rest = payload.extracting(droppingFirst: byteCount)
    guard Int(header.size) <= rest.byteCount else {
      throw .invalid(name, field: "message_size", value: UInt64(header.size))
    }
    return IntegrationMessageBytes(header: header, body: rest.extracting(first: Int(header.size)))
  }
}

/// A message whose header has been read.
public struct IntegrationMessageBytes: ~Escapable {
  public let header: IntegrationHeader
  /// What the header's size says lies behind it.
  public let body: RawSpan

  @_lifetime(copy body)
  init(header: IntegrationHeader, body: RawSpan) {
    self.header = header
    self.body = body
  }
}
