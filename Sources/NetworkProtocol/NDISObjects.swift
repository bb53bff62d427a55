// SPDX-License-Identifier: Apache-2.0

import VMBus

/// What each NDIS structure begins with.
public struct NDISObjectHeader: WireLayout, Equatable {
  public var type: UInt8 = 0
  public var revision: UInt8 = 0
  /// Of the structure that it begins.
  public var objectByteCount: UInt16 = 0

  @inlinable public init() {}

  @inlinable
  public init(type: UInt8 = 0, revision: UInt8 = 0, objectByteCount: UInt16 = 0) {
    self.type = type
    self.revision = revision
    self.objectByteCount = objectByteCount
  }

  @inlinable public static var name: WireName { "NDISObjectHeader" }
  @inlinable public static var byteCount: Int { 4 }

  @inlinable
  public mutating func visitFields<Visitor: FieldVisitor & ~Copyable & ~Escapable>(
    _ visitor: inout Visitor
  ) {
    visitor.integer("type", &type)
    visitor.integer("revision", &revision)
    visitor.integer("objectByteCount", &objectByteCount)
  }
}

/// Which checksums a host computes and looks at.
public struct NDISChecksumCapabilities: WireLayout, Equatable {
  public var ipv4TransmitEncapsulation: UInt32 = 0
  public var ipv4Transmit: NDISChecksums = []
  public var ipv4ReceiveEncapsulation: UInt32 = 0
  public var ipv4Receive: NDISChecksums = []
  public var ipv6TransmitEncapsulation: UInt32 = 0
  public var ipv6Transmit: NDISChecksums = []
  public var ipv6ReceiveEncapsulation: UInt32 = 0
  public var ipv6Receive: NDISChecksums = []

  @inlinable public init() {}

  @inlinable
  public init(
    ipv4TransmitEncapsulation: UInt32 = 0, ipv4Transmit: NDISChecksums = [],
    ipv4ReceiveEncapsulation: UInt32 = 0, ipv4Receive: NDISChecksums = [],
    ipv6TransmitEncapsulation: UInt32 = 0, ipv6Transmit: NDISChecksums = [],
    ipv6ReceiveEncapsulation: UInt32 = 0, ipv6Receive: NDISChecksums = []
  ) {
    self.ipv4TransmitEncapsulation = ipv4TransmitEncapsulation
    self.ipv4Transmit = ipv4Transmit
    self.ipv4ReceiveEncapsulation = ipv4ReceiveEncapsulation
    self.ipv4Receive = ipv4Receive
    self.ipv6TransmitEncapsulation = ipv6TransmitEncapsulation
    self.ipv6Transmit = ipv6Transmit
    self.ipv6ReceiveEncapsulation = ipv6ReceiveEncapsulation
    self.ipv6Receive = ipv6Receive
  }

  @inlinable public static var name: WireName { "NDISChecksumCapabilities" }
  @inlinable public static var byteCount: Int { 32 }

  @inlinable
  public mutating func visitFields<Visitor: FieldVisitor & ~Copyable & ~Escapable>(
    _ visitor: inout Visitor
  ) {
    visitor.integer("ipv4TransmitEncapsulation", &ipv4TransmitEncapsulation)
    visitor.integer("ipv4Transmit", &ipv4Transmit)
    visitor.integer("ipv4ReceiveEncapsulation", &ipv4ReceiveEncapsulation)
    visitor.integer("ipv4Receive", &ipv4Receive)
    visitor.integer("ipv6TransmitEncapsulation", &ipv6TransmitEncapsulation)
    visitor.integer("ipv6Transmit", &ipv6Transmit)
    visitor.integer("ipv6ReceiveEncapsulation", &ipv6ReceiveEncapsulation)
    visitor.integer("ipv6Receive", &ipv6Receive)
  }
}

/// Large send of the first kind.
public struct NDISLargeSendV1: WireLayout, Equatable {
  public var encapsulation: UInt32 = 0
  public var maximumByteCount: UInt32 = 0
  public var minimumSegments: UInt32 = 0
  public var options: UInt32 = 0

  @inlinable public init() {}

  @inlinable
  public init(
    encapsulation: UInt32 = 0, maximumByteCount: UInt32 = 0, minimumSegments: UInt32 = 0,
    options: UInt32 = 0
  ) {
    self.encapsulation = encapsulation
    self.maximumByteCount = maximumByteCount
    self.minimumSegments = minimumSegments
    self.options = options
  }

  @inlinable public static var name: WireName { "NDISLargeSendV1" }
  @inlinable public static var byteCount: Int { 16 }

  @inlinable
  public mutating func visitFields<Visitor: FieldVisitor & ~Copyable & ~Escapable>(
    _ visitor: inout Visitor
  ) {
    visitor.integer("encapsulation", &encapsulation)
    visitor.integer("maximumByteCount", &maximumByteCount)
    visitor.integer("minimumSegments", &minimumSegments)
    visitor.integer("options", &options)
  }
}

/// Large send of the second kind: what is used.
public struct NDISLargeSendV2: WireLayout, Equatable {
  public var ipv4Encapsulation: UInt32 = 0
  /// Bytes that one packet may have; 0 where it can't be done.
  public var ipv4MaximumByteCount: UInt32 = 0
  public var ipv4MinimumSegments: UInt32 = 0
  public var ipv6Encapsulation: UInt32 = 0
  public var ipv6MaximumByteCount: UInt32 = 0
  public var ipv6MinimumSegments: UInt32 = 0
  /// 1 extension headers, 4 TCP options.
  public var ipv6Options: UInt32 = 0

  @inlinable public init() {}

  @inlinable
  public init(
    ipv4Encapsulation: UInt32 = 0, ipv4MaximumByteCount: UInt32 = 0,
    ipv4MinimumSegments: UInt32 = 0, ipv6Encapsulation: UInt32 = 0,
    ipv6MaximumByteCount: UInt32 = 0, ipv6MinimumSegments: UInt32 = 0, ipv6Options: UInt32 = 0
  ) {
    self.ipv4Encapsulation = ipv4Encapsulation
    self.ipv4MaximumByteCount = ipv4MaximumByteCount
    self.ipv4MinimumSegments = ipv4MinimumSegments
    self.ipv6Encapsulation = ipv6Encapsulation
    self.ipv6MaximumByteCount = ipv6MaximumByteCount
    self.ipv6MinimumSegments = ipv6MinimumSegments
    self.ipv6Options = ipv6Options
  }

  @inlinable public static var name: WireName { "NDISLargeSendV2" }
  @inlinable public static var byteCount: Int { 28 }

  @inlinable
  public mutating func visitFields<Visitor: FieldVisitor & ~Copyable & ~Escapable>(
    _ visitor: inout Visitor
  ) {
    visitor.integer("ipv4Encapsulation", &ipv4Encapsulation)
    visitor.integer("ipv4MaximumByteCount", &ipv4MaximumByteCount)
    visitor.integer("ipv4MinimumSegments", &ipv4MinimumSegments)
    visitor.integer("ipv6Encapsulation", &ipv6Encapsulation)
    visitor.integer("ipv6MaximumByteCount", &ipv6MaximumByteCount)
    visitor.integer("ipv6MinimumSegments", &ipv6MinimumSegments)
    visitor.integer("ipv6Options", &ipv6Options)
  }
}

/// What a host can do with packets (OID 0xFC01020D), as far as NDIS 6.0 has it.
public struct NDISOffload: WireLayout, Equatable {
  public var header = NDISObjectHeader(type: 0xA7, revision: 3, objectByteCount: 156)
  public var checksums = NDISChecksumCapabilities()
  public var largeSendV1 = NDISLargeSendV1()
  public var largeSendV2 = NDISLargeSendV2()
  public var flags: UInt32 = 0

  @inlinable public init() {}

  @inlinable
  public init(
    header: NDISObjectHeader = NDISObjectHeader(type: 0xA7, revision: 3, objectByteCount: 156),
    checksums: NDISChecksumCapabilities = NDISChecksumCapabilities(),
    largeSendV1: NDISLargeSendV1 = NDISLargeSendV1(),
    largeSendV2: NDISLargeSendV2 = NDISLargeSendV2(), flags: UInt32 = 0
  ) {
    self.header = header
    self.checksums = checksums
    self.largeSendV1 = largeSendV1
    self.largeSendV2 = largeSendV2
    self.flags = flags
  }

  @inlinable public static var name: WireName { "NDISOffload" }
  @inlinable public static var byteCount: Int { 112 }

  @inlinable
  public mutating func visitFields<Visitor: FieldVisitor & ~Copyable & ~Escapable>(
    _ visitor: inout Visitor
  ) {
    visitor.structure("header", &header)
    visitor.structure("checksums", &checksums)
    visitor.structure("largeSendV1", &largeSendV1)
    visitor.padding(28)
    visitor.structure("largeSendV2", &largeSendV2)
    visitor.integer("flags", &flags)
  }
}

/// What NDIS 6.30 adds behind `NDISOffload`.
public struct NDISOffload630: WireLayout, Equatable {
  public var receiveCoalescingIPv4: UInt8 = 0
  public var receiveCoalescingIPv6: UInt8 = 0
  public var encapsulationFlags: UInt32 = 0
  public var encapsulationMaximumHeaderByteCount: UInt32 = 0

  @inlinable public init() {}

  @inlinable
  public init(
    receiveCoalescingIPv4: UInt8 = 0, receiveCoalescingIPv6: UInt8 = 0,
    encapsulationFlags: UInt32 = 0, encapsulationMaximumHeaderByteCount: UInt32 = 0
  ) {
    self.receiveCoalescingIPv4 = receiveCoalescingIPv4
    self.receiveCoalescingIPv6 = receiveCoalescingIPv6
    self.encapsulationFlags = encapsulationFlags
    self.encapsulationMaximumHeaderByteCount = encapsulationMaximumHeaderByteCount
  }

  @inlinable public static var name: WireName { "NDISOffload630" }
  @inlinable public static var byteCount: Int { 44 }

  @inlinable
  public mutating func visitFields<Visitor: FieldVisitor & ~Copyable & ~Escapable>(
    _ visitor: inout Visitor
  ) {
    visitor.padding(32)
    visitor.integer("receiveCoalescingIPv4", &receiveCoalescingIPv4)
    visitor.integer("receiveCoalescingIPv6", &receiveCoalescingIPv6)
    visitor.padding(2)
    visitor.integer("encapsulationFlags", &encapsulationFlags)
    visitor.integer("encapsulationMaximumHeaderByteCount", &encapsulationMaximumHeaderByteCount)
  }
}

/// What of it is to be done (OID 0xFC01020C). NDIS before 6.30 (NVSP 4.0 and older) takes the first 22 bytes.
public struct NDISOffloadParameters: WireLayout, Equatable {
  public var header = NDISObjectHeader(type: 0x80, revision: 3, objectByteCount: 28)
  public var ipv4Checksum = OffloadSetting.unchanged
  public var tcpIPv4Checksum = OffloadSetting.unchanged
  public var udpIPv4Checksum = OffloadSetting.unchanged
  public var tcpIPv6Checksum = OffloadSetting.unchanged
  public var udpIPv6Checksum = OffloadSetting.unchanged
  public var largeSendV1 = OffloadSetting.unchanged
  public var ipsecV1: UInt8 = 0
  public var largeSendV2IPv4 = OffloadSetting.unchanged
  public var largeSendV2IPv6 = OffloadSetting.unchanged
  public var tcpConnectionIPv4: UInt8 = 0
  public var tcpConnectionIPv6: UInt8 = 0
  public var flags: UInt32 = 0
  public var ipsecV2: UInt8 = 0
  public var ipsecV2IPv4: UInt8 = 0
  public var receiveCoalescingIPv4 = OffloadSetting.unchanged
  public var receiveCoalescingIPv6 = OffloadSetting.unchanged
  public var encapsulatedPackets: UInt8 = 0
  public var encapsulationTypes: UInt8 = 0

  @inlinable public init() {}

  @inlinable
  public init(
    header: NDISObjectHeader = NDISObjectHeader(type: 0x80, revision: 3, objectByteCount: 28),
    ipv4Checksum: OffloadSetting = OffloadSetting.unchanged,
    tcpIPv4Checksum: OffloadSetting = OffloadSetting.unchanged,
    udpIPv4Checksum: OffloadSetting = OffloadSetting.unchanged,
    tcpIPv6Checksum: OffloadSetting = OffloadSetting.unchanged,
    udpIPv6Checksum: OffloadSetting = OffloadSetting.unchanged,
    largeSendV1: OffloadSetting = OffloadSetting.unchanged, ipsecV1: UInt8 = 0,
    largeSendV2IPv4: OffloadSetting = OffloadSetting.unchanged,
    largeSendV2IPv6: OffloadSetting = OffloadSetting.unchanged, tcpConnectionIPv4: UInt8 = 0,
    tcpConnectionIPv6: UInt8 = 0, flags: UInt32 = 0, ipsecV2: UInt8 = 0, ipsecV2IPv4: UInt8 = 0,
    receiveCoalescingIPv4: OffloadSetting = OffloadSetting.unchanged,
    receiveCoalescingIPv6: OffloadSetting = OffloadSetting.unchanged,
    encapsulatedPackets: UInt8 = 0, encapsulationTypes: UInt8 = 0
  ) {
    self.header = header
    self.ipv4Checksum = ipv4Checksum
    self.tcpIPv4Checksum = tcpIPv4Checksum
    self.udpIPv4Checksum = udpIPv4Checksum
    self.tcpIPv6Checksum = tcpIPv6Checksum
    self.udpIPv6Checksum = udpIPv6Checksum
    self.largeSendV1 = largeSendV1
    self.ipsecV1 = ipsecV1
    self.largeSendV2IPv4 = largeSendV2IPv4
    self.largeSendV2IPv6 = largeSendV2IPv6
    self.tcpConnectionIPv4 = tcpConnectionIPv4
    self.tcpConnectionIPv6 = tcpConnectionIPv6
    self.flags = flags
    self.ipsecV2 = ipsecV2
    self.ipsecV2IPv4 = ipsecV2IPv4
    self.receiveCoalescingIPv4 = receiveCoalescingIPv4
    self.receiveCoalescingIPv6 = receiveCoalescingIPv6
    self.encapsulatedPackets = encapsulatedPackets
    self.encapsulationTypes = encapsulationTypes
  }

  @inlinable public static var name: WireName { "NDISOffloadParameters" }
  @inlinable public static var byteCount: Int { 28 }

  @inlinable
  public mutating func visitFields<Visitor: FieldVisitor & ~Copyable & ~Escapable>(
    _ visitor: inout Visitor
  ) {
    visitor.structure("header", &header)
    visitor.integer("ipv4Checksum", &ipv4Checksum)
    visitor.integer("tcpIPv4Checksum", &tcpIPv4Checksum)
    visitor.integer("udpIPv4Checksum", &udpIPv4Checksum)
    visitor.integer("tcpIPv6Checksum", &tcpIPv6Checksum)
    visitor.integer("udpIPv6Checksum", &udpIPv6Checksum)
    visitor.integer("largeSendV1", &largeSendV1)
    visitor.integer("ipsecV1", &ipsecV1)
    visitor.integer("largeSendV2IPv4", &largeSendV2IPv4)
    visitor.integer("largeSendV2IPv6", &largeSendV2IPv6)
    visitor.integer("tcpConnectionIPv4", &tcpConnectionIPv4)
    visitor.integer("tcpConnectionIPv6", &tcpConnectionIPv6)
    visitor.padding(1)
    visitor.integer("flags", &flags)
    visitor.integer("ipsecV2", &ipsecV2)
    visitor.integer("ipsecV2IPv4", &ipsecV2IPv4)
    visitor.integer("receiveCoalescingIPv4", &receiveCoalescingIPv4)
    visitor.integer("receiveCoalescingIPv6", &receiveCoalescingIPv6)
    visitor.integer("encapsulatedPackets", &encapsulatedPackets)
    visitor.integer("encapsulationTypes", &encapsulationTypes)
    visitor.padding(2)
  }
}
