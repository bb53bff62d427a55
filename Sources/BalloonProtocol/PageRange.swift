// SPDX-License-Identifier: Apache-2.0

public import VMBus

/// Pages of 4096 bytes behind each other: the first one's number in 40 bits, how many in 24.
public struct PageRange: WireInteger {
  public static let byteCount = 8
  public static let maximumCount: UInt64 = 1 << 24 - 1
  public static let maximumStart: UInt64 = 1 << 40 - 1

  public var rawValue: UInt64
  @inlinable public init(rawValue: UInt64) { self.rawValue = rawValue }

  /// Nil for what the fields can't hold.
  public init?(start: GPN, count: UInt64) {
    guard start <= Self.maximumStart, count <= Self.maximumCount else { return nil }
    rawValue = count << 40 | start
  }

  public var start: GPN { rawValue & Self.maximumStart }
  public var count: UInt64 { rawValue >> 40 }
  /// The first page behind it.
  public var end: GPN { start + count }
}

extension PageRange: CustomStringConvertible {
  public var description: String { "\(count) pages from 0x\(String(start, radix: 16))" }
}

/// The ranges behind a message's fixed part.
public struct PageRanges: ~Escapable {
  private var reader: WireReader
  public private(set) var remaining: UInt32

  /// - Parameters:
  ///   - message: the whole message.
  ///   - offset: where the ranges begin.
  ///   - count: what the message says; more than it has room for is an error.
  @_lifetime(copy message)
  public init(
    _ message: RawSpan, at offset: Int, count: UInt32, name: WireName
  ) throws(WireError) {
    var reader = WireReader(message, name: name)
    try reader.skip(offset)
    guard Int(count) <= reader.remaining / PageRange.byteCount else {
      throw .invalid(name, field: "rangeCount", value: UInt64(count))
    }
    self.reader = reader
    remaining = count
  }

  /// The next range, or nil behind the last.
  @_lifetime(self: copy self)
  public mutating func next() throws(WireError) -> PageRange? {
    guard remaining > 0 else { return nil }
    remaining -= 1
    return PageRange(rawValue: try reader.read())
  }
}

extension BalloonMessage {
  /// The message with ranges behind its fixed part.
  public func wireBytes(with ranges: some Sequence<PageRange>) -> [UInt8] {
    var bytes = wireBytes
    for range in ranges {
      for byte in 0..<8 { bytes.append(UInt8(truncatingIfNeeded: range.rawValue >> (8 * byte))) }
    }
    return bytes
  }
}
