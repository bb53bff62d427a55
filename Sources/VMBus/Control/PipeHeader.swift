// SPDX-License-Identifier: Apache-2.0

/// The 8 bytes before the payload of each packet of a pipe channel (offers with `namedPipeMode`).
public struct PipeHeader: WireLayout, Equatable {
  public static let name: WireName = "PipeHeader"
  public static let byteCount = 8
  /// A packet never carries more.
  public static let maximumPayload = 16384

  /// 1 data. 2 is a reader's own mark and never written by a peer; 3 and 4 set up GPA direct.
  public struct Kind: WireInteger {
    public var rawValue: UInt32
    public init(rawValue: UInt32) { self.rawValue = rawValue }
    public static let data = Kind(rawValue: 1)
    public static let partial = Kind(rawValue: 2)
    public static let setupGPADirect = Kind(rawValue: 3)
    public static let teardownGPADirect = Kind(rawValue: 4)
  }

  public var kind: Kind = .data
  /// Bytes of payload; 0 is the end of the stream.
  public var length: UInt32 = 0

  public init() {}
  public init(length: UInt32) { self.length = length }

  public mutating func visitFields<V: FieldVisitor & ~Copyable & ~Escapable>(_ visitor: inout V) {
    visitor.integer("packet_type", &kind)
    visitor.integer("len", &length)
  }

  /// The payload of a data packet: what lies after its header, without the packet's padding.
  ///
  /// Throws for another kind, for a length above `maximumPayload`, and for a length that the
  /// packet does not hold. An empty payload is the peer's end of stream.
  @_lifetime(copy packet)
  public static func payload(of packet: RawSpan) throws(WireError) -> RawSpan {
    var reader = WireReader(packet, name: name)
    let header = try reader.read(PipeHeader.self)
    guard header.kind == .data else {
      throw .invalid(name, field: "packet_type", value: UInt64(header.kind.rawValue))
    }
    guard header.length <= UInt32(maximumPayload) else {
      throw .invalid(name, field: "len", value: UInt64(header.length))
    }
    return try reader.take(Int(header.length))
  }
}
