// SPDX-License-Identifier: Apache-2.0

import VMBus

/// The first 44 bytes of a data message (PACKET). Offsets count from byte 8, where the first of them
/// lies.
@frozen
public struct RNDISPacketHeader: WireLayout, Equatable {
  /// @0
  public var type = RNDISMessageType.packet
  /// @4: header, info, frame and all that lies between and behind.
  public var messageByteCount: UInt32 = 0
  /// @8
  public var dataOffset: UInt32 = 0
  /// @12
  public var dataByteCount: UInt32 = 0
  /// @16: out-of-band data, which nobody uses: all three are zero.
  public var outOfBandOffset: UInt32 = 0
  public var outOfBandByteCount: UInt32 = 0
  public var outOfBandCount: UInt32 = 0
  /// @28
  public var infoOffset: UInt32 = 0
  /// @32
  public var infoByteCount: UInt32 = 0
  /// @36: zero.
  public var virtualConnection: UInt32 = 0

  @inlinable public init() {}

  @inlinable public static var name: WireName { "RNDIS packet" }
  @inlinable public static var byteCount: Int { 44 }

  @inlinable
  public mutating func visitFields<Visitor: FieldVisitor & ~Copyable & ~Escapable>(
    _ visitor: inout Visitor
  ) {
    visitor.integer("type", &type)
    visitor.integer("messageByteCount", &messageByteCount)
    visitor.integer("dataOffset", &dataOffset)
    visitor.integer("dataByteCount", &dataByteCount)
    visitor.integer("outOfBandOffset", &outOfBandOffset)
    visitor.integer("outOfBandByteCount", &outOfBandByteCount)
    visitor.integer("outOfBandCount", &outOfBandCount)
    visitor.integer("infoOffset", &infoOffset)
    visitor.integer("infoByteCount", &infoByteCount)
    visitor.integer("virtualConnection", &virtualConnection)
    visitor.padding(4)
  }
}

/// Where the parts of a data message lie, found to be within it: bytes from the message's start.
///
/// For a receiver on either end: copy `RNDISPacketHeader.byteCount` bytes out of the shared memory,
/// parse them into a header, make this of it, copy `infoByteCount` bytes from `infoOffset` on, parse
/// them into a `PerPacketInfo`. What is checked is the private copy; only the frame's bytes are read
/// from the shared memory again, once.
@frozen
public struct RNDISPacketLayout: Equatable, Sendable {
  public let messageByteCount: Int
  public let dataOffset: Int
  /// Never 0.
  public let dataByteCount: Int
  public let infoOffset: Int
  /// A multiple of 4, at most `PerPacketInfo.parsedByteCount`; 0 for none.
  public let infoByteCount: Int

  /// - Parameters:
  ///   - header: parsed from a private copy.
  ///   - limit: bytes that the message may have, from its own start.
  @inlinable
  public init(_ header: RNDISPacketHeader, limit: Int) throws(WireError) {
    guard header.type == .packet else {
      throw .unknownType("RNDIS packet", value: UInt64(header.type.rawValue))
    }
    let length = Int(header.messageByteCount)
    guard length >= 44, length <= limit else {
      throw .invalid(
        "RNDIS packet", field: "messageByteCount", value: UInt64(header.messageByteCount))
    }
    // Numbers of 32 bits: no sum of two or three exceeds an Int.
    let dataOffset = Int(header.dataOffset) &+ 8
    guard dataOffset >= 44, dataOffset <= length else {
      throw .invalid("RNDIS packet", field: "dataOffset", value: UInt64(header.dataOffset))
    }
    let dataByteCount = Int(header.dataByteCount)
    guard dataByteCount > 0, dataByteCount <= length &- dataOffset else {
      throw .invalid("RNDIS packet", field: "dataByteCount", value: UInt64(header.dataByteCount))
    }
    guard header.outOfBandByteCount == 0, header.outOfBandCount == 0 else {
      throw .invalid(
        "RNDIS packet", field: "outOfBandByteCount", value: UInt64(header.outOfBandByteCount))
    }
    guard header.virtualConnection == 0 else {
      throw .invalid(
        "RNDIS packet", field: "virtualConnection", value: UInt64(header.virtualConnection))
    }
    let infoByteCount = Int(header.infoByteCount)
    var infoOffset = 0
    if infoByteCount > 0 {
      infoOffset = Int(header.infoOffset) &+ 8
      guard infoOffset >= 44, infoOffset & 3 == 0, infoOffset <= length else {
        throw .invalid("RNDIS packet", field: "infoOffset", value: UInt64(header.infoOffset))
      }
      guard infoByteCount <= length &- infoOffset, infoByteCount & 3 == 0,
        infoByteCount <= PerPacketInfo.parsedByteCount,
        infoOffset &+ infoByteCount <= dataOffset || infoOffset >= dataOffset &+ dataByteCount
      else {
        throw .invalid("RNDIS packet", field: "infoByteCount", value: UInt64(header.infoByteCount))
      }
    }
    messageByteCount = length
    self.dataOffset = dataOffset
    self.dataByteCount = dataByteCount
    self.infoOffset = infoOffset
    self.infoByteCount = infoByteCount
  }
}

extension PerPacketInfo {
  /// Bytes that a data message has before its frame when the frame follows its info directly.
  @inlinable public var headerByteCount: Int { RNDISPacketHeader.byteCount &+ byteCount }

  /// Writes all of a data message but its frame: header and info, `headerByteCount` bytes.
  ///
  /// - Parameters:
  ///   - target: has room for them.
  ///   - start: where the message begins in `target`.
  ///   - dataOffset: bytes from the message's start to the frame; by default right behind the info.
  ///   - messageByteCount: by default it ends with the frame.
  /// - Returns: bytes from the message's start to the frame.
  @inlinable
  @discardableResult
  @_lifetime(target: copy target)
  public func writeHeader(
    into target: inout MutableRawSpan, at start: Int = 0, dataByteCount: Int,
    dataOffset: Int? = nil, messageByteCount: Int? = nil
  ) -> Int {
    let infoByteCount = byteCount
    let offset = dataOffset ?? (RNDISPacketHeader.byteCount &+ infoByteCount)
    var header = RNDISPacketHeader()
    header.messageByteCount =
      UInt32(truncatingIfNeeded: messageByteCount ?? (offset &+ dataByteCount))
    header.dataOffset = UInt32(truncatingIfNeeded: offset &- 8)
    header.dataByteCount = UInt32(truncatingIfNeeded: dataByteCount)
    if infoByteCount > 0 {
      header.infoOffset = 36
      header.infoByteCount = UInt32(truncatingIfNeeded: infoByteCount)
      write(into: &target, at: start &+ RNDISPacketHeader.byteCount)
    }
    header.write(into: &target, at: start)
    return offset
  }
}
