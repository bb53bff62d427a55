// SPDX-License-Identifier: Apache-2.0

/// The two shapes of a frame of several TCP segments. Linux, and with it virtio-net, keeps the lengths of
/// the whole and a pseudo-header sum over them. NDIS (large send offload, version 2) wants the IP
/// lengths and the IPv4 header's checksum zero, and the pseudo-header summed without a length.
public enum LargeSend {
  /// Turns Linux's shape into NDIS's.
  ///
  /// - Returns: false, and the frame is as it was, when it is no TCP over IP.
  @_lifetime(frame: copy frame)
  public static func clearLengths(
    of frame: inout MutableRawSpan, _ headers: FrameHeaders
  ) -> Bool {
    guard headers.transport == .tcp,
      let sum = headers.pseudoHeader(of: frame.bytes, byteCount: 0)
    else { return false }
    storeLength(0, in: &frame, headers)
    if headers.network == .ipv4 { frame.storeBigEndian16(0, at: headers.networkOffset &+ 10) }
    frame.storeBigEndian16(sum.folded, at: headers.transportOffset &+ 16)
    return true
  }

  /// Turns NDIS's shape into Linux's, whatever the lengths were.
  ///
  /// - Returns: false, and the frame is as it was, when it is no TCP over IP, or larger than an IP
  ///   packet can be.
  @_lifetime(frame: copy frame)
  public static func fillLengths(
    of frame: inout MutableRawSpan, _ headers: FrameHeaders
  ) -> Bool {
    let segment = frame.byteCount &- headers.transportOffset
    // IPv6 does not count its own header.
    let start = headers.network == .ipv4 ? headers.networkOffset : headers.networkOffset &+ 40
    guard headers.transport == .tcp, frame.byteCount &- start <= 0xFFFF,
      let sum = headers.pseudoHeader(of: frame.bytes, byteCount: segment)
    else { return false }
    storeLength(UInt16(truncatingIfNeeded: frame.byteCount &- start), in: &frame, headers)
    headers.fillNetworkChecksum(in: &frame)
    frame.storeBigEndian16(sum.folded, at: headers.transportOffset &+ 16)
    return true
  }

  @_lifetime(frame: copy frame)
  private static func storeLength(
    _ length: UInt16, in frame: inout MutableRawSpan, _ headers: FrameHeaders
  ) {
    let offset = headers.network == .ipv4 ? 2 : 4
    frame.storeBigEndian16(length, at: headers.networkOffset &+ offset)
  }
}
