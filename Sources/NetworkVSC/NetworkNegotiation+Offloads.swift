// SPDX-License-Identifier: Apache-2.0

import NetworkProtocol
import VSC

/// What the host is to do with packets, and which queue it is to put them on.
extension NetworkNegotiation {
  /// Of what the host can do, what the configuration lets it.
  mutating func takeOffloads(_ host: NetworkOffloads) {
    let choice = configuration.offloads
    var wanted = NetworkOffloads()
    if choice.contains(.checksum) {
      let all = NDISChecksums(rawValue: .max)
      (wanted.ipv4Transmit, wanted.ipv6Transmit) = (all, all)
      (wanted.ipv4Receive, wanted.ipv6Receive) = (all, all)
    }
    if choice.contains(.largeSend) {
      let limit = configuration.usableFrameBufferByteCount - FrameLayout.headroom
      (wanted.ipv4LargeSend, wanted.ipv6LargeSend) = (limit, limit)
    }
    if choice.contains(.coalescedReceive), agreement.version.hasReceiveCoalescing {
      (wanted.coalescesIPv4, wanted.coalescesIPv6) = (true, true)
    }
    wanted.vlan = choice.contains(.vlan)
    agreement.offloads = host.limited(to: wanted)
  }

  var offloadParameters: [UInt8] {
    let offloads = agreement.offloads
    func checksum(
      _ kind: NDISChecksums, _ transmit: NDISChecksums, _ receive: NDISChecksums
    ) -> OffloadSetting {
      switch (transmit.contains(kind), receive.contains(kind)) {
      case (true, true): .both
      case (true, false): .transmit
      case (false, true): .receive
      case (false, false): .disabled
      }
    }
    func enabled(_ condition: Bool) -> OffloadSetting { condition ? .enabled : .disabled }
    var parameters = NDISOffloadParameters()
    parameters.ipv4Checksum = checksum(.ip, offloads.ipv4Transmit, offloads.ipv4Receive)
    parameters.tcpIPv4Checksum = checksum(.tcp, offloads.ipv4Transmit, offloads.ipv4Receive)
    parameters.udpIPv4Checksum = checksum(.udp, offloads.ipv4Transmit, offloads.ipv4Receive)
    parameters.tcpIPv6Checksum = checksum(.tcp, offloads.ipv6Transmit, offloads.ipv6Receive)
    parameters.udpIPv6Checksum = checksum(.udp, offloads.ipv6Transmit, offloads.ipv6Receive)
    parameters.largeSendV1 = .disabled
    parameters.largeSendV2IPv4 = enabled(offloads.ipv4LargeSend > 0)
    parameters.largeSendV2IPv6 = enabled(offloads.ipv6LargeSend > 0)
    parameters.receiveCoalescingIPv4 = enabled(offloads.coalescesIPv4)
    parameters.receiveCoalescingIPv6 = enabled(offloads.coalescesIPv6)
    // NDIS before 6.30 knows the shorter structure.
    let isShort = agreement.version <= .v4
    if isShort {
      parameters.header = NDISObjectHeader(type: 0x80, revision: 2, objectByteCount: 22)
    }
    return Array(parameters.wireBytes.prefix(isShort ? 22 : 28))
  }

  /// The subchannels are open, or as many of them as could be opened.
  ///
  /// - Parameter queueCount: queues that there are, the primary one included.
  mutating func opened(queueCount: Int) -> [Action] {
    guard stage == .opening else { return [] }
    self.queueCount = max(queueCount, 1)
    guard agreement.rssTableCount > 0 else {
      return set(.currentPacketFilter, configuration.filter.rawValue.wireBytes, .filter)
    }
    return set(.receiveScaleParameters, rssParameters, .rss)
  }

  private var rssParameters: [UInt8] {
    let count = agreement.rssTableCount
    var parameters = RSSParameters()
    // UDP's ports have kinds of their own since NDIS 6.80, and hosts are told of NDIS 6.30: UDP is spread by
    // its addresses, as Linux has it.
    parameters.hash = [.toeplitz, .ipv4, .tcpIPv4, .ipv6, .tcpIPv6]
    parameters.tableByteCount = UInt16(count * 4)
    parameters.tableOffset = 40
    parameters.keyByteCount = 40
    parameters.keyOffset = UInt32(40 + count * 4)
    var bytes = parameters.wireBytes
    for entry in 0..<count { bytes += UInt32(entry % queueCount).wireBytes }
    for index in configuration.rssKey.indices { bytes.append(configuration.rssKey[index]) }
    return bytes
  }
}

extension NetworkOffloads {
  /// What a host says that it can do, or does (NDIS_OFFLOAD; the last part came with NDIS 6.30).
  init(_ buffer: RawSpan) throws(WireError) {
    let host = try NDISOffload(parsing: buffer)
    self.init()
    ipv4Transmit = host.checksums.ipv4Transmit
    ipv6Transmit = host.checksums.ipv6Transmit
    ipv4Receive = host.checksums.ipv4Receive
    ipv6Receive = host.checksums.ipv6Receive
    ipv4LargeSend = Int(host.largeSendV2.ipv4MaximumByteCount)
    ipv6LargeSend = Int(host.largeSendV2.ipv6MaximumByteCount)
    minimumSegments = max(Int(host.largeSendV2.ipv4MinimumSegments), 1)
    // It is no part of the structure, but of each packet.
    vlan = true
    if buffer.byteCount >= 156 {
      let more = try NDISOffload630(parsing: buffer.extracting(droppingFirst: 112))
      coalescesIPv4 = more.receiveCoalescingIPv4 != 0
      coalescesIPv6 = more.receiveCoalescingIPv6 != 0
    }
  }

  /// What both have.
  func limited(to other: NetworkOffloads) -> NetworkOffloads {
    var result = self
    result.ipv4Transmit.formIntersection(other.ipv4Transmit)
    result.ipv6Transmit.formIntersection(other.ipv6Transmit)
    result.ipv4Receive.formIntersection(other.ipv4Receive)
    result.ipv6Receive.formIntersection(other.ipv6Receive)
    result.ipv4LargeSend = min(ipv4LargeSend, other.ipv4LargeSend)
    result.ipv6LargeSend = min(ipv6LargeSend, other.ipv6LargeSend)
    result.coalescesIPv4 = coalescesIPv4 && other.coalescesIPv4
    result.coalescesIPv6 = coalescesIPv6 && other.coalescesIPv6
    result.vlan = vlan && other.vlan
    return result
  }
}
