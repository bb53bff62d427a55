// SPDX-License-Identifier: Apache-2.0

import PacketIO
import Testing

@Suite struct VLANTagTests {
  @Test func outAndIn() {
    var memory = Frames.taggedUDP
    var offload = FrameOffload(
      checksum: .partial(start: 38, offset: 6),
      segmentation: .init(kind: .udp, segmentByteCount: 100, headerByteCount: 46))
    var tag: UInt16?
    _ = changed(&memory) { bytes in
      tag = VLANTag.remove(from: &bytes, &offload)
      return true
    }
    #expect(tag == 0x6005)
    #expect([UInt8](memory.dropLast(4)) == Frames.udp)
    #expect(offload.checksum == .partial(start: 34, offset: 6))
    #expect(offload.segmentation?.headerByteCount == 42)

    _ = changed(&memory) { bytes in
      VLANTag.insert(0x6005, into: &bytes, &offload)
      return true
    }
    #expect(memory == Frames.taggedUDP)
    #expect(offload.checksum == .partial(start: 38, offset: 6))
  }

  @Test(arguments: [Frames.udp, [UInt8](Frames.taggedUDP.prefix(17)), []])
  func withoutATagNothingChanges(_ frame: [UInt8]) {
    var memory = frame
    var offload = FrameOffload(checksum: .partial(start: 34, offset: 6))
    let before = offload
    var tag: UInt16? = 1
    _ = changed(&memory) { bytes in
      tag = VLANTag.remove(from: &bytes, &offload)
      return true
    }
    #expect(tag == nil)
    #expect(memory == frame)
    #expect(offload == before)
  }
}
