// SPDX-License-Identifier: Apache-2.0

import NetworkProtocol
import PacketIO

/// Memory for one frame with its 802.1Q tag in it, for those who take no tag beside it.
@safe
struct TaggedFrame: ~Copyable {
  let memory = FrameScratch(byteCount: FrameInfo.maximumByteCount + 64)

  /// Puts a copy of a frame there, its tag behind the addresses.
  ///
  /// - Parameter offload: the frame's; it is that of the longer one after the call.
  /// - Returns: bytes of it.
  func write(_ frame: RawSpan, _ vlan: VLANInfo, _ offload: inout FrameOffload) -> Int {
    let count = min(frame.byteCount, FrameInfo.maximumByteCount)
    // Safe: the memory has room for 64 bytes more than the largest frame.
    unsafe frame.withUnsafeBytes { bytes in
      guard let start = bytes.baseAddress else { return }
      unsafe memory.start.copyMemory(from: start, byteCount: count)
    }
    var whole = unsafe MutableRawSpan(
      _unsafeStart: memory.start, byteCount: count + VLANTag.byteCount)
    VLANTag.insert(vlan.tag, into: &whole, &offload)
    return whole.byteCount
  }
}
