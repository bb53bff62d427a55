// SPDX-License-Identifier: Apache-2.0

import PacketIO
import Testing

@Suite struct FrameChecksumsTests {
  @Test(arguments: [Frames.udp, Frames.taggedUDP, Frames.tcpIPv6])
  func aRightOneIsRight(_ frame: [UInt8]) throws {
    let found = try #require(headers(frame))
    #expect(unsafe found.isTransportChecksumRight(in: frame.span.bytes) == true)
    #expect(
      unsafe found.isNetworkChecksumRight(in: frame.span.bytes)
        == (found.network == .ipv4 ? true : nil))
    var wrong = frame
    wrong[wrong.count - 1] ^= 1
    #expect(unsafe found.isTransportChecksumRight(in: wrong.span.bytes) == false)
  }

  @Test func paddingIsNotSummed() throws {
    let frame = Frames.udp + [1, 2, 3]
    let found = try #require(headers(frame))
    #expect(unsafe found.isTransportChecksumRight(in: frame.span.bytes) == true)
  }

  @Test func aPartialOneIsCompleted() {
    var udp = Frames.taggedUDP
    udp.replaceSubrange(44..<46, with: [0x84, 0x20])
    let partial = FrameOffload(checksum: .partial(start: 38, offset: 6))
    #expect(changed(&udp) { partial.fillChecksum(of: &$0) })
    #expect(udp == Frames.taggedUDP)

    var tcp = Frames.tcpIPv6
    tcp.replaceSubrange(78..<80, with: [0x5B, 0x93])
    #expect(changed(&tcp) { FrameOffload.fillChecksum(of: &$0, start: 62, offset: 16) })
    #expect(tcp == Frames.tcpIPv6)
  }

  @Test func aCompleteOneStays() {
    var frame = Frames.udp
    #expect(changed(&frame) { FrameOffload(checksum: .verified).fillChecksum(of: &$0) })
    #expect(frame == Frames.udp)
  }

  /// For UDP zero means that there is no checksum.
  @Test func udpHasNoChecksumOfZero() {
    var frame: [UInt8] = [0, 0, 0, 0, 0, 0, 0xFF, 0xFF]
    #expect(changed(&frame) { FrameOffload.fillChecksum(of: &$0, start: 0, offset: 6) })
    #expect(frame == [0, 0, 0, 0, 0, 0, 0xFF, 0xFF])
  }

  @Test(arguments: [(44, 0), (45, 0), (46, 6), (0, 44), (-1, 3), (3, -1), (65535, 65535)])
  func outsideOfTheFrameNothingHappens(_ start: Int, _ offset: Int) {
    var frame = Frames.udp
    #expect(!changed(&frame) { FrameOffload.fillChecksum(of: &$0, start: start, offset: offset) })
    #expect(frame == Frames.udp)
  }

  @Test func theShapesOfALargeSendOverIPv4() throws {
    var frame = Frames.tcpIPv4
    let found = try #require(headers(frame))
    #expect(changed(&frame) { LargeSend.clearLengths(of: &$0, found) })
    #expect([UInt8](frame[16..<18]) == [0, 0])
    #expect([UInt8](frame[24..<26]) == [0, 0])
    #expect([UInt8](frame[50..<52]) == [0x84, 0x0A])
    let again = try #require(headers(frame))
    #expect(again.transport == .tcp)
    #expect(changed(&frame) { LargeSend.fillLengths(of: &$0, again) })
    #expect(frame == Frames.tcpIPv4)
  }

  @Test func theShapesOfALargeSendOverIPv6() throws {
    var frame = Frames.tcpIPv6
    let found = try #require(headers(frame))
    #expect(changed(&frame) { LargeSend.clearLengths(of: &$0, found) })
    #expect([UInt8](frame[18..<20]) == [0, 0])
    #expect([UInt8](frame[78..<80]) == [0x5B, 0x7B])
    #expect(changed(&frame) { LargeSend.fillLengths(of: &$0, found) })
    #expect([UInt8](frame[18..<20]) == [0x00, 0x20])
    #expect([UInt8](frame[78..<80]) == [0x5B, 0x93])
  }

  @Test func onlyTCPIsSentLarge() throws {
    var frame = Frames.udp
    let found = try #require(headers(frame))
    #expect(!changed(&frame) { LargeSend.clearLengths(of: &$0, found) })
    #expect(!changed(&frame) { LargeSend.fillLengths(of: &$0, found) })
    #expect(frame == Frames.udp)
  }
}
