// SPDX-License-Identifier: Apache-2.0

import NetworkProtocol
import VMBus

extension RNDISSession {
  /// The objects that can be asked for, as OID_GEN_SUPPORTED_LIST tells them. Those of offloads and of
  /// scaling are not in the list of NDIS before 6.
  static let supported: [OID] = [
    .supportedList, .hardwareStatus, .mediaSupported, .mediaInUse, .maximumLookahead,
    .maximumFrameByteCount, .linkSpeed, .transmitBufferSpace, .receiveBufferSpace,
    .transmitBlockByteCount, .receiveBlockByteCount, .vendorID, .vendorDescription,
    .currentPacketFilter, .currentLookahead, .driverVersion, .maximumTotalByteCount,
    .protocolOptions, .macOptions, .mediaConnectStatus, .maximumSendPackets,
    .vendorDriverVersion, .physicalMedium, .receiveScaleCapabilities,
    .receiveScaleParameters, .maximumLinkSpeed, .linkState, .transmitOK, .receiveOK,
    .transmitError, .receiveError, .receiveNoBuffer, .friendlyName, .configurationParameter,
    .permanentAddress, .currentAddress, .multicastList, .maximumMulticastList,
    .offloadEncapsulation, .offloadCurrentConfiguration, .offloadParameters,
    .offloadCapabilities,
  ]

  /// Microsoft's, the first three bytes of addresses that Hyper-V gives out.
  static let vendorID: UInt32 = 0x00155D

  /// The value of an object; nil for one that can't be asked for.
  func value(of oid: OID, _ facts: NetworkFacts) -> [UInt8]? {
    let mtu = UInt32(facts.mtu)
    let hasNDIS630 = facts.ndisVersion >= 0x0006_001E
    return switch oid {
    case .supportedList: Self.supported.flatMap { Self.bytes($0.rawValue) }
    case .hardwareStatus, .mediaSupported, .mediaInUse: Self.bytes(0)
    case .maximumLookahead, .maximumFrameByteCount: Self.bytes(mtu)
    case .currentLookahead: Self.bytes(lookahead == 0 ? mtu : lookahead)
    case .linkSpeed: Self.bytes(UInt32(clamping: facts.linkSpeed))
    case .transmitBufferSpace, .receiveBufferSpace: Self.bytes(mtu * 64)
    case .transmitBlockByteCount, .receiveBlockByteCount, .maximumTotalByteCount:
      Self.bytes(mtu + 14)
    case .vendorID: Self.bytes(Self.vendorID)
    case .vendorDescription: Array("Simulated Hyper-V network\0".utf8)
    case .currentPacketFilter: Self.bytes(filter.rawValue)
    case .driverVersion: Self.little(UInt16(0x0600))
    case .vendorDriverVersion: Self.bytes(0x0006_0000)
    // No loopback, transfers not pending, 802.1p priority, 802.1Q VLAN.
    case .macOptions: Self.bytes(0x0000_0001 | 0x0000_0008 | 0x0000_0040 | 0x0000_0200)
    case .mediaConnectStatus: Self.bytes(facts.isLinkUp ? 0 : 1)
    case .maximumSendPackets: Self.bytes(8)
    case .physicalMedium: Self.bytes(0)
    case .linkState: Self.linkState(facts)
    case .maximumLinkSpeed:
      Self.little(facts.linkSpeed &* 100) + Self.little(facts.linkSpeed &* 100)
    // Sent and received as the guest sees it.
    case .transmitOK: Self.little(facts.framesFromGuest)
    case .receiveOK: Self.little(facts.framesToGuest)
    case .transmitError: Self.little(facts.errorsFromGuest)
    case .receiveError: Self.little(UInt64(0))
    case .receiveNoBuffer: Self.little(facts.framesWithoutBuffer)
    case .friendlyName: "Network Adapter".utf16.flatMap { Self.little($0) } + [0, 0]
    case .permanentAddress: facts.permanentAddress.wireBytes
    case .currentAddress: (currentAddress ?? facts.permanentAddress).wireBytes
    case .multicastList: multicastAddresses.flatMap(\.wireBytes)
    case .maximumMulticastList: Self.bytes(UInt32(Self.maximumMulticastAddresses))
    case .offloadCapabilities: Self.offloadCapabilities(facts)
    case .offloadCurrentConfiguration: Self.offloadCapabilities(facts)
    case .receiveScaleCapabilities: hasNDIS630 ? Self.scalingCapabilities(facts) : nil
    default: nil
    }
  }

  /// NDIS_LINK_STATE: connected or not, full duplex, speeds in bits per second.
  static func linkState(_ facts: NetworkFacts) -> [UInt8] {
    NDISObjectHeader(type: 0x80, revision: 1, objectByteCount: 40).wireBytes
      + bytes(UInt32(facts.isLinkUp ? 1 : 2)) + bytes(2) + bytes(0)
      + little(facts.linkSpeed &* 100) + little(facts.linkSpeed &* 100)
      + bytes(0) + bytes(0)
  }

  private static func scalingCapabilities(_ facts: NetworkFacts) -> [UInt8] {
    // 128 entries even for one queue: DPDK can't do with none.
    RSSCapabilities(
      flags: [.tcpIPv4, .tcpIPv6], receiveQueues: UInt32(clamping: facts.maximumQueues),
      indirectionTableEntries: 128
    ).wireBytes
  }

  /// NDIS_OFFLOAD as the guest's NDIS knows it: 112, 144 or 156 bytes.
  private static func offloadCapabilities(_ facts: NetworkFacts) -> [UInt8] {
    let checksums: NDISChecksums = [.ipOptions, .tcpOptions, .tcp, .udp]
    // 2: 802.3.
    let capabilities = NDISChecksumCapabilities(
      ipv4TransmitEncapsulation: 2, ipv4Transmit: checksums.union(.ip),
      ipv4ReceiveEncapsulation: 2, ipv4Receive: checksums.union(.ip),
      ipv6TransmitEncapsulation: 2, ipv6Transmit: checksums,
      ipv6ReceiveEncapsulation: 2, ipv6Receive: checksums)
    let large = UInt32(LargeSendInfo.maximumByteCount)
    let largeSend = NDISLargeSendV2(
      ipv4Encapsulation: 2, ipv4MaximumByteCount: large, ipv4MinimumSegments: 2,
      ipv6Encapsulation: 2, ipv6MaximumByteCount: large, ipv6MinimumSegments: 2,
      ipv6Options: 5)
    let revision: UInt8
    let byteCount: Int
    switch facts.ndisVersion {
    case ..<0x0006_0001: (revision, byteCount) = (1, 112)
    case ..<0x0006_001E: (revision, byteCount) = (2, 144)
    default: (revision, byteCount) = (3, 156)
    }
    let coalescing: UInt8 = facts.allowsCoalescing ? 1 : 0
    let bytes =
      NDISOffload(
        header: NDISObjectHeader(
          type: 0xA7, revision: revision, objectByteCount: UInt16(byteCount)),
        checksums: capabilities, largeSendV2: largeSend
      ).wireBytes
      + NDISOffload630(receiveCoalescingIPv4: coalescing, receiveCoalescingIPv6: coalescing)
      .wireBytes
    return Array(bytes.prefix(byteCount))
  }

  private static func bytes(_ value: UInt32) -> [UInt8] { little(value) }

  private static func little<T: FixedWidthInteger>(_ value: T) -> [UInt8] {
    (0..<T.bitWidth / 8).map { UInt8(truncatingIfNeeded: value >> T(truncatingIfNeeded: 8 * $0)) }
  }
}
