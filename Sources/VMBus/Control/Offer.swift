// SPDX-License-Identifier: Apache-2.0

/// Properties of an offered channel.
public struct OfferFlags: OptionSet, WireInteger {
  public var rawValue: UInt16

  public init(rawValue: UInt16) { self.rawValue = rawValue }

  public static let enumerateDeviceInterface = OfferFlags(rawValue: 0x0001)
  /// The ring lies in encrypted memory.
  public static let confidentialRingBuffer = OfferFlags(rawValue: 0x0002)
  /// Other GPADLs and GPA-direct buffers lie in encrypted memory.
  public static let confidentialExternalMemory = OfferFlags(rawValue: 0x0004)
  public static let requirePinnedExternalMemory = OfferFlags(rawValue: 0x0008)
  /// Packets carry a `PipeHeader`; `UserData` tells which kind of pipe.
  public static let namedPipeMode = OfferFlags(rawValue: 0x0010)
  public static let loopbackOffer = OfferFlags(rawValue: 0x0100)
  public static let parentOffer = OfferFlags(rawValue: 0x0200)
  public static let requestMonitoredNotification = OfferFlags(rawValue: 0x0400)
  /// An hvsock connection.
  public static let tlnpiProvider = OfferFlags(rawValue: 0x2000)

  /// The two flags that only a confidential connection may carry.
  public static let confidential: OfferFlags = [
    .confidentialRingBuffer, .confidentialExternalMemory,
  ]

  /// Which memory the channel uses, or nil for external memory encrypted under a ring that is
  /// not: the host would read the addresses of memory that it must not see, so no such pair
  /// is lawful.
  public var confidentiality: Confidentiality? {
    switch (contains(.confidentialRingBuffer), contains(.confidentialExternalMemory)) {
    case (false, false): .hostVisible
    case (true, false): .ring
    case (true, true): .ringAndExternalMemory
    case (false, true): nil
    }
  }
}

/// The three lawful answers to "what of this channel is encrypted".
public enum Confidentiality: Hashable, Sendable, CaseIterable {
  /// Everything is host-visible, or the machine is not isolated.
  case hostVisible
  /// Ring encrypted; GPADL buffers and DMA host-visible.
  case ring
  case ringAndExternalMemory
}

extension Confidentiality: CustomStringConvertible {
  public var description: String {
    switch self {
    case .hostVisible: "host-visible"
    case .ring: "ring encrypted"
    case .ringAndExternalMemory: "ring and external memory encrypted"
    }
  }
}

/// 120 bytes that an offer or an open carries for the device; their meaning is the device's.
public struct UserData: Equatable, Sendable {
  public static let byteCount = 120
  public var bytes: InlineArray<120, UInt8>

  public init() { bytes = InlineArray(repeating: 0) }
  public init(bytes: InlineArray<120, UInt8>) { self.bytes = bytes }

  /// Takes the first 120 bytes; what is missing is zero.
  public init(_ prefix: some Sequence<UInt8>) {
    self.init()
    for (index, byte) in prefix.prefix(Self.byteCount).enumerated() { bytes[index] = byte }
  }

  public static func == (left: UserData, right: UserData) -> Bool {
    for index in left.bytes.indices where left.bytes[index] != right.bytes[index] {
      return false
    }
    return true
  }

  /// What a pipe's offer says at offset 0.
  public enum PipeKind: Equatable, Sendable {
    case bytes
    case messages
    case unknown(UInt32)
  }

  /// The kind of a pipe, where the offer has `namedPipeMode`.
  public var pipeKind: PipeKind {
    switch integer(at: 0) {
    case 0: .bytes
    case 4: .messages
    case let other: .unknown(other)
    }
  }

  /// For hvsock: the host asks the guest to accept (offset 4).
  public var isForGuestAccept: Bool { bytes[4] != 0 }

  private func integer(at offset: Int) -> UInt32 {
    var value: UInt32 = 0
    for index in (0..<4).reversed() { value = value << 8 | UInt32(bytes[offset + index]) }
    return value
  }
}

/// Message 1: the host offers a channel. Also how this package describes an offer everywhere.
public struct OfferChannel: WireLayout, Equatable {
  public static let name: WireName = "OfferChannel"
  public static let byteCount = 188
  /// The monitor id of a channel that is not monitored.
  public static let noMonitor: UInt8 = 0xFF

  public var interfaceID = GUID()
  public var instanceID = GUID()
  public var flags: OfferFlags = []
  /// Memory-mapped I/O that the device needs, in MiB.
  public var mmioMegabytes: UInt16 = 0
  public var userDefined = UserData()
  /// 0 is the primary channel.
  public var subchannelIndex: UInt16 = 0
  public var mmioMegabytesOptional: UInt16 = 0
  public var channelID = ChannelID(0)
  public var monitorID: UInt8 = 0
  public var monitorAllocated: UInt8 = 0
  /// Bit 0: the channel has an interrupt of its own (always, on hosts of these versions).
  public var isDedicated: UInt16 = 0
  /// What to signal the host with, unless the guest chooses its own.
  public var connectionID: UInt32 = 0

  public init() {}

  public mutating func visitFields<V: FieldVisitor & ~Copyable & ~Escapable>(_ visitor: inout V) {
    visitor.guid("interface_id", &interfaceID)
    visitor.guid("instance_id", &instanceID)
    visitor.padding(16)
    visitor.integer("flags", &flags)
    visitor.integer("mmio_megabytes", &mmioMegabytes)
    visitor.bytes("user_defined", &userDefined.bytes)
    visitor.integer("subchannel_index", &subchannelIndex)
    visitor.integer("mmio_megabytes_optional", &mmioMegabytesOptional)
    visitor.integer("channel_id", &channelID)
    visitor.integer("monitor_id", &monitorID)
    visitor.integer("monitor_allocated", &monitorAllocated)
    visitor.integer("is_dedicated", &isDedicated)
    visitor.integer("connection_id", &connectionID)
  }

  public var deviceClass: DeviceClass { DeviceClass(interfaceID) }

  /// The monitor to trigger instead of a hypercall; nil for a channel that has none.
  public var monitor: MonitorID? {
    guard monitorAllocated & 1 != 0 else { return nil }
    return MonitorID(monitorID)
  }

  /// The connection id that a channel signals by default: SINT and VTL stand above the channel.
  public static func defaultConnectionID(
    _ channel: ChannelID, sint: UInt8 = 2, vtl: UInt8 = 0
  ) -> UInt32 {
    channel.rawValue & 0xFFF | UInt32(sint & 0xF) << 12 | UInt32(vtl & 0xF) << 16
  }
}
