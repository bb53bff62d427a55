// SPDX-License-Identifier: Apache-2.0

import VMBus

/// The queues that a client is to send on: the entry of a packet's hash, modulo the table's size.
public struct SendIndirectionTable: Sendable {
  public static let entryCount = 16
  public var entries: InlineArray<16, UInt32>

  @inlinable public init() { entries = InlineArray(repeating: 0) }

  /// Spreads evenly over `queueCount` queues.
  public init(queueCount: Int) {
    entries = InlineArray { UInt32(truncatingIfNeeded: $0 % max(queueCount, 1)) }
  }

  /// The queue for a hash.
  @inlinable
  public func queue(of hash: UInt32) -> UInt32 { entries[Int(hash & 15)] }

  /// Parses SEND_INDIRECTION_TABLE. The entries are the peer's word: check them against the queues
  /// that there are.
  ///
  /// - Parameters:
  ///   - message: a private copy of the whole message.
  ///   - version: that was agreed on. Hosts of 6.0 and older count the offset wrongly when they send
  ///     a table behind a message of full size.
  public init(message: RawSpan, version: NVSPVersion) throws(WireError) {
    let header = try NVSPIndirectionTableHeader(message: message)
    guard header.count == UInt32(Self.entryCount) else {
      throw .invalid("SendIndirectionTable", field: "count", value: UInt64(header.count))
    }
    let size = Self.entryCount * 4
    var offset = Int(header.offset)
    if version <= .v6, message.byteCount >= 40 + size { offset = 40 }
    guard offset >= 12, offset <= message.byteCount else {
      throw .invalid("SendIndirectionTable", field: "offset", value: UInt64(header.offset))
    }
    var reader = WireReader(
      message.extracting(droppingFirst: offset), name: "SendIndirectionTable")
    var entries = InlineArray<16, UInt32>(repeating: 0)
    for index in entries.indices { entries[index] = try reader.read() }
    self.entries = entries
  }

  /// The whole message, with the entries right behind its header.
  public var message: InlineArray<76, UInt8> {
    var bytes = InlineArray<76, UInt8>(repeating: 0)
    NVSPHeader(.sendIndirectionTable).write(into: &bytes)
    NVSPIndirectionTableHeader(count: UInt32(Self.entryCount), offset: 12)
      .write(into: &bytes, at: 4)
    for index in entries.indices {
      for byte in 0..<4 {
        bytes[12 + 4 * index + byte] = UInt8(truncatingIfNeeded: entries[index] >> (8 * byte))
      }
    }
    return bytes
  }
}
