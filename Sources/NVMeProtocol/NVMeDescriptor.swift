// SPDX-License-Identifier: Apache-2.0

public import VMBus

/// A descriptor of an SGL: a stretch of memory (NVMe Base 1.4, 4.4).
///
/// Where data lies in one stretch, its descriptor is in the command itself and the controller fetches no
/// list.
public struct NVMeDescriptor: WireLayout, Equatable {
  public static let name: WireName = "NVMe SGL descriptor"
  @inlinable public static var byteCount: Int { 16 }

  /// @0
  public var address: UInt64 = 0
  /// @8: bytes.
  public var length: UInt32 = 0
  /// @15: the type in bits 7 to 4. 0 is a data block, by its address.
  public var type: UInt8 = 0

  @inlinable
  public init(address: UInt64, length: UInt32) {
    self.address = address
    self.length = length
  }

  public init() {}

  public mutating func visitFields<V: FieldVisitor & ~Copyable & ~Escapable>(_ visitor: inout V) {
    visitor.integer("address", &address)
    visitor.integer("length", &length)
    visitor.padding(3)
    visitor.integer("type", &type)
  }
}

extension NVMeCommand {
  /// Bit 6 of the flags: the data pointer is a descriptor, and metadata lies in one stretch.
  @inlinable static var descriptorFlag: UInt8 { 1 << 6 }

  /// The descriptor of the data; nil where the data pointer is one of pages.
  @inlinable public var descriptor: NVMeDescriptor? {
    get {
      guard flags & 0xC0 == Self.descriptorFlag else { return nil }
      var result = NVMeDescriptor(
        address: data1, length: UInt32(truncatingIfNeeded: data2))
      result.type = UInt8(truncatingIfNeeded: data2 >> 56)
      return result
    }
    set {
      flags = flags & 0x3F | (newValue == nil ? 0 : Self.descriptorFlag)
      data1 = newValue?.address ?? 0
      data2 = newValue.map { UInt64($0.length) | UInt64($0.type) << 56 } ?? 0
    }
  }
}
