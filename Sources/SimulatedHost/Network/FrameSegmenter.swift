// SPDX-License-Identifier: Apache-2.0

import PacketIO

/// Cuts a TCP frame of several segments into frames of one, for guests that take no others.
///
/// The frame's lengths are right and its TCP checksum is partial, as Linux leaves it.
struct FrameSegmenter {
  private let headers: FrameHeaders
  private let headerByteCount: Int
  private let frameByteCount: Int
  private let segmentByteCount: Int
  let count: Int

  /// - Returns: nil for what is no TCP over IP, or has no payload.
  init?(_ frame: RawSpan, segmentByteCount: Int) {
    guard segmentByteCount > 0, let headers = FrameHeaders(frame), headers.transport == .tcp,
      let payload = headers.payloadOffset(in: frame), payload < frame.byteCount
    else { return nil }
    self.headers = headers
    headerByteCount = payload
    frameByteCount = frame.byteCount
    self.segmentByteCount = segmentByteCount
    count = (frame.byteCount - payload + segmentByteCount - 1) / segmentByteCount
  }

  /// Bytes of the longest segment's frame.
  var maximumByteCount: Int {
    headerByteCount &+ min(segmentByteCount, frameByteCount &- headerByteCount)
  }

  /// Writes a segment with all its checksums to the start of `target`.
  ///
  /// - Returns: bytes of the segment's frame; 0 where it does not fit.
  @_lifetime(target: copy target)
  func write(_ index: Int, of frame: RawSpan, to target: inout MutableRawSpan) -> Int {
    let start = headerByteCount &+ index &* segmentByteCount
    let payload = min(segmentByteCount, frame.byteCount &- start)
    let byteCount = headerByteCount &+ payload
    guard index >= 0, payload > 0, byteCount <= target.byteCount else { return 0 }
    FrameSegmenter.copy(frame.extracting(first: headerByteCount), to: &target, at: 0)
    FrameSegmenter.copy(
      frame.extracting(start..<start &+ payload), to: &target, at: headerByteCount)
    var segment = target._mutatingExtracting(first: byteCount)
    let ip = headers.networkOffset
    let tcp = headers.transportOffset
    if headers.network == .ipv4 {
      segment.storeBigEndian16(UInt16(truncatingIfNeeded: byteCount &- ip), at: ip &+ 2)
      let identification = frame.bigEndian16(at: ip &+ 4) ?? 0
      segment.storeBigEndian16(
        identification &+ UInt16(truncatingIfNeeded: index), at: ip &+ 4)
      headers.fillNetworkChecksum(in: &segment)
    } else {
      segment.storeBigEndian16(UInt16(truncatingIfNeeded: byteCount &- ip &- 40), at: ip &+ 4)
    }
    let high = UInt32(frame.bigEndian16(at: tcp &+ 4) ?? 0)
    let low = UInt32(frame.bigEndian16(at: tcp &+ 6) ?? 0)
    let sequence =
      (high << 16 | low) &+ UInt32(truncatingIfNeeded: index &* segmentByteCount)
    segment.storeBigEndian16(UInt16(truncatingIfNeeded: sequence >> 16), at: tcp &+ 4)
    segment.storeBigEndian16(UInt16(truncatingIfNeeded: sequence), at: tcp &+ 6)
    if let flags = frame.byte(at: tcp &+ 13) {
      // FIN and PSH belong to the last segment, CWR to the first.
      var own = flags
      if index < count &- 1 { own &= ~0x09 }
      if index > 0 { own &= ~0x80 }
      segment.storeBytes(of: own, toByteOffset: tcp &+ 13, as: UInt8.self)
    }
    if let sum = headers.pseudoHeader(of: segment.bytes, byteCount: byteCount &- tcp) {
      segment.storeBigEndian16(sum.folded, at: tcp &+ 16)
      FrameOffload.fillChecksum(of: &segment, start: tcp, offset: 16)
    }
    return byteCount
  }

  @_lifetime(target: copy target)
  private static func copy(_ source: RawSpan, to target: inout MutableRawSpan, at offset: Int) {
    guard offset >= 0, source.byteCount <= target.byteCount &- offset else { return }
    // Safe: the room was checked just above, and the two do not overlap.
    unsafe target.withUnsafeMutableBytes { target in
      unsafe source.withUnsafeBytes { source in
        guard let from = source.baseAddress, let to = target.baseAddress else { return }
        unsafe (to + offset).copyMemory(from: from, byteCount: source.count)
      }
    }
  }
}
