// SPDX-License-Identifier: Apache-2.0

import VMBus

/// The bytes of a command, with the way that its data goes: what a client sends.
public struct SCSICommandBlock: Sendable {
  /// The command at the start, zeros after it.
  public var bytes = InlineArray<20, UInt8>(repeating: 0)
  /// Bytes of the command: 6 to 16.
  public var length: UInt8
  public var direction: SCSIDataDirection

  @inlinable
  public init(_ command: SCSICommand) {
    direction = command.direction
    length = 0
    length = command.write(into: &bytes)
  }

  private init(_ layout: some WireLayout, count: Int, _ direction: SCSIDataDirection) {
    layout.write(into: &bytes)
    length = UInt8(truncatingIfNeeded: count)
    self.direction = direction
  }

  /// UNMAP: gives blocks back. Its parameter list follows as data.
  public static func unmap(parameterByteCount: UInt16) -> SCSICommandBlock {
    var command = UnmapCommandBlock()
    command.parameterByteCount = parameterByteCount
    return SCSICommandBlock(command, count: UnmapCommandBlock.byteCount, .out)
  }

  /// WRITE SAME(16): writes one block, which follows as data, to all of an extent.
  ///
  /// - Parameter unmap: the device may give the blocks back instead, if they read as that block.
  public static func writeSame(
    address: UInt64, count: UInt32, unmap: Bool
  ) -> SCSICommandBlock {
    var command = BlockCommand16()
    command.code = SCSIOperationCode(rawValue: 0x93)
    command.options = unmap ? 0x08 : 0
    command.address = address
    command.count = count
    return SCSICommandBlock(command, count: BlockCommand16.byteCount, .out)
  }
}

/// The command UNMAP.
struct UnmapCommandBlock: WireLayout {
  var code = SCSIOperationCode(rawValue: 0x42)
  var parameterByteCount: UInt16 = 0

  static var name: WireName { "UNMAP" }
  static var byteCount: Int { 10 }

  mutating func visitFields<Visitor: FieldVisitor & ~Copyable & ~Escapable>(
    _ visitor: inout Visitor
  ) {
    visitor.integer("code", &code)
    visitor.padding(6)
    visitor.bigEndian("parameterByteCount", &parameterByteCount)
    visitor.padding(1)
  }
}

/// The data of UNMAP: a header and one descriptor.
public struct UnmapParameterList: WireLayout {
  /// Bytes after this field.
  public var byteCountAfter: UInt16 = 22
  /// Bytes of the descriptors.
  public var descriptorByteCount: UInt16 = 16
  public var address: UInt64 = 0
  /// Blocks.
  public var count: UInt32 = 0

  @inlinable public init() {}
  @inlinable public init(address: UInt64, count: UInt32) {
    self.address = address
    self.count = count
  }
  @inlinable public static var name: WireName { "UnmapParameterList" }
  @inlinable public static var byteCount: Int { 24 }

  public mutating func visitFields<Visitor: FieldVisitor & ~Copyable & ~Escapable>(
    _ visitor: inout Visitor
  ) {
    visitor.bigEndian("byteCountAfter", &byteCountAfter)
    visitor.bigEndian("descriptorByteCount", &descriptorByteCount)
    visitor.padding(4)
    visitor.bigEndian("address", &address)
    visitor.bigEndian("count", &count)
    visitor.padding(4)
  }
}

extension SCSIRequest {
  /// A request for a command in the form of its bytes.
  ///
  /// - Parameter timeout: seconds that the host gives the device.
  public init(
    block: SCSICommandBlock, lun: UInt8, transferLength: UInt32, timeout: UInt32,
    version: StorageVersion
  ) {
    self.init(
      .testUnitReady, lun: lun, transferLength: 0, timeout: timeout, version: version)
    self.transferLength = transferLength
    payload = block.bytes
    commandLength = block.length
    guard transferLength > 0 else { return }
    direction = block.direction
    switch direction {
    case .in: flags.formUnion(.dataIn)
    case .out: flags.formUnion(.dataOut)
    default: break
    }
  }
}
