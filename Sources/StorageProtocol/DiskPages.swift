// SPDX-License-Identifier: Apache-2.0

import VMBus

/// Page 0xB0 (block limits) of the vital product data. Blocks, if not said otherwise; zero is "not
/// reported". 20 reserved bytes follow: devices may leave them out, and older ones more than them.
public struct BlockLimits: WireLayout {
  public var header = VitalProductDataHeader(page: 0xB0, length: 0x3C)
  /// Bit 0: WRITE SAME with a count of zero is refused.
  public var options: UInt8 = 0
  public var optimalGranularity: UInt16 = 0
  /// That one command may move.
  public var maximumTransfer: UInt32 = 0
  public var optimalTransfer: UInt32 = 0
  /// Of all descriptors of one UNMAP together; all ones for no limit.
  public var maximumUnmap: UInt32 = 0
  /// Descriptors.
  public var maximumUnmapDescriptors: UInt32 = 0
  /// Blocks that are given back together.
  public var unmapGranularity: UInt32 = 0
  /// Bit 31: the rest, the first block of a granule, is valid.
  public var unmapAlignment: UInt32 = 0
  /// Of one WRITE SAME.
  public var maximumWriteSame: UInt64 = 0

  @inlinable public init() {}
  @inlinable public static var name: WireName { "BlockLimits" }
  @inlinable public static var byteCount: Int { 44 }
  @inlinable public static var writeSameNeedsCount: UInt8 { 0x01 }
  @inlinable public static var alignmentIsValid: UInt32 { 0x8000_0000 }

  public mutating func visitFields<Visitor: FieldVisitor & ~Copyable & ~Escapable>(
    _ visitor: inout Visitor
  ) {
    visitor.structure("header", &header)
    visitor.integer("options", &options)
    visitor.padding(1)
    visitor.bigEndian("optimalGranularity", &optimalGranularity)
    visitor.bigEndian("maximumTransfer", &maximumTransfer)
    visitor.bigEndian("optimalTransfer", &optimalTransfer)
    visitor.padding(4)
    visitor.bigEndian("maximumUnmap", &maximumUnmap)
    visitor.bigEndian("maximumUnmapDescriptors", &maximumUnmapDescriptors)
    visitor.bigEndian("unmapGranularity", &unmapGranularity)
    visitor.bigEndian("unmapAlignment", &unmapAlignment)
    visitor.bigEndian("maximumWriteSame", &maximumWriteSame)
  }
}

/// What a client reads of page 0xB1 (block device characteristics).
public struct DiskCharacteristicsPage: WireLayout {
  public var header = VitalProductDataHeader()
  /// 0 not reported, 1 does not rotate, else rounds per minute.
  public var rotationRate: UInt16 = 0

  @inlinable public init() {}
  @inlinable public static var name: WireName { "DiskCharacteristicsPage" }
  @inlinable public static var byteCount: Int { 6 }

  public mutating func visitFields<Visitor: FieldVisitor & ~Copyable & ~Escapable>(
    _ visitor: inout Visitor
  ) {
    visitor.structure("header", &header)
    visitor.bigEndian("rotationRate", &rotationRate)
  }
}

/// What a client reads of page 0xB2 (logical block provisioning).
public struct DiskProvisioningPage: WireLayout {
  public var header = VitalProductDataHeader()
  /// Bit 7 UNMAP, bit 6 WRITE SAME(16) with its UNMAP bit, bits 4 to 2 (1: blocks that were given
  /// back read as zeros).
  public var features: UInt8 = 0
  /// Low three bits: 1 resource provisioned, 2 thin.
  public var type: UInt8 = 0

  @inlinable public init() {}
  @inlinable public static var name: WireName { "DiskProvisioningPage" }
  @inlinable public static var byteCount: Int { 8 }

  @inlinable public var hasUnmap: Bool { features & 0x80 != 0 }
  @inlinable public var hasWriteSameUnmap: Bool { features & 0x40 != 0 }
  @inlinable public var readsZeros: Bool { features & 0x04 != 0 }
  @inlinable public var isThin: Bool { type & 7 == 2 }

  public mutating func visitFields<Visitor: FieldVisitor & ~Copyable & ~Escapable>(
    _ visitor: inout Visitor
  ) {
    visitor.structure("header", &header)
    visitor.padding(1)
    visitor.integer("features", &features)
    visitor.integer("type", &type)
    visitor.padding(1)
  }
}

/// The answer to READ CAPACITY(16). 16 reserved bytes follow; older devices leave them out.
public struct Capacity16: WireLayout {
  public var lastBlock: UInt64 = 0
  /// Bytes.
  public var blockSize: UInt32 = 0
  /// Low four bits: a physical block has two to that power logical ones.
  public var exponents: UInt8 = 0
  /// Bit 7: blocks can be given back; bit 6: they read as zeros then.
  public var provisioning: UInt8 = 0

  @inlinable public init() {}
  @inlinable public static var name: WireName { "Capacity16" }
  @inlinable public static var byteCount: Int { 16 }

  public mutating func visitFields<Visitor: FieldVisitor & ~Copyable & ~Escapable>(
    _ visitor: inout Visitor
  ) {
    visitor.bigEndian("lastBlock", &lastBlock)
    visitor.bigEndian("blockSize", &blockSize)
    visitor.padding(1)
    visitor.integer("exponents", &exponents)
    visitor.integer("provisioning", &provisioning)
    visitor.padding(1)
  }
}
