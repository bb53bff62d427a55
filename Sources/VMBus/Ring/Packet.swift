// SPDX-License-Identifier: Apache-2.0

/// The types of packets that may lie in a ring (descriptor offset 0).
public struct PacketType: WireInteger, CustomStringConvertible {
  public let rawValue: UInt16
  @inlinable public init(rawValue: UInt16) { self.rawValue = rawValue }

  /// Payload only.
  @inlinable public static var inBand: PacketType { PacketType(rawValue: 6) }
  /// Ranges of a receive buffer that both sides know.
  @inlinable public static var transferPages: PacketType { PacketType(rawValue: 7) }
  /// Ranges of guest pages, to which the device does DMA.
  @inlinable public static var gpaDirect: PacketType { PacketType(rawValue: 9) }
  /// The answer to a packet with the same transaction id.
  @inlinable public static var completion: PacketType { PacketType(rawValue: 11) }

  public var description: String {
    switch rawValue {
    case 6: "in-band"
    case 7: "transfer-pages"
    case 9: "GPA-direct"
    case 11: "completion"
    default: "packet type \(rawValue)"
    }
  }
}

/// The 16 bytes that start each packet.
public struct PacketDescriptor: WireLayout {
  public static let name: WireName = "packet descriptor"
  public static let byteCount = 16

  /// @0
  public var type = PacketType(rawValue: 0)
  /// @2: from the descriptor's start to the payload, in units of 8 bytes.
  public var dataOffset8: UInt16 = 0
  /// @4: descriptor, ranges and payload, without the trailer, in units of 8 bytes.
  public var length8: UInt16 = 0
  /// @6: bit 0, a completion is requested.
  public var flags: UInt16 = 0
  /// @8
  public var transactionID: UInt64 = 0

  public init() {}

  public mutating func visitFields<Visitor: FieldVisitor & ~Copyable & ~Escapable>(
    _ visitor: inout Visitor
  ) {
    visitor.integer("type", &type)
    visitor.integer("data_offset8", &dataOffset8)
    visitor.integer("length8", &length8)
    visitor.integer("flags", &flags)
    visitor.integer("transaction_id", &transactionID)
  }
}

/// A packet that was copied out of a ring and found to be well formed.
///
/// It holds numbers only: the bytes are in the `PacketBuffer` that it was received into, until
/// the next packet is received.
@frozen
public struct Packet: Equatable, Sendable {
  public let type: PacketType
  public let completionRequested: Bool
  /// The peer's word: look it up, never use it as an address or index (law 7).
  public let transactionID: UInt64
  /// Bytes between descriptor and payload: the ranges of a GPA-direct or transfer-pages packet.
  public let rangesByteCount: Int
  /// Bytes of the payload, padding to 8 included.
  public let payloadByteCount: Int

  @inlinable
  init(
    type: PacketType, completionRequested: Bool, transactionID: UInt64, rangesByteCount: Int,
    payloadByteCount: Int
  ) {
    self.type = type
    self.completionRequested = completionRequested
    self.transactionID = transactionID
    self.rangesByteCount = rangesByteCount
    self.payloadByteCount = payloadByteCount
  }

  /// Bytes that a packet takes in a ring: descriptor, ranges, payload rounded up to 8, trailer.
  @inlinable
  public static func byteCount(ranges: Int = 0, payload: Int) -> Int {
    16 &+ ranges &+ ((payload &+ 7) & ~7) &+ 8
  }
}

/// Private memory that packets are copied into before anybody looks at them (law 1).
@safe
public struct PacketBuffer: ~Copyable, @unchecked Sendable {
  @usableFromInline let start: UnsafeMutableRawPointer
  /// The largest packet, descriptor excluded and trailer excluded, that can be received.
  public let capacity: Int

  public init(capacity: Int) {
    self.capacity = max(capacity, 0)
    unsafe start = .allocate(byteCount: self.capacity, alignment: 64)
    unsafe start.initializeMemory(as: UInt8.self, repeating: 0, count: self.capacity)
  }

  deinit { unsafe start.deallocate() }

  /// The payload of the packet that was received last.
  @inlinable
  @_lifetime(borrow self)
  public func payload(of packet: Packet) -> RawSpan {
    bytes.extracting(
      packet.rangesByteCount..<(packet.rangesByteCount &+ packet.payloadByteCount))
  }

  /// What lies between descriptor and payload: see `GPARanges` and `TransferPages`.
  @inlinable
  @_lifetime(borrow self)
  public func ranges(of packet: Packet) -> RawSpan {
    bytes.extracting(first: packet.rangesByteCount)
  }

  @inlinable var bytes: RawSpan {
    @_lifetime(borrow self)
    get {
      unsafe _overrideLifetime(RawSpan(_unsafeStart: start, byteCount: capacity), borrowing: self)
    }
  }
}
