// SPDX-License-Identifier: Apache-2.0

public import NetworkProtocol
public import VSC

extension NetworkQueue {
  /// Fills the burst with frames that have come, and does all else that the channel brings.
  ///
  /// - Returns: frames that were added.
  @inlinable
  public mutating func receive(into burst: inout ReceiveBurst) -> Int {
    let before = burst.count
    if mail.isRaised || phase == .new { attend() }
    while phase != .failed {
      if rangesLeft > 0 {
        guard !burst.isFull else { break }
        takeRange(&burst)
        continue
      }
      // Without a slot the packet could not be given back.
      guard unsafe core.pointee.freeCount > 0 else { break }
      do throws(ChannelError) {
        guard let packet = try channel.receive() else { break }
        switch packet.type {
        case .transferPages: begin(packet)
        case .completion: completed(packet)
        default: inBand(packet)
        }
      } catch {
        fail(.channel(error))
      }
    }
    return burst.count &- before
  }

  /// Begins to read a packet with ranges of the receive buffer.
  @inlinable
  mutating func begin(_ packet: Packet) {
    let core = unsafe self.core
    slot = unsafe core.pointee.begin(packet.transactionID)
    do throws(WireError) {
      rangesLeft = try Self.rangeCount(channel.ranges(of: packet), channel.payload(of: packet))
      rangeIndex = 0
      self.packet = packet
    } catch {
      refuse(error)
      let core = unsafe self.core
      unsafe core.pointee.release(slot)
    }
  }

  /// How many ranges there are, of which all lie within `ranges`.
  @inlinable
  static func rangeCount(_ ranges: RawSpan, _ payload: RawSpan) throws(WireError) -> Int {
    let header = try NVSPHeader(parsing: payload)
    guard header.type == .sendRNDISPacket else {
      throw .unknownType("transfer-pages payload", value: UInt64(header.type.rawValue))
    }
    var reader = WireReader(ranges, name: "transfer pages")
    let set: UInt16 = try reader.read()
    guard set == ReceiveCore.bufferID else {
      throw .invalid("transfer pages", field: "set_id", value: UInt64(set))
    }
    try reader.skip(2)
    let count: UInt32 = try reader.read()
    guard count > 0, Int(count) <= reader.remaining / 8 else {
      throw .invalid("transfer pages", field: "range_count", value: UInt64(count))
    }
    return Int(count)
  }

  /// Reads the next range, which is one RNDIS message.
  @inlinable
  mutating func takeRange(_ burst: inout ReceiveBurst) {
    guard let packet else {
      rangesLeft = 0
      return
    }
    do throws(WireError) {
      try readRange(packet, &burst)
    } catch {
      refuse(error)
      dropCoalescing()
    }
    rangeIndex &+= 1
    rangesLeft &-= 1
    guard rangesLeft == 0 else { return }
    if coalescing.segmentCount > 0 {
      refuse(.invalid("RNDIS packet", field: "last fragment", value: 0))
      dropCoalescing()
    }
    self.packet = nil
    let core = unsafe self.core
    unsafe core.pointee.release(slot)
  }

  @inlinable
  mutating func readRange(_ packet: Packet, _ burst: inout ReceiveBurst) throws(WireError) {
    let (offset, count) = try Self.range(
      rangeIndex, of: channel.ranges(of: packet), within: receiveByteCount)
    // Safe: the range lies in the buffer, as was just found.
    let start = unsafe UnsafeRawPointer(core.pointee.base + offset)
    guard let (layout, info) = try unsafe Self.message(at: start, count, copy: header) else {
      return try control(offset, count)
    }
    let frameOffset = UInt32(truncatingIfNeeded: offset &+ layout.dataOffset)
    let frameByteCount = UInt32(truncatingIfNeeded: layout.dataByteCount)
    if info.present.contains(.packetID), info.packetID.isSuballocation {
      return try coalesce(frameOffset, frameByteCount, info, &burst)
    }
    guard coalescing.segmentCount == 0 else {
      throw .invalid("RNDIS packet", field: "fragment", value: UInt64(info.packetID.rawValue))
    }
    counts.receivedPackets &+= 1
    counts.receivedBytes &+= UInt64(frameByteCount)
    unsafe burst.append(
      ReceivedPacket(
        core: core, slot: slot, offset: frameOffset, firstByteCount: frameByteCount,
        next: ReceiveCore.none, byteCount: layout.dataByteCount, segmentCount: 1, info: info))
  }

  /// A range of a packet, found to lie in the receive buffer.
  @inlinable
  static func range(
    _ index: Int, of ranges: RawSpan, within limit: Int
  ) throws(WireError) -> (offset: Int, count: Int) {
    var reader = WireReader(ranges, name: "transfer pages")
    try reader.skip(8 &+ 8 &* index)
    let byteCount: UInt32 = try reader.read()
    let byteOffset: UInt32 = try reader.read()
    let (count, offset) = (Int(byteCount), Int(byteOffset))
    guard offset <= limit else {
      throw .invalid("transfer pages", field: "byte_offset", value: UInt64(byteOffset))
    }
    guard count >= RNDISHeader.byteCount, count <= limit &- offset else {
      throw .invalid("transfer pages", field: "byte_count", value: UInt64(byteCount))
    }
    return (offset, count)
  }

  /// The header of a data message of at most `count` bytes, copied and checked, with its info; nil for a
  /// message of another kind.
  @unsafe
  @inlinable
  static func message(
    at start: UnsafeRawPointer, _ count: Int, copy: borrowing HeaderCopy
  ) throws(WireError) -> (RNDISPacketLayout, PerPacketInfo)? {
    let copied = unsafe copy.take(start, min(count, RNDISPacketHeader.byteCount))
    let type: UInt32 = unsafe copied.unsafeLoad(as: UInt32.self)
    guard UInt32(littleEndian: type) == 1 else { return nil }
    let layout = try RNDISPacketLayout(RNDISPacketHeader(parsing: copied), limit: count)
    guard layout.infoByteCount > 0 else { return (layout, PerPacketInfo()) }
    let info = try unsafe PerPacketInfo(
      parsing: copy.take(start + layout.infoOffset, layout.infoByteCount))
    return (layout, info)
  }

  /// A part of a frame. All parts lie in one packet of the host, in their order.
  @usableFromInline
  mutating func coalesce(
    _ offset: UInt32, _ byteCount: UInt32, _ info: PerPacketInfo, _ burst: inout ReceiveBurst
  ) throws(WireError) {
    let id = info.packetID
    if id.isFirst {
      dropCoalescing()
      coalescing.offset = offset
      coalescing.firstByteCount = byteCount
      coalescing.info = info
    } else {
      guard coalescing.segmentCount > 0 else {
        throw .invalid("RNDIS packet", field: "first fragment", value: UInt64(id.rawValue))
      }
      let core = unsafe self.core
      guard let segment = unsafe core.pointee.takeSegment(offset, byteCount) else {
        counts.dropped &+= 1
        throw .invalid("RNDIS packet", field: "fragments", value: UInt64(coalescing.segmentCount))
      }
      if coalescing.last == ReceiveCore.none {
        coalescing.next = segment
      } else {
        unsafe core.pointee.segments[Int(coalescing.last)].next = segment
      }
      coalescing.last = segment
    }
    coalescing.segmentCount += 1
    coalescing.byteCount += Int(byteCount)
    guard id.isLast else { return }
    let whole = coalescing
    coalescing = Coalescing()
    counts.receivedPackets &+= 1
    counts.receivedBytes &+= UInt64(truncatingIfNeeded: whole.byteCount)
    if whole.segmentCount > 1 { counts.coalescedPackets &+= 1 }
    unsafe burst.append(
      ReceivedPacket(
        core: core, slot: slot, offset: whole.offset, firstByteCount: whole.firstByteCount,
        next: whole.next, byteCount: whole.byteCount, segmentCount: whole.segmentCount,
        info: whole.info))
  }

  @usableFromInline
  mutating func dropCoalescing() {
    if coalescing.next != ReceiveCore.none {
      let core = unsafe self.core
      unsafe core.pointee.freeSegments(from: coalescing.next)
    }
    coalescing = Coalescing()
  }

  /// A message of the host that is dropped: the packet that it is in is completed with an error.
  @usableFromInline
  mutating func refuse(_ error: WireError) {
    counts.malformed &+= 1
    counts.lastFault = error
    unsafe core.pointee.slots[Int(slot)].status = NVSPStatus.failure.rawValue
  }

  // MARK: - Completions

  /// The host is done with a message.
  @inlinable
  mutating func completed(_ packet: Packet) {
    guard var request = requests.complete(packet.transactionID) else {
      channel.counters.unknownCompletions &+= 1
      return
    }
    if var frame = request.payload.frame.take() {
      frame.memory.takeBack()
      request.payload.frame = consume frame
    }
    switch request.payload.kind {
    case .section:
      // Safe: the section is this queue's, and nobody fills it before it is free again.
      unsafe frames.scrub(
        sections.start(of: request.payload.section), byteCount: Int(request.payload.byteCount))
      sections.push(request.payload.section)
      if !Self.isSuccess(channel.payload(of: packet)) {
        counts.refused &+= UInt64(request.payload.packets)
      }
    case .frame:
      if !Self.isSuccess(channel.payload(of: packet)) { counts.refused &+= 1 }
    default:
      answered(request.payload.kind, packet)
    }
  }

  @inlinable
  static func isSuccess(_ payload: RawSpan) -> Bool {
    var reader = WireReader(payload, name: "SEND_RNDIS_PACKET_COMPLETE")
    guard let type = try? reader.read(UInt32.self), let status = try? reader.read(UInt32.self)
    else { return false }
    return type == 108 && status == 1
  }
}
