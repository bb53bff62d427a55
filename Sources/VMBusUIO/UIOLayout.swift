// SPDX-License-Identifier: Apache-2.0

public import VMBus
public import VMBusLinux

/// What the maps of a device are, after checking that they are what `uio_hv_generic` makes:
/// rings, interrupt page, monitor page, and for some devices two buffers.
///
/// Linux up to 6.12 makes the buffers for devices of every class, newer ones for network devices
/// only: the maps say it, not the version.
public struct UIOLayout: Sendable, Equatable {
  /// Memory that the kernel allocated and shared with the host by a GPADL of its own.
  public struct Buffer: Sendable, Equatable {
    /// Which map it is.
    public var map: Int
    public var gpadl: GPADLID
    public var byteCount: Int
  }

  /// Which map the two rings are: outgoing first, then incoming.
  public static let ringMap = 0
  public static let interruptPageMap = 1
  /// The page in which a monitored channel's signal is a bit.
  public static let monitorPageMap = 2

  /// Bytes of each of the two rings, control page included.
  public var ringByteCount: Int
  /// From the host.
  public var receiveBuffer: Buffer?
  /// To the host.
  public var sendBuffer: Buffer?

  private static let pageByteCount: UInt64 = 4096
  /// Far above what any kernel makes; keeps sums within an `Int`.
  private static let largestMap: UInt64 = 1 << 32

  public init(_ maps: [UIOMap]) throws(UIOLayoutError) {
    guard maps.count == 3 || maps.count == 5 else { throw .mapCount(maps.count) }
    for (index, map) in maps.enumerated() {
      guard map.offset == 0, map.byteCount % Self.pageByteCount == 0,
        map.byteCount >= Self.pageByteCount, map.byteCount <= Self.largestMap
      else { throw .extent(map: index, map) }
    }
    try Self.check(maps[Self.ringMap], Self.ringMap, name: "txrx_rings")
    try Self.check(maps[Self.interruptPageMap], Self.interruptPageMap, name: "int_page")
    try Self.check(maps[Self.monitorPageMap], Self.monitorPageMap, name: "monitor_page")
    // A ring is a control page and at least one page of data, and the halves are alike.
    let rings = maps[Self.ringMap]
    guard rings.byteCount % (2 * Self.pageByteCount) == 0,
      rings.byteCount >= 4 * Self.pageByteCount
    else { throw .extent(map: Self.ringMap, rings) }
    ringByteCount = Int(rings.byteCount / 2)
    receiveBuffer = maps.count == 5 ? try Self.buffer(maps[3], 3, "recv:") : nil
    sendBuffer = maps.count == 5 ? try Self.buffer(maps[4], 4, "send:") : nil
  }

  private static func check(_ map: UIOMap, _ index: Int, name: WireName) throws(UIOLayoutError) {
    guard map.name == name.description else {
      throw .name(map: index, found: map.name, expected: name)
    }
  }

  private static func buffer(
    _ map: UIOMap, _ index: Int, _ prefix: WireName
  ) throws(UIOLayoutError) -> Buffer {
    // The handle is the name's only number, in decimal.
    guard map.name.hasPrefix(prefix.description),
      let handle: UInt32 = SysfsNumber.decimal(map.name.dropFirst(prefix.description.count))
    else { throw .name(map: index, found: map.name, expected: prefix) }
    return Buffer(map: index, gpadl: GPADLID(handle), byteCount: Int(map.byteCount))
  }
}

/// Maps that are not those of `uio_hv_generic`.
public enum UIOLayoutError: Error, Equatable, Sendable, CustomStringConvertible {
  case mapCount(Int)
  case name(map: Int, found: String, expected: WireName)
  /// A size or an offset that such a map cannot have.
  case extent(map: Int, UIOMap)

  public var description: String {
    switch self {
    case .mapCount(let count): "\(count) maps, where 3 or 5 are expected"
    case .name(let map, let found, let expected):
      "map \(map) is called '\(found)', where '\(expected)' is expected"
    case .extent(let index, let map):
      "map \(index) ('\(map.name)') has \(map.byteCount) bytes at offset \(map.offset)"
    }
  }
}
