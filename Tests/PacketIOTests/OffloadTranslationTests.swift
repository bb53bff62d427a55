// SPDX-License-Identifier: Apache-2.0

import NetworkProtocol
import PacketIO
import Testing

@Suite struct OffloadTranslationTests {
  private func sending(
    _ frame: inout [UInt8], _ offload: FrameOffload, checksums: Bool = true
  ) -> PerPacketInfo? {
    var info: PerPacketInfo?
    _ = changed(&frame) { bytes in
      info = PerPacketInfo(sending: &bytes, offload, checksums: checksums)
      return true
    }
    return info
  }

  private func received(
    _ frame: inout [UInt8], _ info: PerPacketInfo, mtu: Int = 0
  ) -> FrameOffload {
    var offload = FrameOffload()
    _ = changed(&frame) { bytes in
      offload = FrameOffload(receiving: info, &bytes, coalescedBelow: mtu)
      return true
    }
    return offload
  }

  private func sent(_ frame: inout [UInt8], _ info: PerPacketInfo) -> FrameOffload? {
    var offload: FrameOffload?
    _ = changed(&frame) { bytes in
      offload = FrameOffload(sent: info, &bytes)
      return true
    }
    return offload
  }

  private let partialTCP = FrameOffload(checksum: .partial(start: 34, offset: 16))

  @Test func aPartialChecksumIsAskedOfTheHost() throws {
    var frame = Frames.tcpIPv4
    let info = try #require(sending(&frame, partialTCP))
    #expect(info.present == .checksum)
    // isIPv4, tcp, and the offset of the TCP header.
    #expect(info.checksum.rawValue == 0x0022_0005)
    #expect(frame == Frames.tcpIPv4)
    #expect(sent(&frame, info) == partialTCP)
  }

  @Test func whatTheHostDoesNotComputeIsComputedHere() throws {
    var frame = Frames.tcpIPv4
    let info = try #require(sending(&frame, partialTCP, checksums: false))
    #expect(info == PerPacketInfo())
    let found = try #require(headers(frame))
    #expect(unsafe found.isTransportChecksumRight(in: frame.span.bytes) == true)
    // And what RNDIS has no word for: a sum that is neither TCP's nor UDP's.
    var other = Frames.tcpIPv4
    let odd = FrameOffload(checksum: .partial(start: 34, offset: 2))
    #expect(try #require(sending(&other, odd)) == PerPacketInfo())
    #expect(other != Frames.tcpIPv4)
  }

  @Test func aLargeSend() throws {
    var frame = Frames.tcpIPv4
    let offload = FrameOffload(
      checksum: .partial(start: 34, offset: 16),
      segmentation: .init(kind: .tcpIPv4, segmentByteCount: 2, headerByteCount: 54))
    let info = try #require(sending(&frame, offload))
    #expect(info.present == .largeSend)
    #expect(info.largeSend.segmentByteCount == 2)
    #expect(info.largeSend.tcpHeaderOffset == 34)
    #expect(!info.largeSend.isIPv6)
    let found = try #require(headers(frame))
    #expect(changed(&frame) { LargeSend.clearLengths(of: &$0, found) })
    #expect(sent(&frame, info) == offload)
    #expect(frame == Frames.tcpIPv4)
  }

  @Test func aRequestThatTheFrameDoesNotFit() {
    var udp = Frames.udp
    var info = PerPacketInfo()
    info.largeSend = LargeSendInfo(segmentByteCount: 100, tcpHeaderOffset: 34, isIPv6: false)
    #expect(sent(&udp, info) == nil)
    info = PerPacketInfo()
    info.checksum = [.isIPv4, .tcp]
    #expect(sent(&udp, info) == nil)
    var short: [UInt8] = [1, 2, 3]
    #expect(sent(&short, info) == nil)
    #expect(
      sending(&udp, FrameOffload(segmentation: .init(kind: .udp, segmentByteCount: 9))) == nil)
  }

  /// A checksum that was never computed is a partial one again at the other end.
  @Test func partialChecksumsPassThrough() throws {
    let sentFrame = Frames.tcpIPv4
    let info = PerPacketInfo(receiving: partialTCP, headers(sentFrame))
    #expect(info.checksum.contains([.tcpSucceeded, .tcpValueInvalid]))
    var frame = sentFrame
    #expect(received(&frame, info) == partialTCP)
    // One that does not hold the pseudo-header's sum is only believed.
    frame[50] ^= 1
    #expect(received(&frame, info).checksum == .verified)
    #expect(received(&frame, PerPacketInfo()).checksum == .complete)
  }

  @Test func aCoalescedFrameIsOneOfSeveralSegments() {
    var frame = Frames.tcpIPv4
    var info = PerPacketInfo()
    info.checksum = .tcpSucceeded
    let offload = received(&frame, info, mtu: 42)
    #expect(offload.segmentation?.segmentByteCount == 2)
    #expect(offload.segmentation?.kind == .tcpIPv4)
    #expect(offload.checksum == .partial(start: 34, offset: 16))
  }
}
