// SPDX-License-Identifier: Apache-2.0

/// A structure of the wire, declared once.
///
/// `visitFields` names the fields in the order in which they lie on the wire, little-endian and
/// without gaps other than those it declares. From this one declaration come the parser, the
/// encoder, the printed form and the test that the sizes add up to `byteCount`.
public protocol WireLayout: Sendable {
  /// The structure's name in errors and captures.
  static var name: WireName { get }
  /// Bytes on the wire. A peer may send more (trailing bytes are ignored), never fewer.
  static var byteCount: Int { get }
  /// All fields zero.
  init()
  /// Calls the visitor for each field, in wire order.
  mutating func visitFields<Visitor: FieldVisitor & ~Copyable & ~Escapable>(
    _ visitor: inout Visitor)
}

/// Receives the fields of a `WireLayout` in wire order.
public protocol FieldVisitor: ~Copyable, ~Escapable {
  mutating func integer<T: FixedWidthInteger & BitwiseCopyable>(_ name: WireName, _ value: inout T)
  mutating func bytes<let count: Int>(_ name: WireName, _ value: inout InlineArray<count, UInt8>)
  /// Bytes that are written as zero and not looked at when read.
  mutating func padding(_ count: Int)
  /// An integer whose most significant byte comes first, as SCSI writes them.
  mutating func bigEndian<T: FixedWidthInteger & BitwiseCopyable>(
    _ name: WireName, _ value: inout T)
}

extension FieldVisitor where Self: ~Copyable & ~Escapable {
  @inlinable
  public mutating func bigEndian<T: FixedWidthInteger & BitwiseCopyable>(
    _ name: WireName, _ value: inout T
  ) {
    var swapped = value.byteSwapped
    integer(name, &swapped)
    value = swapped.byteSwapped
  }

  /// A field that is a bit set or an open enumeration over an integer.
  @inlinable
  public mutating func integer<T: WireInteger>(_ name: WireName, _ value: inout T) {
    var raw = value.rawValue
    integer(name, &raw)
    value = T(rawValue: raw)
  }

  @inlinable
  public mutating func guid(_ name: WireName, _ value: inout GUID) {
    bytes(name, &value.wireBytes)
  }

  /// A structure within a structure.
  @inlinable
  public mutating func structure<T: WireLayout>(_ name: WireName, _ value: inout T) {
    value.visitFields(&self)
  }
}

/// A bit set or open enumeration of the wire: each value of the integer is a value of it, so that
/// an unknown one from a peer is kept, printed and refused by name, and never traps.
public protocol WireInteger: RawRepresentable, Equatable, Hashable, Sendable
where RawValue: FixedWidthInteger & BitwiseCopyable & Sendable {
  init(rawValue: RawValue)
}

extension WireLayout {
  /// Parses the first `byteCount` bytes.
  @inlinable
  public init(parsing bytes: RawSpan) throws(WireError) {
    guard bytes.byteCount >= Self.byteCount else {
      throw .tooShort(Self.name, needed: Self.byteCount, found: bytes.byteCount)
    }
    self.init()
    var visitor = ParsingVisitor(bytes: bytes)
    visitFields(&visitor)
  }

  /// Parses an array; for control messages and tests.
  public init(parsing bytes: [UInt8]) throws(WireError) {
    try self.init(parsing: unsafe bytes.span.bytes)
  }

  /// Writes `byteCount` bytes at `offset`, which the caller has made room for.
  @inlinable
  @_lifetime(bytes: copy bytes)
  public func write(into bytes: inout MutableRawSpan, at offset: Int = 0) {
    var copy = self
    var visitor = WritingVisitor(bytes: bytes._mutatingExtracting(droppingFirst: offset))
    copy.visitFields(&visitor)
  }

  /// The wire form as an array; for control messages and tests.
  public var wireBytes: [UInt8] {
    var visitor = AppendingVisitor()
    var copy = self
    copy.visitFields(&visitor)
    return visitor.result
  }

  /// Each field's name, offset, size and value, for captures, logs and tests.
  public var fields: [WireField] {
    var visitor = DescribingVisitor()
    var copy = self
    copy.visitFields(&visitor)
    return visitor.result
  }
}

/// One field of a structure, as `WireLayout.fields` tells it.
public struct WireField: Equatable, Sendable {
  public let name: WireName
  /// Bytes from the start of the structure.
  public let offset: Int
  public let byteCount: Int
  /// The integer's value, or the bytes in hexadecimal.
  public let value: String
}

@usableFromInline
struct ParsingVisitor: FieldVisitor, ~Escapable {
  @usableFromInline let source: RawSpan
  @usableFromInline var offset = 0

  @inlinable
  @_lifetime(copy bytes)
  init(bytes: RawSpan) { source = bytes }

  @inlinable
  mutating func integer<T: FixedWidthInteger & BitwiseCopyable>(
    _ name: WireName, _ value: inout T
  ) {
    // Bounds are checked by the span; `init(parsing:)` has made sure that they hold.
    value = T(littleEndian: unsafe source.unsafeLoadUnaligned(fromByteOffset: offset, as: T.self))
    offset &+= MemoryLayout<T>.size
  }

  @inlinable
  mutating func bytes<let count: Int>(_ name: WireName, _ value: inout InlineArray<count, UInt8>) {
    for index in value.indices {
      value[index] = unsafe source.unsafeLoad(fromByteOffset: offset &+ index, as: UInt8.self)
    }
    offset &+= count
  }

  @inlinable
  mutating func padding(_ count: Int) { offset &+= count }
}

@usableFromInline
struct WritingVisitor: FieldVisitor, ~Copyable, ~Escapable {
  @usableFromInline var target: MutableRawSpan
  @usableFromInline var offset = 0

  @inlinable
  @_lifetime(copy bytes)
  init(bytes: consuming MutableRawSpan) { target = bytes }

  @inlinable
  mutating func integer<T: FixedWidthInteger & BitwiseCopyable>(
    _ name: WireName, _ value: inout T
  ) {
    target.storeBytes(of: value.littleEndian, toByteOffset: offset, as: T.self)
    offset &+= MemoryLayout<T>.size
  }

  @inlinable
  mutating func bytes<let count: Int>(_ name: WireName, _ value: inout InlineArray<count, UInt8>) {
    for index in value.indices {
      target.storeBytes(of: value[index], toByteOffset: offset &+ index, as: UInt8.self)
    }
    offset &+= count
  }

  @inlinable
  mutating func padding(_ count: Int) {
    for index in 0..<count {
      target.storeBytes(of: 0, toByteOffset: offset &+ index, as: UInt8.self)
    }
    offset &+= count
  }
}

struct AppendingVisitor: FieldVisitor {
  var result: [UInt8] = []

  mutating func integer<T: FixedWidthInteger & BitwiseCopyable>(
    _ name: WireName, _ value: inout T
  ) {
    for byte in 0..<MemoryLayout<T>.size {
      result.append(UInt8(truncatingIfNeeded: value >> (8 * T(truncatingIfNeeded: byte))))
    }
  }

  mutating func bytes<let count: Int>(_ name: WireName, _ value: inout InlineArray<count, UInt8>) {
    for index in value.indices { result.append(value[index]) }
  }

  mutating func padding(_ count: Int) {
    result.append(contentsOf: repeatElement(0, count: count))
  }
}

struct DescribingVisitor: FieldVisitor {
  var result: [WireField] = []
  var offset = 0

  mutating func integer<T: FixedWidthInteger & BitwiseCopyable>(
    _ name: WireName, _ value: inout T
  ) {
    let size = MemoryLayout<T>.size
    result.append(WireField(name: name, offset: offset, byteCount: size, value: "\(value)"))
    offset += size
  }

  mutating func bytes<let count: Int>(_ name: WireName, _ value: inout InlineArray<count, UInt8>) {
    var text = ""
    for index in value.indices {
      let digits = String(value[index], radix: 16)
      text += digits.count == 1 ? "0" + digits : digits
    }
    result.append(WireField(name: name, offset: offset, byteCount: count, value: text))
    offset += count
  }

  mutating func padding(_ count: Int) { offset += count }

  // Described by its value, not by the bytes that the default would swap.
  mutating func bigEndian<T: FixedWidthInteger & BitwiseCopyable>(
    _ name: WireName, _ value: inout T
  ) {
    integer(name, &value)
  }
}
