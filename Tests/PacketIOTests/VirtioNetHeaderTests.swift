// SPDX-License-Identifier: Apache-2.0

import PacketIO
import Testing
import VMBus

@Suite struct VirtioNetHeaderTests {
  /// flags, gso_type, hdr_len 66, gso_size 1448, csum_start 34, csum_offset 16.
  static let largeSend: [UInt8] = [1, 1, 66, 0, 0xA8, 0x05, 34, 0, 16, 0]

  @Test func goldenBytes() throws {
    let offload = FrameOffload(
      checksum: .partial(start: 34, offset: 16),
      segmentation: .init(kind: .tcpIPv4, segmentByteCount: 1448, headerByteCount: 66))
    #expect(VirtioNetHeader(offload).wireBytes == Self.largeSend)
    #expect(try FrameOffload(VirtioNetHeader(parsing: Self.largeSend)) == offload)
  }

  @Test func aPlainFrameHasZeros() throws {
    let zeros = [UInt8](repeating: 0, count: 10)
    #expect(VirtioNetHeader(FrameOffload()).wireBytes == zeros)
    #expect(try FrameOffload(VirtioNetHeader(parsing: zeros)) == FrameOffload())
  }

  @Test func aVerifiedChecksum() throws {
    let bytes: [UInt8] = [2, 0, 0, 0, 0, 0, 0, 0, 0, 0]
    #expect(VirtioNetHeader(FrameOffload(checksum: .verified)).wireBytes == bytes)
    #expect(try FrameOffload(VirtioNetHeader(parsing: bytes)).checksum == .verified)
  }

  /// The mark of congestion says how to cut, not what it is.
  @Test func congestionNotification() throws {
    var bytes = Self.largeSend
    bytes[1] = 0x84
    #expect(try FrameOffload(VirtioNetHeader(parsing: bytes)).segmentation?.kind == .tcpIPv6)
  }

  @Test func nonsenseIsRefusedByName() {
    func refusal(_ change: (inout [UInt8]) -> Void) -> WireError? {
      var bytes = Self.largeSend
      change(&bytes)
      do throws(WireError) {
        _ = try FrameOffload(VirtioNetHeader(parsing: bytes))
        return nil
      } catch {
        return error
      }
    }
    #expect(
      refusal { $0[1] = 9 } == .invalid("virtio-net header", field: "gso_type", value: 9))
    #expect(
      refusal { $0.replaceSubrange(4..<6, with: [0, 0]) }
        == .invalid("virtio-net header", field: "gso_size", value: 0))
    #expect(refusal { $0[0] = 0 } == .invalid("virtio-net header", field: "flags", value: 0))
    #expect(
      refusal { $0.removeLast() } == .tooShort("virtio-net header", needed: 10, found: 9))
  }
}
