// SPDX-License-Identifier: Apache-2.0

import VMBus

/// The first byte of a SCSI command.
public struct SCSIOperationCode: WireInteger {
  public var rawValue: UInt8
  @inlinable public init(rawValue: UInt8) { self.rawValue = rawValue }

  @inlinable public static var testUnitReady: Self { Self(rawValue: 0x00) }
  @inlinable public static var requestSense: Self { Self(rawValue: 0x03) }
  @inlinable public static var read6: Self { Self(rawValue: 0x08) }
  @inlinable public static var write6: Self { Self(rawValue: 0x0A) }
  @inlinable public static var inquiry: Self { Self(rawValue: 0x12) }
  @inlinable public static var modeSense6: Self { Self(rawValue: 0x1A) }
  @inlinable public static var startStopUnit: Self { Self(rawValue: 0x1B) }
  @inlinable public static var readCapacity10: Self { Self(rawValue: 0x25) }
  @inlinable public static var read10: Self { Self(rawValue: 0x28) }
  @inlinable public static var write10: Self { Self(rawValue: 0x2A) }
  @inlinable public static var synchronizeCache10: Self { Self(rawValue: 0x35) }
  @inlinable public static var modeSense10: Self { Self(rawValue: 0x5A) }
  @inlinable public static var read16: Self { Self(rawValue: 0x88) }
  @inlinable public static var write16: Self { Self(rawValue: 0x8A) }
  @inlinable public static var synchronizeCache16: Self { Self(rawValue: 0x91) }
  /// READ CAPACITY(16) is its service action 0x10.
  @inlinable public static var serviceActionIn16: Self { Self(rawValue: 0x9E) }
  @inlinable public static var reportLUNs: Self { Self(rawValue: 0xA0) }
  @inlinable public static var read12: Self { Self(rawValue: 0xA8) }
  @inlinable public static var write12: Self { Self(rawValue: 0xAA) }
}

extension SCSIOperationCode: CustomStringConvertible {
  public var description: String {
    switch self {
    case .testUnitReady: "TEST UNIT READY"
    case .requestSense: "REQUEST SENSE"
    case .read6: "READ(6)"
    case .write6: "WRITE(6)"
    case .inquiry: "INQUIRY"
    case .modeSense6: "MODE SENSE(6)"
    case .startStopUnit: "START STOP UNIT"
    case .readCapacity10: "READ CAPACITY(10)"
    case .read10: "READ(10)"
    case .write10: "WRITE(10)"
    case .synchronizeCache10: "SYNCHRONIZE CACHE(10)"
    case .modeSense10: "MODE SENSE(10)"
    case .read16: "READ(16)"
    case .write16: "WRITE(16)"
    case .synchronizeCache16: "SYNCHRONIZE CACHE(16)"
    case .serviceActionIn16: "SERVICE ACTION IN(16)"
    case .reportLUNs: "REPORT LUNS"
    case .read12: "READ(12)"
    case .write12: "WRITE(12)"
    default: "SCSI command 0x\(String(rawValue, radix: 16))"
    }
  }
}

/// READ(6), WRITE(6).
public struct BlockCommand6: WireLayout {
  public var code = SCSIOperationCode.read6
  /// Bits 20 to 16 of the address in the low five bits.
  public var high: UInt8 = 0
  public var low: UInt16 = 0
  /// Blocks; zero stands for 256.
  public var count: UInt8 = 0

  @inlinable public init() {}
  @inlinable public static var name: WireName { "BlockCommand6" }
  @inlinable public static var byteCount: Int { 6 }

  @inlinable
  public mutating func visitFields<Visitor: FieldVisitor & ~Copyable & ~Escapable>(
    _ visitor: inout Visitor
  ) {
    visitor.integer("code", &code)
    visitor.integer("high", &high)
    visitor.bigEndian("low", &low)
    visitor.integer("count", &count)
    visitor.padding(1)
  }
}

/// READ(10), WRITE(10), SYNCHRONIZE CACHE(10), READ CAPACITY(10).
public struct BlockCommand10: WireLayout {
  public var code = SCSIOperationCode.read10
  public var options: UInt8 = 0
  public var address: UInt32 = 0
  public var group: UInt8 = 0
  public var count: UInt16 = 0

  @inlinable public init() {}
  @inlinable public static var name: WireName { "BlockCommand10" }
  @inlinable public static var byteCount: Int { 10 }

  @inlinable
  public mutating func visitFields<Visitor: FieldVisitor & ~Copyable & ~Escapable>(
    _ visitor: inout Visitor
  ) {
    visitor.integer("code", &code)
    visitor.integer("options", &options)
    visitor.bigEndian("address", &address)
    visitor.integer("group", &group)
    visitor.bigEndian("count", &count)
    visitor.padding(1)
  }
}

/// READ(12), WRITE(12).
public struct BlockCommand12: WireLayout {
  public var code = SCSIOperationCode.read12
  public var options: UInt8 = 0
  public var address: UInt32 = 0
  public var count: UInt32 = 0
  public var group: UInt8 = 0

  @inlinable public init() {}
  @inlinable public static var name: WireName { "BlockCommand12" }
  @inlinable public static var byteCount: Int { 12 }

  @inlinable
  public mutating func visitFields<Visitor: FieldVisitor & ~Copyable & ~Escapable>(
    _ visitor: inout Visitor
  ) {
    visitor.integer("code", &code)
    visitor.integer("options", &options)
    visitor.bigEndian("address", &address)
    visitor.bigEndian("count", &count)
    visitor.integer("group", &group)
    visitor.padding(1)
  }
}

/// READ(16), WRITE(16), SYNCHRONIZE CACHE(16), and READ CAPACITY(16), whose `options` is the
/// service action and whose `count` is the allocation length.
public struct BlockCommand16: WireLayout {
  public var code = SCSIOperationCode.read16
  public var options: UInt8 = 0
  public var address: UInt64 = 0
  public var count: UInt32 = 0
  public var group: UInt8 = 0

  @inlinable public init() {}
  @inlinable public static var name: WireName { "BlockCommand16" }
  @inlinable public static var byteCount: Int { 16 }

  @inlinable
  public mutating func visitFields<Visitor: FieldVisitor & ~Copyable & ~Escapable>(
    _ visitor: inout Visitor
  ) {
    visitor.integer("code", &code)
    visitor.integer("options", &options)
    visitor.bigEndian("address", &address)
    visitor.bigEndian("count", &count)
    visitor.integer("group", &group)
    visitor.padding(1)
  }
}

/// INQUIRY.
public struct InquiryCommand: WireLayout {
  public var code = SCSIOperationCode.inquiry
  /// Bit 0: a page of vital product data is asked for.
  public var options: UInt8 = 0
  public var page: UInt8 = 0
  public var allocationLength: UInt16 = 0

  @inlinable public init() {}
  @inlinable public static var name: WireName { "InquiryCommand" }
  @inlinable public static var byteCount: Int { 6 }

  @inlinable
  public mutating func visitFields<Visitor: FieldVisitor & ~Copyable & ~Escapable>(
    _ visitor: inout Visitor
  ) {
    visitor.integer("code", &code)
    visitor.integer("options", &options)
    visitor.integer("page", &page)
    visitor.bigEndian("allocationLength", &allocationLength)
    visitor.padding(1)
  }
}

/// The commands of six bytes that carry small fields only: TEST UNIT READY, REQUEST SENSE,
/// MODE SENSE(6), START STOP UNIT.
public struct SmallCommand6: WireLayout {
  public var code = SCSIOperationCode.testUnitReady
  public var options: UInt8 = 0
  public var page: UInt8 = 0
  public var subpage: UInt8 = 0
  /// The allocation length; for START STOP UNIT the start and eject bits.
  public var last: UInt8 = 0

  @inlinable public init() {}
  @inlinable public static var name: WireName { "SmallCommand6" }
  @inlinable public static var byteCount: Int { 6 }

  @inlinable
  public mutating func visitFields<Visitor: FieldVisitor & ~Copyable & ~Escapable>(
    _ visitor: inout Visitor
  ) {
    visitor.integer("code", &code)
    visitor.integer("options", &options)
    visitor.integer("page", &page)
    visitor.integer("subpage", &subpage)
    visitor.integer("last", &last)
    visitor.padding(1)
  }
}

/// MODE SENSE(10).
public struct ModeSenseCommand10: WireLayout {
  public var code = SCSIOperationCode.modeSense10
  public var options: UInt8 = 0
  public var page: UInt8 = 0
  public var subpage: UInt8 = 0
  public var allocationLength: UInt16 = 0

  @inlinable public init() {}
  @inlinable public static var name: WireName { "ModeSenseCommand10" }
  @inlinable public static var byteCount: Int { 10 }

  @inlinable
  public mutating func visitFields<Visitor: FieldVisitor & ~Copyable & ~Escapable>(
    _ visitor: inout Visitor
  ) {
    visitor.integer("code", &code)
    visitor.integer("options", &options)
    visitor.integer("page", &page)
    visitor.integer("subpage", &subpage)
    visitor.padding(3)
    visitor.bigEndian("allocationLength", &allocationLength)
    visitor.padding(1)
  }
}

/// REPORT LUNS.
public struct ReportLUNsCommand: WireLayout {
  public var code = SCSIOperationCode.reportLUNs
  /// 0: addressable units; 1: well-known units; 2: both.
  public var selection: UInt8 = 0
  public var allocationLength: UInt32 = 0

  @inlinable public init() {}
  @inlinable public static var name: WireName { "ReportLUNsCommand" }
  @inlinable public static var byteCount: Int { 12 }

  @inlinable
  public mutating func visitFields<Visitor: FieldVisitor & ~Copyable & ~Escapable>(
    _ visitor: inout Visitor
  ) {
    visitor.integer("code", &code)
    visitor.padding(1)
    visitor.integer("selection", &selection)
    visitor.padding(3)
    visitor.bigEndian("allocationLength", &allocationLength)
    visitor.padding(2)
  }
}
