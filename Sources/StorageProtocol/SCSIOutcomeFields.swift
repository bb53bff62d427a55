// SPDX-License-Identifier: Apache-2.0

import VMBus

/// The start of `SCSIRequest` in a completion: all that there is to know of a request that succeeded.
public struct SCSIOutcomeFields: WireLayout {
  public var srbStatus = SRBStatus.pending
  public var scsiStatus = SCSIStatus.good
  /// Bytes that were moved.
  public var transferLength: UInt32 = 0

  @inlinable public init() {}
  @inlinable public static var name: WireName { "SCSIOutcomeFields" }
  @inlinable public static var byteCount: Int { 16 }

  @inlinable
  public mutating func visitFields<Visitor: FieldVisitor & ~Copyable & ~Escapable>(
    _ visitor: inout Visitor
  ) {
    visitor.padding(2)
    visitor.integer("srbStatus", &srbStatus)
    visitor.integer("scsiStatus", &scsiStatus)
    visitor.padding(8)
    visitor.integer("transferLength", &transferLength)
  }
}
