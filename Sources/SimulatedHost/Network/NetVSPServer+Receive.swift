// SPDX-License-Identifier: Apache-2.0

import NetworkProtocol
import PacketIO
import VMBus

// Frames to the guest: each in a piece of its receive buffer, many pieces in one packet.

extension NetVSPServer where Port: ~Copyable {
  /// Sends frames as far as there are some, and pieces, and room. Returns how many.
  @inline(__always)
  mutating func sendFrames(_ budget: Int) throws -> Int {
    guard receive.pieceCount > 0 else { return 0 }
    guard !state.filter.isEmpty, state.isLinkUp, isReady || queue > 0 else {
      let count = port.discard()
      counters.filtered &+= UInt64(count)
      return count
    }
    if isExhausted { return 0 }
    let waited = waitsForBuffers
    waitsForBuffers = false
    // Behind the answers' room: descriptor, set id and count, 8 bytes a range, the message, trailer.
    let room = try channel.freeByteCount() &- Self.answerRoom &- 32 &- 40
    let limit = min(room >> 3, ReceiveBufferDivision.maximumPiecesPerPacket)
    var batch = Batch()
    while batch.frames < budget, let info = port.next() {
      let needed = pieces(for: info)
      guard needed > 0 else {
        counters.filtered &+= 1
        port.release()
        continue
      }
      guard batch.count &+ needed <= limit else {
        if batch.count == 0 { setWaitsForRoom() }
        break
      }
      // The primary channel keeps some for control messages.
      let reserve = queue == 0 ? ReceiveBufferDivision.controlPieceCount : 0
      guard receive.freeCount &- reserve >= needed else {
        // The guest can't give back what was named wrongly.
        if flips != nil { receive.takeBack() }
        waitsForBuffers = true
        if !waited { counters.outOfBuffers &+= 1 }
        break
      }
      put(info, needed, &batch)
      port.release()
      batch.frames &+= 1
    }
    if let first = batch.first {
      try sendPacket(first: first, count: batch.count, channel: .data)
    }
    return batch.frames
  }

  /// A packet that is put together.
  struct Batch {
    var first: UInt32?
    var last: UInt32?
    /// Ranges.
    var count = 0
    var frames = 0
  }

  /// Bytes of a frame that a piece has room for.
  private var dataByteCount: Int {
    receive.pieceByteCount &- ReceiveBufferDivision.dataOffset
      &- ReceiveBufferDivision.unusableByteCount
  }

  /// How many pieces a frame takes; 0 for one that can't be sent.
  @inline(__always)
  private mutating func pieces(for info: FrameInfo) -> Int {
    if info.offload.segmentation == nil {
      return info.byteCount >= 14 && info.byteCount <= dataByteCount ? 1 : 0
    }
    return piecesOfLarge(info)
  }

  @inline(never)
  private mutating func piecesOfLarge(_ info: FrameInfo) -> Int {
    guard let segmentation = info.offload.segmentation, segmentation.kind != .udp else { return 0 }
    if state.coalesces(segmentation.kind) {
      return (info.byteCount &+ dataByteCount &- 1) / dataByteCount
    }
    let bytes = port.frame(info)
    guard
      let segments = FrameSegmenter(
        bytes.bytes, segmentByteCount: Int(segmentation.segmentByteCount)),
      segments.maximumByteCount <= dataByteCount,
      segments.count <= ReceiveBufferDivision.maximumPiecesPerPacket
    else { return 0 }
    return segments.count
  }

  @inline(__always)
  private mutating func put(_ info: FrameInfo, _ pieces: Int, _ batch: inout Batch) {
    counters.framesToGuest &+= 1
    counters.bytesToGuest &+= UInt64(info.byteCount)
    guard info.offload.segmentation == nil else { return putLarge(info, pieces, &batch) }
    var about = PerPacketInfo()
    describe(info, &about)
    guard let piece = takePiece(&batch) else { return }
    var bytes = port.frame(info)
    if case .partial = info.offload.checksum { info.offload.fillChecksum(of: &bytes) }
    Self.write(bytes.bytes, about, to: piece, of: &receive)
    if flips != nil { flipHeaders(of: piece) }
  }

  @inline(__always)
  private mutating func takePiece(_ batch: inout Batch) -> UInt32? {
    guard let piece = receive.take(after: batch.last) else { return nil }
    if batch.first == nil { batch.first = piece }
    batch.last = piece
    putRange(batch.count, byteCount: receive.pieceByteCount, piece: piece)
    batch.count &+= 1
    return piece
  }

  /// What the guest is told of a frame.
  @inline(__always)
  private mutating func describe(_ info: FrameInfo, _ about: inout PerPacketInfo) {
    switch info.offload.checksum {
    case .complete: about.checksum = []
    case .verified: about.checksum = [.tcpSucceeded, .udpSucceeded, .ipSucceeded]
    case .partial(_, let offset):
      // It is completed before it is sent.
      about.checksum = [offset == 16 ? .tcpSucceeded : .udpSucceeded, .ipSucceeded]
    }
    if let vlan = info.vlan { about.vlan = vlan }
    if !info.hash.isEmpty { about.hashValue = info.hashValue }
  }

  /// Writes headers and a frame into a piece.
  @inline(__always)
  static func write(
    _ frame: RawSpan, _ about: PerPacketInfo, to piece: UInt32, of receive: inout ReceivePool
  ) {
    var bytes = receive.bytes(of: piece)
    let count = frame.byteCount
    // The whole piece is the message, as OpenVMM has it.
    about.writeHeader(
      into: &bytes, dataByteCount: count, dataOffset: ReceiveBufferDivision.dataOffset,
      messageByteCount: bytes.byteCount)
    guard count <= bytes.byteCount &- ReceiveBufferDivision.dataOffset else { return }
    // Safe: the room was checked just above; the piece is the guest's memory, the frame ours.
    unsafe bytes.withUnsafeMutableBytes { target in
      unsafe frame.withUnsafeBytes { source in
        guard let to = target.baseAddress, let from = source.baseAddress else { return }
        unsafe (to + ReceiveBufferDivision.dataOffset).copyMemory(from: from, byteCount: count)
      }
    }
  }

  /// A frame of several segments: in pieces that the guest puts together again, or cut.
  @inline(never)
  private mutating func putLarge(_ info: FrameInfo, _ pieces: Int, _ batch: inout Batch) {
    counters.largeToGuest &+= 1
    if info.byteCount > NetworkCounters.hugeByteCount { counters.hugeToGuest &+= 1 }
    guard let segmentation = info.offload.segmentation else { return }
    let capacity = dataByteCount
    if state.coalesces(segmentation.kind) {
      var about = PerPacketInfo()
      describe(info, &about)
      for index in 0..<pieces {
        guard let piece = takePiece(&batch) else { return }
        about.packetID = PacketID(isFirst: index == 0, isLast: index == pieces - 1)
        var bytes = port.frame(info)
        if index == 0 { info.offload.fillChecksum(of: &bytes) }
        let start = index &* capacity
        let end = min(start &+ capacity, bytes.byteCount)
        Self.write(bytes.bytes.extracting(start..<end), about, to: piece, of: &receive)
        if flips != nil { flipHeaders(of: piece) }
        // The others say nothing but which part they are.
        about = PerPacketInfo()
      }
      return
    }
    var about = PerPacketInfo()
    describe(info, &about)
    for index in 0..<pieces {
      guard let piece = takePiece(&batch) else { return }
      var segment = unsafe MutableRawSpan(_unsafeStart: frame.start, byteCount: frame.byteCount)
      let bytes = port.frame(info)
      let count =
        FrameSegmenter(
          bytes.bytes, segmentByteCount: Int(segmentation.segmentByteCount))?
        .write(index, of: bytes.bytes, to: &segment) ?? 0
      Self.write(segment.bytes.extracting(first: count), about, to: piece, of: &receive)
    }
  }

  // MARK: - Packets

  /// Puts a piece into the list of ranges.
  @inline(__always)
  mutating func putRange(_ index: Int, byteCount: Int, piece: UInt32) {
    var list = unsafe MutableRawSpan(_unsafeStart: ranges.start, byteCount: ranges.byteCount)
    let offset = 8 &+ 8 &* index
    list.storeBytes(
      of: UInt32(truncatingIfNeeded: byteCount).littleEndian, toByteOffset: offset,
      as: UInt32.self)
    list.storeBytes(
      of: UInt32(truncatingIfNeeded: Int(piece) &* receive.pieceByteCount).littleEndian,
      toByteOffset: offset &+ 4, as: UInt32.self)
  }

  /// Sends the list of ranges. The guest gives the pieces back by completing the packet.
  @inline(__always)
  mutating func sendPacket(first: UInt32, count: Int, channel kind: RNDISChannel) throws {
    let byteCount = 8 &+ 8 &* count
    var list = unsafe MutableRawSpan(_unsafeStart: ranges.start, byteCount: byteCount)
    let id = receive.bufferID
    list.storeBytes(of: id.littleEndian, toByteOffset: 0, as: UInt16.self)
    // The guest gives the pieces back, so they are not the sender's for good.
    list.storeBytes(of: 0, toByteOffset: 2, as: UInt16.self)
    list.storeBytes(
      of: UInt32(truncatingIfNeeded: count).littleEndian, toByteOffset: 4, as: UInt32.self)
    var message = NVSPRNDISPacket(channel: kind, sectionIndex: NVSPRNDISPacket.noSection).message
    var transactionID = UInt64(first)
    if flips != nil { flipPacket(&list, &message, &transactionID) }
    let span = message.span
    // Safe: any bit pattern is a UInt8.
    try channel.sendTransferPages(
      list.bytes, payload: unsafe span.bytes.extracting(first: messageByteCount),
      transactionID: transactionID)
  }

  @inline(never)
  private mutating func flipHeaders(of piece: UInt32) {
    var dice = flips
    Self.flip(&dice, piece, of: &receive)
    flips = dice
  }

  private static func flip(
    _ dice: inout BitFlips?, _ piece: UInt32, of receive: inout ReceivePool
  ) {
    var bytes = receive.bytes(of: piece)
    dice?.flip(&bytes, count: min(bytes.byteCount, 112))
  }

  @inline(never)
  private mutating func flipPacket(
    _ list: inout MutableRawSpan, _ message: inout NVSPMessage, _ transactionID: inout UInt64
  ) {
    guard flips != nil else { return }
    flips?.flip(&list, count: list.byteCount)
    var span = message.mutableSpan
    var bytes = unsafe span.mutableBytes
    flips?.flip(&bytes, count: 16)
    flips?.flip(&transactionID)
  }
}
