// SPDX-License-Identifier: Apache-2.0

import VMBus

/// Which way a request's data goes (`SCSIRequest`, offset 10), seen from the client.
public struct SCSIDataDirection: WireInteger {
  public var rawValue: UInt8
  @inlinable public init(rawValue: UInt8) { self.rawValue = rawValue }

  /// From the client to the device.
  @inlinable public static var out: Self { Self(rawValue: 0) }
  /// From the device to the client.
  @inlinable public static var `in`: Self { Self(rawValue: 1) }
  /// What Linux writes for a request without data.
  @inlinable public static var none: Self { Self(rawValue: 2) }
}

/// The flags of a request (`SCSIRequest`, offset 40).
public struct SRBFlags: OptionSet, WireInteger {
  public var rawValue: UInt32
  @inlinable public init(rawValue: UInt32) { self.rawValue = rawValue }

  @inlinable public static var queueActionEnable: Self { Self(rawValue: 0x2) }
  @inlinable public static var disableSynchronousTransfer: Self { Self(rawValue: 0x8) }
  @inlinable public static var dataIn: Self { Self(rawValue: 0x40) }
  @inlinable public static var dataOut: Self { Self(rawValue: 0x80) }
  @inlinable public static var noQueueFreeze: Self { Self(rawValue: 0x100) }
}

/// The body of EXECUTE_SRB and of its completion, as versions since 5.1 have it.
///
/// `Short` is the form of the versions before, which ends after the payload.
public struct SCSIRequest: WireLayout {
  /// Bytes of this structure, as the sender counts them.
  public var length: UInt16 = 0
  public var srbStatus = SRBStatus.pending
  public var scsiStatus = SCSIStatus.good
  public var path: UInt8 = 0
  public var target: UInt8 = 0
  public var lun: UInt8 = 0
  /// Bytes of the command in `payload`: at most 16.
  public var commandLength: UInt8 = 0
  /// Room for sense data in `payload`: at most 20.
  public var senseLength: UInt8 = 0
  public var direction = SCSIDataDirection.out
  public var properties: UInt8 = 0
  /// Bytes asked for; in a completion, bytes that were moved.
  public var transferLength: UInt32 = 0
  /// The command (16 bytes) in a request, the sense data (20 bytes) in a completion.
  public var payload = InlineArray<20, UInt8>(repeating: 0)
  public var queueTag: UInt8 = 0
  public var queueAction: UInt8 = 0
  public var flags: SRBFlags = []
  /// Seconds.
  public var timeout: UInt32 = 0
  public var sortKey: UInt32 = 0

  @inlinable public init() {}

  @inlinable public static var name: WireName { "SCSIRequest" }
  @inlinable public static var byteCount: Int { 52 }

  @inlinable
  public mutating func visitFields<Visitor: FieldVisitor & ~Copyable & ~Escapable>(
    _ visitor: inout Visitor
  ) {
    visitShortFields(&visitor)
    visitor.padding(2)
    visitor.integer("queueTag", &queueTag)
    visitor.integer("queueAction", &queueAction)
    visitor.integer("flags", &flags)
    visitor.integer("timeout", &timeout)
    visitor.integer("sortKey", &sortKey)
  }

  @inlinable
  mutating func visitShortFields<Visitor: FieldVisitor & ~Copyable & ~Escapable>(
    _ visitor: inout Visitor
  ) {
    visitor.integer("length", &length)
    visitor.integer("srbStatus", &srbStatus)
    visitor.integer("scsiStatus", &scsiStatus)
    visitor.padding(1)
    visitor.integer("path", &path)
    visitor.integer("target", &target)
    visitor.integer("lun", &lun)
    visitor.integer("commandLength", &commandLength)
    visitor.integer("senseLength", &senseLength)
    visitor.integer("direction", &direction)
    visitor.integer("properties", &properties)
    visitor.integer("transferLength", &transferLength)
    visitor.bytes("payload", &payload)
  }

  /// The request as versions 2.0 and 4.2 have it: without the queue fields.
  public struct Short: WireLayout {
    public var request = SCSIRequest()

    @inlinable public init() {}
    @inlinable public init(_ request: SCSIRequest) { self.request = request }

    @inlinable public static var name: WireName { "SCSIRequest.Short" }
    @inlinable public static var byteCount: Int { 36 }

    @inlinable
    public mutating func visitFields<Visitor: FieldVisitor & ~Copyable & ~Escapable>(
      _ visitor: inout Visitor
    ) {
      request.visitShortFields(&visitor)
    }
  }
}

extension SCSIRequest {
  /// Parses the form that `version` has.
  @inlinable
  public init(parsing bytes: RawSpan, version: StorageVersion) throws(WireError) {
    if version.requestByteCount == SCSIRequest.byteCount {
      try self.init(parsing: bytes)
    } else {
      self = try Short(parsing: bytes).request
    }
  }

  /// Writes the form that `version` has: `version.requestByteCount` bytes at `offset`, which the
  /// caller has made room for.
  @inlinable
  @_lifetime(bytes: copy bytes)
  public func write(into bytes: inout MutableRawSpan, at offset: Int, version: StorageVersion) {
    if version.requestByteCount == SCSIRequest.byteCount {
      write(into: &bytes, at: offset)
    } else {
      Short(self).write(into: &bytes, at: offset)
    }
  }

  /// A request for `command`, which may move up to `transferLength` bytes.
  ///
  /// - Parameter timeout: seconds that the host gives the device.
  @inlinable
  public init(
    _ command: SCSICommand, lun: UInt8, transferLength: UInt32, timeout: UInt32 = 60,
    version: StorageVersion
  ) {
    self.init()
    length = UInt16(truncatingIfNeeded: version.requestByteCount)
    self.lun = lun
    senseLength = 20
    self.transferLength = transferLength
    self.timeout = timeout
    direction = transferLength == 0 ? .none : command.direction
    // The host completes tagged requests in any order, and no error stops the ones behind it.
    flags = [.disableSynchronousTransfer, .queueActionEnable, .noQueueFreeze]
    switch direction {
    case .in: flags.formUnion(.dataIn)
    case .out: flags.formUnion(.dataOut)
    default: break
    }
    queueTag = 0xFF
    queueAction = 0x20
    commandLength = command.write(into: &payload)
  }

  /// The sense data that came with a completion, if any.
  @inlinable public var sense: SCSISense? {
    guard srbStatus.hasSense, scsiStatus == .checkCondition else { return nil }
    return SCSISense(parsing: payload, count: min(Int(senseLength), payload.count))
  }
}
