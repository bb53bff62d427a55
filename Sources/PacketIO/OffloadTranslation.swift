// SPDX-License-Identifier: Apache-2.0

public import NetworkProtocol

/// Between what Linux and what RNDIS say of a packet. Neither says more than the other understands:
/// what can't be said is done here, to the frame.
extension PerPacketInfo {
  /// What a client asks of the host for a frame of the network stack. Checksums that RNDIS has no word
  /// for, or that the host does not compute, are completed in the frame.
  ///
  /// - Parameters:
  ///   - frame: as it came from the stack; its lengths stay as they are.
  ///   - checksums: whether the host computes checksums.
  /// - Returns: nil for a frame that can't be sent: of several segments, but no TCP over IP.
  @_lifetime(frame: copy frame)
  public init?(
    sending frame: inout MutableRawSpan, _ offload: FrameOffload, checksums: Bool = true
  ) {
    self.init()
    guard case .partial(let start, let offset) = offload.checksum else {
      // Segments without a checksum to fill in: no stack sends that.
      if offload.segmentation != nil { return nil }
      return
    }
    guard let headers = FrameHeaders(frame.bytes) else { return nil }
    let isKnown =
      headers.transportOffset == Int(start) && headers.checksumOffset == Int(offset)
      && start < 1024
    if let segmentation = offload.segmentation {
      guard isKnown, headers.transport == .tcp, segmentation.kind != .udp else { return nil }
      present = .largeSend
      largeSend = LargeSendInfo(
        segmentByteCount: Int(segmentation.segmentByteCount), tcpHeaderOffset: Int(start),
        isIPv6: headers.network == .ipv6)
      return
    }
    guard isKnown, checksums else {
      offload.fillChecksum(of: &frame)
      return
    }
    present = .checksum
    checksum = [
      headers.network == .ipv4 ? .isIPv4 : .isIPv6, headers.transport == .tcp ? .tcp : .udp,
    ]
    checksum.tcpHeaderOffset = Int(start)
  }

  /// What a host tells its client of a frame: a checksum that is partial was never computed, since
  /// nothing but memory lies between sender and receiver.
  @inlinable
  public init(receiving offload: FrameOffload, _ headers: FrameHeaders?) {
    self.init()
    guard offload.checksum != .complete, let headers else { return }
    switch headers.transport {
    case .tcp: checksum = .tcpSucceeded
    case .udp: checksum = .udpSucceeded
    case .other: return
    }
    if headers.network == .ipv4 { checksum.insert(.ipSucceeded) }
    if case .partial = offload.checksum { checksum.insert([.loopback, .tcpValueInvalid]) }
    present = .checksum
  }
}

extension FrameOffload {
  /// What a network stack is told of a frame that its host received.
  ///
  /// A checksum that the host says was never computed becomes a partial one if it looks like one: then
  /// the stack completes it wherever the frame may leave the machine.
  ///
  /// - Parameter mtu: for a frame that was put together from several: bytes of the largest packet, which
  ///   tells how long its segments were. 0 for a frame of one.
  @_lifetime(frame: copy frame)
  public init(
    receiving info: PerPacketInfo, _ frame: inout MutableRawSpan, coalescedBelow mtu: Int = 0
  ) {
    self.init()
    let verified =
      info.present.contains(.checksum)
      && !info.checksum.isDisjoint(with: [.tcpSucceeded, .udpSucceeded])
    guard verified || mtu > 0, let headers = FrameHeaders(frame.bytes) else { return }
    if mtu > 0, let payload = headers.payloadOffset(in: frame.bytes), headers.transport == .tcp,
      mtu > payload &- headers.networkOffset, LargeSend.fillLengths(of: &frame, headers)
    {
      checksum = .partial(start: UInt16(clamping: headers.transportOffset), offset: 16)
      segmentation = Segmentation(
        kind: headers.network == .ipv4 ? .tcpIPv4 : .tcpIPv6,
        segmentByteCount: UInt16(clamping: mtu &- (payload &- headers.networkOffset)),
        headerByteCount: UInt16(clamping: payload))
      return
    }
    guard verified else { return }
    checksum = .verified
    guard info.checksum.contains(.tcpValueInvalid), let offset = headers.checksumOffset,
      let sum = headers.pseudoHeader(
        of: frame.bytes, byteCount: headers.end &- headers.transportOffset),
      sum.folded == frame.bytes.bigEndian16(at: headers.transportOffset &+ offset)
    else { return }
    checksum = .partial(
      start: UInt16(clamping: headers.transportOffset), offset: UInt16(clamping: offset))
  }

  /// What a network stack is told of a frame that a client sent, which is brought into Linux's shape.
  ///
  /// - Returns: nil for a request that the frame does not fit.
  @_lifetime(frame: copy frame)
  public init?(sent info: PerPacketInfo, _ frame: inout MutableRawSpan) {
    self.init()
    if info.present.contains(.largeSend) {
      guard let headers = FrameHeaders(frame.bytes), headers.transport == .tcp,
        info.largeSend.segmentByteCount > 0,
        LargeSend.fillLengths(of: &frame, headers)
      else { return nil }
      checksum = .partial(start: UInt16(clamping: headers.transportOffset), offset: 16)
      // A frame of one segment is none to be cut.
      let payload = headers.payloadOffset(in: frame.bytes) ?? frame.byteCount
      guard frame.byteCount &- payload > info.largeSend.segmentByteCount else { return }
      segmentation = Segmentation(
        kind: headers.network == .ipv4 ? .tcpIPv4 : .tcpIPv6,
        segmentByteCount: UInt16(clamping: info.largeSend.segmentByteCount),
        headerByteCount: UInt16(clamping: payload))
      return
    }
    guard info.present.contains(.checksum) else { return }
    let asked = info.checksum
    guard !asked.isDisjoint(with: [.tcp, .udp, .ipHeader]) else { return }
    guard let headers = FrameHeaders(frame.bytes) else { return nil }
    if asked.contains(.ipHeader) { headers.fillNetworkChecksum(in: &frame) }
    guard !asked.isDisjoint(with: [.tcp, .udp]) else { return }
    guard let offset = headers.checksumOffset,
      asked.contains(headers.transport == .tcp ? .tcp : .udp)
    else { return nil }
    checksum = .partial(
      start: UInt16(clamping: headers.transportOffset), offset: UInt16(clamping: offset))
  }
}
