// SPDX-License-Identifier: Apache-2.0

public import NetworkProtocol
public import VSC

extension NetworkQueue {
  /// Sends a copy of a frame: behind others in a section of the send buffer if it is small, or else in a
  /// frame buffer.
  ///
  /// - Throws: `wouldBlock` when there is no room now.
  @inlinable
  public mutating func send(
    _ frame: RawSpan, _ info: PerPacketInfo = PerPacketInfo()
  ) throws(NetworkError) {
    let count = frame.byteCount
    try check(count, info)
    let needed = info.headerByteCount &+ count
    guard needed <= sections.limit else {
      guard var buffer = takeBuffer() else { return try block() }
      buffer.copyIn(frame)
      var optional: FrameBuffer<External>? = buffer
      return try sendFrame(&optional, info)
    }
    let section = try reserve(needed)
    // The next message starts at a multiple of the host's alignment, and this one ends there.
    let aligned = (needed &+ alignmentMask) & ~alignmentMask
    let total = min(aligned, sections.byteCount &- sections.used)
    var rest = sections.rest(section)
    let offset = info.writeHeader(into: &rest, dataByteCount: count, messageByteCount: total)
    var target = rest._mutatingExtracting(offset..<total)
    Self.copy(frame, into: &target)
    if total > needed {
      // What earlier frames have left there is not sent once more.
      for index in count..<(total &- offset) {
        target.storeBytes(of: 0, toByteOffset: index, as: UInt8.self)
      }
    }
    if info.present.contains(.largeSend) {
      var frame = target._mutatingExtracting(first: count)
      prepareLargeSend(&frame, info.largeSend)
      counts.largeSends &+= 1
    }
    sections.used &+= total
    sections.packets &+= 1
    counts.sentPackets &+= 1
    counts.sentBytes &+= UInt64(truncatingIfNeeded: count)
  }

  /// A buffer for a frame of any length that the device takes, or nil when all are in use.
  @inlinable
  public mutating func takeBuffer() -> FrameBuffer<External>? {
    guard let memory = frames.take() else { return nil }
    return FrameBuffer(memory)
  }

  /// Sends a frame. Small ones are copied to a section; the host reads others from where they lie.
  ///
  /// - Parameter frame: nil after success; after an error it is still the caller's.
  @inlinable
  public mutating func send(
    _ frame: inout FrameBuffer<External>?, _ info: PerPacketInfo = PerPacketInfo()
  ) throws(NetworkError) {
    guard var buffer = frame.take() else { return }
    let count = buffer.byteCount
    let isSmall = info.headerByteCount &+ count <= sections.limit
    do throws(NetworkError) {
      if isSmall { return try sendCopy(of: &buffer, info) }
      try check(count, info)
    } catch {
      frame = consume buffer
      throw error
    }
    frame = consume buffer
    try sendFrame(&frame, info)
  }

  @inlinable
  mutating func sendCopy(
    of frame: inout FrameBuffer<External>, _ info: PerPacketInfo
  ) throws(NetworkError) {
    try send(frame.bytes, info)
  }

  /// Sends frames from the first on, as long as there is room; the others stay. One that can't ever be
  /// sent is dropped, and counted.
  ///
  /// - Returns: frames that were sent.
  @inlinable
  public mutating func send(_ burst: inout SendBurst<External>) -> Int {
    var count = 0
    while let first = burst.takeFirst() {
      var frame: FrameBuffer<External>? = first
      do throws(NetworkError) {
        try send(&frame, burst.firstInfo)
        count &+= 1
      } catch .wouldBlock {
        if let frame = frame.take() { burst.putBack(frame) }
        return count
      } catch {
        note(error)
        counts.dropped &+= 1
      }
      burst.dropFirst()
    }
    return count
  }

  // MARK: - How

  @inlinable
  func check(_ count: Int, _ info: PerPacketInfo) throws(NetworkError) {
    guard phase == .ready else { throw failure ?? .notReady }
    var limit = maximumFrameByteCount
    if info.present.contains(.largeSend) {
      limit = info.largeSend.isIPv6 ? maximumLargeSendIPv6 : maximumLargeSendIPv4
      guard info.largeSend.segmentByteCount > 0, info.largeSend.tcpHeaderOffset &+ 20 <= count
      else { throw .badInfo }
    }
    guard count >= 14, count <= limit else { throw .badFrameLength(count, limit: limit) }
    if info.present.contains(.checksum) {
      guard info.checksum.tcpHeaderOffset < count else { throw .badInfo }
    }
  }

  /// There is no room. Counts it and throws.
  @usableFromInline
  mutating func block() throws(NetworkError) {
    counts.blocked &+= 1
    throw .wouldBlock
  }

  /// The section with room for a message of that many bytes.
  @inlinable
  mutating func reserve(_ needed: Int) throws(NetworkError) -> UInt32 {
    if let section = sections.current {
      if sections.packets < packetsPerMessage, needed <= sections.limit &- sections.used {
        return section
      }
      try sendSection()
    }
    guard requests.count < requests.capacity &- 8, sections.open(),
      let section = sections.current
    else {
      try block()
      throw .wouldBlock
    }
    return section
  }

  /// Sends the section that is being filled.
  ///
  /// - Throws: `wouldBlock`; then it stays, to be sent with the next `publish`.
  @inlinable
  mutating func sendSection() throws(NetworkError) {
    guard let section = sections.current, let id = requests.nextID else { return try block() }
    let message = NVSPRNDISPacket(
      channel: .data, sectionIndex: section,
      sectionByteCount: UInt32(truncatingIfNeeded: sections.used)
    ).message
    do throws(ChannelError) {
      try unsafe channel.send(
        message.span.bytes.extracting(first: messageByteCount), transactionID: id,
        completionRequested: true)
    } catch {
      counts.blocked &+= 1
      throw refusal(error)
    }
    requests.insert(
      SendRequest(
        .section, section: section, byteCount: sections.used, packets: sections.packets,
        frame: nil),
      deadline: MonotonicClock.coarse() &+ timeout)
    sections.current = nil
    counts.sections &+= 1
  }

  /// Sends a frame from where it lies.
  @inlinable
  mutating func sendFrame(
    _ optional: inout FrameBuffer<External>?, _ info: PerPacketInfo
  ) throws(NetworkError) {
    // Frames of a flow stay in order: what was copied before goes before.
    if sections.current != nil, sections.packets > 0 { try sendSection() }
    guard requests.count < requests.capacity &- 8, let id = requests.nextID,
      var frame = optional.take()
    else { return try block() }
    let count = frame.byteCount
    frame.memory.withMutableBytes(FrameLayout.headroom &+ count) { message in
      info.writeHeader(
        into: &message, dataByteCount: count, dataOffset: FrameLayout.headroom)
      if info.present.contains(.largeSend) {
        var frame = message._mutatingExtracting(droppingFirst: FrameLayout.headroom)
        prepareLargeSend(&frame, info.largeSend)
      }
    }
    let message = NVSPRNDISPacket(
      channel: .data, sectionIndex: NVSPRNDISPacket.noSection, sectionByteCount: 0
    ).message
    do throws(ChannelError) {
      try unsafe channel.send(
        message.span.bytes.extracting(first: messageByteCount), dma: &frame.memory,
        byteCount: FrameLayout.headroom &+ count, transactionID: id)
    } catch {
      optional = consume frame
      counts.blocked &+= 1
      throw refusal(error)
    }
    requests.insert(
      SendRequest(.frame, packets: 1, frame: consume frame),
      deadline: MonotonicClock.coarse() &+ timeout)
    if info.present.contains(.largeSend) { counts.largeSends &+= 1 }
    counts.directSends &+= 1
    counts.sentPackets &+= 1
    counts.sentBytes &+= UInt64(truncatingIfNeeded: count)
  }

  /// Copies all of `source` to the start of `target`, which has room for it.
  @inlinable
  @_lifetime(target: copy target)
  static func copy(_ source: RawSpan, into target: inout MutableRawSpan) {
    unsafe target.withUnsafeMutableBytes { target in
      unsafe source.withUnsafeBytes { source in
        guard let to = target.baseAddress, let from = source.baseAddress,
          source.count <= target.count
        else { return }
        unsafe to.copyMemory(from: from, byteCount: source.count)
      }
    }
  }
}
