// SPDX-License-Identifier: Apache-2.0

import VMBus

/// The standard answer to INQUIRY.
public struct InquiryData: WireLayout {
  /// Bits 4 to 0 the device type (0: disk), bits 7 to 5 the qualifier; 0x7F: no unit here.
  public var deviceType: UInt8 = 0
  public var removable: UInt8 = 0
  /// 6: SPC-4.
  public var version: UInt8 = 0
  public var responseFormat: UInt8 = 0
  /// Bytes after this one.
  public var additionalLength: UInt8 = 0
  public var protection: UInt8 = 0
  public var features6: UInt8 = 0
  /// Bit 1: command queueing.
  public var features7: UInt8 = 0
  public var vendor = InlineArray<8, UInt8>(repeating: 0x20)
  public var product = InlineArray<16, UInt8>(repeating: 0x20)
  public var revision = InlineArray<4, UInt8>(repeating: 0x20)

  @inlinable public init() {}
  @inlinable public static var name: WireName { "InquiryData" }
  @inlinable public static var byteCount: Int { 36 }
  @inlinable public static var noUnit: UInt8 { 0x7F }

  public mutating func visitFields<Visitor: FieldVisitor & ~Copyable & ~Escapable>(
    _ visitor: inout Visitor
  ) {
    visitor.integer("deviceType", &deviceType)
    visitor.integer("removable", &removable)
    visitor.integer("version", &version)
    visitor.integer("responseFormat", &responseFormat)
    visitor.integer("additionalLength", &additionalLength)
    visitor.integer("protection", &protection)
    visitor.integer("features6", &features6)
    visitor.integer("features7", &features7)
    visitor.bytes("vendor", &vendor)
    visitor.bytes("product", &product)
    visitor.bytes("revision", &revision)
  }
}

/// What each page of vital product data begins with.
public struct VitalProductDataHeader: WireLayout {
  public var deviceType: UInt8 = 0
  public var page: UInt8 = 0
  /// Bytes after this header.
  public var length: UInt16 = 0

  @inlinable public init() {}
  @inlinable public init(page: UInt8, length: UInt16) {
    self.page = page
    self.length = length
  }
  @inlinable public static var name: WireName { "VitalProductDataHeader" }
  @inlinable public static var byteCount: Int { 4 }

  public mutating func visitFields<Visitor: FieldVisitor & ~Copyable & ~Escapable>(
    _ visitor: inout Visitor
  ) {
    visitor.integer("deviceType", &deviceType)
    visitor.integer("page", &page)
    visitor.bigEndian("length", &length)
  }
}

/// The answer to READ CAPACITY(10).
public struct Capacity10: WireLayout {
  /// All ones when the last block's address does not fit.
  public var lastBlock: UInt32 = 0
  /// Bytes.
  public var blockSize: UInt32 = 0

  @inlinable public init() {}
  @inlinable public static var name: WireName { "Capacity10" }
  @inlinable public static var byteCount: Int { 8 }

  public mutating func visitFields<Visitor: FieldVisitor & ~Copyable & ~Escapable>(
    _ visitor: inout Visitor
  ) {
    visitor.bigEndian("lastBlock", &lastBlock)
    visitor.bigEndian("blockSize", &blockSize)
  }
}

/// What the answer to REPORT LUNS begins with; 8 bytes for each unit follow.
public struct ReportLUNsHeader: WireLayout {
  /// Bytes of the list after this header.
  public var length: UInt32 = 0

  @inlinable public init() {}
  @inlinable public init(length: UInt32) { self.length = length }
  @inlinable public static var name: WireName { "ReportLUNsHeader" }
  @inlinable public static var byteCount: Int { 8 }

  public mutating func visitFields<Visitor: FieldVisitor & ~Copyable & ~Escapable>(
    _ visitor: inout Visitor
  ) {
    visitor.bigEndian("length", &length)
    visitor.padding(4)
  }
}

/// One unit in the answer to REPORT LUNS.
public struct ReportedLUN: WireLayout {
  public var lun: UInt16 = 0

  @inlinable public init() {}
  @inlinable public init(_ lun: UInt8) { self.lun = UInt16(lun) }
  @inlinable public static var name: WireName { "ReportedLUN" }
  @inlinable public static var byteCount: Int { 8 }

  public mutating func visitFields<Visitor: FieldVisitor & ~Copyable & ~Escapable>(
    _ visitor: inout Visitor
  ) {
    visitor.bigEndian("lun", &lun)
    visitor.padding(6)
  }
}

/// The properties of a disk in the header of MODE SENSE.
public struct SCSIModeParameters: OptionSet, WireInteger {
  public var rawValue: UInt8
  @inlinable public init(rawValue: UInt8) { self.rawValue = rawValue }

  /// Reads and writes may force unit access.
  @inlinable public static var forcedAccess: Self { Self(rawValue: 0x10) }
  @inlinable public static var writeProtected: Self { Self(rawValue: 0x80) }
}

/// The header of the answer to MODE SENSE(6).
public struct ModeHeader6: WireLayout {
  /// Bytes after this one.
  public var length: UInt8 = 0
  public var mediumType: UInt8 = 0
  public var parameters: SCSIModeParameters = []
  public var blockDescriptorLength: UInt8 = 0

  @inlinable public init() {}
  @inlinable public static var name: WireName { "ModeHeader6" }
  @inlinable public static var byteCount: Int { 4 }

  public mutating func visitFields<Visitor: FieldVisitor & ~Copyable & ~Escapable>(
    _ visitor: inout Visitor
  ) {
    visitor.integer("length", &length)
    visitor.integer("mediumType", &mediumType)
    visitor.integer("parameters", &parameters)
    visitor.integer("blockDescriptorLength", &blockDescriptorLength)
  }
}

/// The header of the answer to MODE SENSE(10).
public struct ModeHeader10: WireLayout {
  /// Bytes after this field.
  public var length: UInt16 = 0
  public var mediumType: UInt8 = 0
  public var parameters: SCSIModeParameters = []
  public var blockDescriptorLength: UInt16 = 0

  @inlinable public init() {}
  @inlinable public static var name: WireName { "ModeHeader10" }
  @inlinable public static var byteCount: Int { 8 }

  public mutating func visitFields<Visitor: FieldVisitor & ~Copyable & ~Escapable>(
    _ visitor: inout Visitor
  ) {
    visitor.bigEndian("length", &length)
    visitor.integer("mediumType", &mediumType)
    visitor.integer("parameters", &parameters)
    visitor.padding(2)
    visitor.bigEndian("blockDescriptorLength", &blockDescriptorLength)
  }
}

/// The caching page (8) of MODE SENSE.
public struct CachingPage: WireLayout {
  public var page: UInt8 = 0x08
  /// Bytes after this one.
  public var length: UInt8 = 0x12
  /// Bit 2: writes are cached until a flush.
  public var options: UInt8 = 0

  @inlinable public init() {}
  @inlinable public static var name: WireName { "CachingPage" }
  @inlinable public static var byteCount: Int { 20 }
  @inlinable public static var writeCache: UInt8 { 0x04 }

  public mutating func visitFields<Visitor: FieldVisitor & ~Copyable & ~Escapable>(
    _ visitor: inout Visitor
  ) {
    visitor.integer("page", &page)
    visitor.integer("length", &length)
    visitor.integer("options", &options)
    visitor.padding(17)
  }
}
