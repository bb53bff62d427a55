// SPDX-License-Identifier: Apache-2.0

/// The 802.1Q tag of a frame, which RNDIS carries beside the frame, and a TAP device within it.
public enum VLANTag {
  /// Bytes of a tag.
  public static let byteCount = 4

  /// Takes an 802.1Q tag out of a frame: what follows it moves down.
  ///
  /// - Parameter offload: the frame's; it is that of the shorter one after the call.
  /// - Returns: the tag control information, and the frame is `byteCount` bytes shorter; nil, and nothing
  ///   has changed, for a frame without a tag.
  @_lifetime(frame: copy frame)
  public static func remove(
    from frame: inout MutableRawSpan, _ offload: inout FrameOffload
  ) -> UInt16? {
    let count = frame.byteCount
    guard frame.bytes.bigEndian16(at: 12) == 0x8100, let tag = frame.bytes.bigEndian16(at: 14),
      count >= 18
    else { return nil }
    // Safe: both ranges lie within the frame, and the copy may overlap.
    unsafe frame.withUnsafeMutableBytes { bytes in
      unsafe UnsafeMutableRawBufferPointer(rebasing: bytes[12...]).copyMemory(
        from: UnsafeRawBufferPointer(rebasing: bytes[16..<count]))
    }
    offload.move(by: -byteCount)
    return tag
  }

  /// Puts an 802.1Q tag into a frame: what follows the addresses moves up.
  ///
  /// - Parameters:
  ///   - memory: the frame, and `byteCount` bytes of room behind it.
  ///   - offload: the frame's; it is that of the longer one after the call.
  @_lifetime(memory: copy memory)
  public static func insert(
    _ tag: UInt16, into memory: inout MutableRawSpan, _ offload: inout FrameOffload
  ) {
    let count = memory.byteCount
    guard count >= 12 &+ byteCount else { return }
    // Safe: both ranges lie within the memory, and the copy may overlap.
    unsafe memory.withUnsafeMutableBytes { bytes in
      unsafe UnsafeMutableRawBufferPointer(rebasing: bytes[16...]).copyMemory(
        from: UnsafeRawBufferPointer(rebasing: bytes[12..<count - byteCount]))
    }
    memory.storeBigEndian16(0x8100, at: 12)
    memory.storeBigEndian16(tag, at: 14)
    offload.move(by: byteCount)
  }
}

extension FrameOffload {
  /// The frame's headers lie so many bytes later.
  mutating func move(by count: Int) {
    if case .partial(let start, let offset) = checksum {
      checksum = .partial(start: UInt16(clamping: Int(start) &+ count), offset: offset)
    }
    if let bytes = segmentation?.headerByteCount, bytes > 0 {
      segmentation?.headerByteCount = UInt16(clamping: Int(bytes) &+ count)
    }
  }
}
