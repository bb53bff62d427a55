// SPDX-License-Identifier: Apache-2.0

import NetworkProtocol
import PacketIO
import VMBus

// Frames from the guest.

extension NetVSPServer where Port: ~Copyable {
  /// Takes the RNDIS messages that a packet names, one after the other.
  ///
  /// - Returns: what the packet is completed with. A guest that garbles a packet is told so, and the
  ///   channel goes on: the messages before it have been taken.
  @inline(__always)
  mutating func takeRNDIS(
    _ message: NVSPRNDISPacket, _ packet: Packet
  ) throws(NetVSPError) -> NVSPStatus {
    do throws(NetVSPError) {
      try gather(message, packet)
      var offset = 0
      while offset < segments.byteCount { offset &+= try takeMessage(at: offset) }
      return .success
    } catch .tooManyAnswers {
      throw .tooManyAnswers
    } catch {
      return refuse(error)
    }
  }

  @inline(never)
  private mutating func refuse(_ error: NetVSPError) -> NVSPStatus {
    counters.errorsFromGuest &+= 1
    guest.count(error)
    // What Linux 6.14 sends, whose headers cross a page, is well formed all the same.
    if case .splitHeader = error { return .failure }
    return .invalidRNDISPacket
  }

  /// Finds the memory that the messages lie in: the section first, then the ranges.
  @inline(__always)
  private mutating func gather(
    _ message: NVSPRNDISPacket, _ packet: Packet
  ) throws(NetVSPError) {
    segments.removeAll()
    if message.sectionIndex != NVSPRNDISPacket.noSection {
      let (index, byteCount) = (Int(message.sectionIndex), Int(message.sectionByteCount))
      let start = index &* NVSPSession.sectionByteCount
      guard let sendBuffer, byteCount > 0, byteCount <= NVSPSession.sectionByteCount,
        start &+ byteCount <= sendBuffer.byteCount
      else {
        throw .badSection(index: message.sectionIndex, byteCount: message.sectionByteCount)
      }
      // Safe: the section lies within the buffer, which is mapped as long as this value has it.
      unsafe segments.append(sendBuffer.start + start, byteCount)
    }
    if packet.type == .gpaDirect {
      do {
        try segments.append(channel.externalRanges(of: packet))
      } catch let error as NetVSPError {
        throw error
      } catch {
        throw .malformed(error as? WireError ?? .tooShort("GPA ranges", needed: 8, found: 0))
      }
    }
    guard segments.byteCount > 0 else { throw .badRanges(count: 0) }
  }

  /// Takes one message; returns its bytes, at least 8.
  private mutating func takeMessage(at offset: Int) throws(NetVSPError) -> Int {
    let left = segments.byteCount &- offset
    // Safe: private memory of 512 bytes.
    guard left >= 8, unsafe segments.copy(offset, min(left, 44), to: head.start) else {
      throw .malformed(.tooShort("RNDIS message", needed: 8, found: left))
    }
    let bytes = unsafe RawSpan(_unsafeStart: head.start, byteCount: min(left, 44))
    guard unsafe bytes.unsafeLoadUnaligned(fromByteOffset: 0, as: UInt32.self) == 1 else {
      return try takeControl(at: offset, left)
    }
    let header: RNDISPacketHeader
    let layout: RNDISPacketLayout
    do throws(WireError) {
      header = try RNDISPacketHeader(parsing: bytes)
      layout = try RNDISPacketLayout(header, limit: left)
    } catch {
      throw .malformed(error)
    }
    // All headers in one range, up to the frame or the end of the info.
    let headerEnd = max(44, layout.infoOffset &+ layout.infoByteCount)
    guard headerEnd <= head.byteCount,
      unsafe segments.copy(offset, headerEnd, to: head.start, fromOneRange: true)
    else { throw .splitHeader(offset: offset) }
    guard queue > 0 || rndis.state == .initialized else {
      throw .unexpectedRNDIS(.packet)
    }
    var info = PerPacketInfo()
    if layout.infoByteCount > 0 {
      do throws(WireError) {
        info = try PerPacketInfo(
          parsing: unsafe RawSpan(
            _unsafeStart: head.start + layout.infoOffset, byteCount: layout.infoByteCount))
      } catch {
        throw .malformed(error)
      }
    }
    try takeFrame(at: offset &+ layout.dataOffset, layout.dataByteCount, info)
    return layout.messageByteCount
  }

  /// Takes one frame.
  @inline(__always)
  private mutating func takeFrame(
    at offset: Int, _ byteCount: Int, _ info: PerPacketInfo
  ) throws(NetVSPError) {
    let isLarge = info.present.contains(.largeSend) && info.largeSend.rawValue != 0
    // A tag may be in the frame's bytes.
    let limit = isLarge ? FrameInfo.maximumByteCount : session.frameByteCount &+ 4
    guard byteCount >= 14, byteCount <= limit else { throw .badFrame(byteCount: byteCount) }
    var described = FrameInfo(byteCount: byteCount)
    if info.present.contains(.vlan) { described.vlan = info.vlan }
    let isPlain = !isLarge && info.checksum.rawValue & 0x1F == 0
    if isPlain, let start = unsafe segments.contiguous(offset, byteCount) {
      count(byteCount)
      guard state.isLinkUp else { return }
      // Safe: the guest's memory, which stays mapped; nobody decides anything by it twice.
      port.send(unsafe RawSpan(_unsafeStart: start, byteCount: byteCount), described)
      return
    }
    try takeWhole(at: offset, byteCount, info, isLarge, &described)
  }

  @inline(__always)
  private mutating func count(_ byteCount: Int) {
    counters.framesFromGuest &+= 1
    counters.bytesFromGuest &+= UInt64(byteCount)
  }

  /// A frame that lies in pieces or has to be worked on: put together in private memory first.
  private mutating func takeWhole(
    at offset: Int, _ byteCount: Int, _ info: PerPacketInfo, _ isLarge: Bool,
    _ described: inout FrameInfo
  ) throws(NetVSPError) {
    // Safe: private memory, larger than the largest frame.
    guard unsafe segments.copy(offset, byteCount, to: frame.start) else {
      throw .badFrame(byteCount: byteCount)
    }
    var whole = unsafe MutableRawSpan(_unsafeStart: frame.start, byteCount: byteCount)
    if isLarge {
      described.offload = try Self.prepareLargeSend(&whole, info.largeSend)
    } else {
      described.offload = try Self.prepareChecksum(&whole, info.checksum)
    }
    count(byteCount)
    if isLarge { counters.largeFromGuest &+= 1 }
    if byteCount > NetworkCounters.hugeByteCount { counters.hugeFromGuest &+= 1 }
    guard state.isLinkUp else { return }
    port.send(whole.bytes, described)
  }

  /// Clients leave the IP lengths of a large send zero; from here on they are right.
  private static func prepareLargeSend(
    _ frame: inout MutableRawSpan, _ info: LargeSendInfo
  ) throws(NetVSPError) -> FrameOffload {
    guard let headers = FrameHeaders(frame.bytes), headers.transport == .tcp,
      headers.transportOffset == info.tcpHeaderOffset,
      (headers.network == .ipv6) == info.isIPv6,
      let payload = headers.payloadOffset(in: frame.bytes),
      let segment = UInt16(exactly: info.segmentByteCount), segment > 0,
      LargeSend.fillLengths(of: &frame, headers)
    else { throw .badOffload }
    var offload = FrameOffload(
      checksum: .partial(start: UInt16(truncatingIfNeeded: headers.transportOffset), offset: 16))
    // A single segment needs no cutting.
    if payload &+ Int(segment) < frame.byteCount {
      offload.segmentation = .init(
        kind: info.isIPv6 ? .tcpIPv6 : .tcpIPv4, segmentByteCount: segment,
        headerByteCount: UInt16(truncatingIfNeeded: payload))
    }
    return offload
  }

  /// Clients differ in what they leave in the checksum's place; from here on it is the pseudo-header's
  /// sum.
  private static func prepareChecksum(
    _ frame: inout MutableRawSpan, _ info: ChecksumInfo
  ) throws(NetVSPError) -> FrameOffload {
    // The offset's bits may be set without any of these.
    guard !info.isDisjoint(with: [.tcp, .udp, .ipHeader]) else { return FrameOffload() }
    guard let headers = FrameHeaders(frame.bytes), headers.network != .other else {
      throw .badOffload
    }
    if info.contains(.ipHeader) { headers.fillNetworkChecksum(in: &frame) }
    guard !info.isDisjoint(with: [.tcp, .udp]) else { return FrameOffload() }
    let wanted: FrameHeaders.Transport = info.contains(.tcp) ? .tcp : .udp
    guard headers.transport == wanted, let offset = headers.checksumOffset,
      let sum = headers.pseudoHeader(
        of: frame.bytes, byteCount: headers.end &- headers.transportOffset)
    else { throw .badOffload }
    frame.storeBigEndian16(sum.folded, at: headers.transportOffset &+ offset)
    return FrameOffload(
      checksum: .partial(
        start: UInt16(truncatingIfNeeded: headers.transportOffset),
        offset: UInt16(truncatingIfNeeded: offset)))
  }

  /// A control message among what was sent.
  @inline(never)
  private mutating func takeControl(at offset: Int, _ left: Int) throws(NetVSPError) -> Int {
    let bytes = unsafe RawSpan(_unsafeStart: head.start, byteCount: 8)
    let header = try NetVSPError.wrap { () throws(WireError) in try RNDISHeader(parsing: bytes) }
    let byteCount = Int(header.messageByteCount)
    guard byteCount >= 8, byteCount <= min(left, RNDISSession.maximumMessageByteCount) else {
      throw .malformed(
        .invalid("RNDISHeader", field: "messageByteCount", value: UInt64(header.messageByteCount)))
    }
    // Safe: private memory, larger than such a message.
    guard unsafe segments.copy(offset, byteCount, to: frame.start) else {
      throw .splitHeader(offset: offset)
    }
    try takeControl(unsafe RawSpan(_unsafeStart: frame.start, byteCount: byteCount))
    return byteCount
  }
}
