// SPDX-License-Identifier: Apache-2.0

extension FrameHeaders {
  /// The sum of the pseudo-header of TCP or UDP.
  ///
  /// - Parameter byteCount: of the TCP or UDP header and payload; 0 for what a large send leaves out.
  public func pseudoHeader(of frame: RawSpan, byteCount: Int) -> InternetChecksum? {
    guard transport != .other else { return nil }
    // The addresses lie behind each other: 8 bytes at 12, or 32 bytes at 8.
    let (start, count) =
      network == .ipv4 ? (networkOffset &+ 12, 8) : (networkOffset &+ 8, 32)
    guard start &+ count <= frame.byteCount else { return nil }
    var sum = InternetChecksum()
    sum.add(frame.extracting(start..<start &+ count))
    sum.add(transport == .tcp ? 6 : 17)
    sum.add(UInt16(truncatingIfNeeded: byteCount))
    sum.add(UInt16(truncatingIfNeeded: byteCount >> 16))
    return sum
  }

  /// Whether the checksum of TCP or UDP is right; nil where there is none to be looked at.
  public func isTransportChecksumRight(in frame: RawSpan) -> Bool? {
    guard end <= frame.byteCount,
      var sum = pseudoHeader(of: frame, byteCount: end &- transportOffset)
    else { return nil }
    if transport == .udp, frame.bigEndian16(at: transportOffset &+ 6) == 0 {
      // UDP over IPv4 may go without one.
      return network == .ipv4 ? nil : false
    }
    sum.add(frame.extracting(transportOffset..<end))
    return sum.isRight
  }

  /// Whether the checksum of an IPv4 header is right; nil for other packets.
  public func isNetworkChecksumRight(in frame: RawSpan) -> Bool? {
    guard network == .ipv4, let first = frame.byte(at: networkOffset) else { return nil }
    let count = Int(first & 15) &* 4
    guard networkOffset &+ count <= frame.byteCount else { return nil }
    var sum = InternetChecksum()
    sum.add(frame.extracting(networkOffset..<networkOffset &+ count))
    return sum.isRight
  }

  /// Stores the checksum of an IPv4 header; nothing for other packets.
  @_lifetime(frame: copy frame)
  public func fillNetworkChecksum(in frame: inout MutableRawSpan) {
    guard network == .ipv4, let first = frame.bytes.byte(at: networkOffset) else { return }
    let count = Int(first & 15) &* 4
    guard networkOffset &+ count <= frame.byteCount else { return }
    frame.storeBigEndian16(0, at: networkOffset &+ 10)
    var sum = InternetChecksum()
    sum.add(frame.bytes.extracting(networkOffset..<networkOffset &+ count))
    frame.storeBigEndian16(sum.checksum, at: networkOffset &+ 10)
  }
}

extension FrameOffload {
  /// Completes a partial checksum: sums from its start to the frame's end, and stores the complement.
  ///
  /// - Returns: false when the checksum does not lie within the frame; then nothing was changed.
  @_lifetime(frame: copy frame)
  @discardableResult
  public static func fillChecksum(
    of frame: inout MutableRawSpan, start: Int, offset: Int
  ) -> Bool {
    guard start >= 0, offset >= 0, start <= frame.byteCount,
      offset <= frame.byteCount &- start &- 2
    else { return false }
    var sum = InternetChecksum()
    sum.add(frame.bytes.extracting(start..<frame.byteCount))
    var checksum = sum.checksum
    // A UDP checksum of 0 says that there is none; its complement means the same number.
    if checksum == 0, offset == 6 { checksum = 0xFFFF }
    return frame.storeBigEndian16(checksum, at: start &+ offset)
  }

  /// Completes the frame's checksum if that is left to do. False when it does not lie within it.
  @_lifetime(frame: copy frame)
  @discardableResult
  public func fillChecksum(of frame: inout MutableRawSpan) -> Bool {
    guard case .partial(let start, let offset) = checksum else { return true }
    return Self.fillChecksum(of: &frame, start: Int(start), offset: Int(offset))
  }
}
