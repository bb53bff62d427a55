// SPDX-License-Identifier: Apache-2.0

import PacketIO
import Testing

func headers(_ frame: [UInt8]) -> FrameHeaders? { unsafe FrameHeaders(frame.span.bytes) }

@Suite struct FrameHeadersTests {
  @Test func udpOverIPv4() throws {
    let found = try #require(headers(Frames.udp + [0, 0, 0]))
    #expect(found.etherType == 0x0800)
    #expect(found.vlan == nil)
    #expect(found.network == .ipv4)
    #expect(found.transport == .udp)
    #expect(found.networkOffset == 14)
    #expect(found.transportOffset == 34)
    #expect(found.end == 45)  // the padding is no part of the packet
    #expect(found.checksumOffset == 6)
    #expect(!found.isFragment)
  }

  @Test func aTag() throws {
    let found = try #require(headers(Frames.taggedUDP))
    #expect(found.etherType == 0x0800)
    #expect(found.vlan == 0x6005)
    #expect(found.transport == .udp)
    #expect(found.transportOffset == 38)
  }

  @Test func tcpBehindAnExtensionHeader() throws {
    let frame = Frames.tcpIPv6
    let found = try #require(headers(frame))
    #expect(found.network == .ipv6)
    #expect(found.transport == .tcp)
    #expect(found.transportOffset == 62)
    #expect(found.end == 86)
    #expect(found.checksumOffset == 16)
    #expect(unsafe found.payloadOffset(in: frame.span.bytes) == 82)
  }

  @Test func aFragmentHasNoChecksumOfItsOwn() throws {
    var frame = Frames.udp
    frame[20] = 0x20  // more fragments
    let found = try #require(headers(frame))
    #expect(found.isFragment)
    #expect(found.transport == .other)
    #expect(unsafe found.isTransportChecksumRight(in: frame.span.bytes) == nil)
  }

  @Test func anotherProtocolIsPayload() throws {
    let found = try #require(headers(Frames.ethernet + [0x08, 0x06, 0, 1]))
    #expect(found.network == .other)
    #expect(found.networkOffset == 14)
    #expect(found.end == 16)
  }

  @Test func aTotalBeyondTheFrameIsNoPacket() throws {
    var frame = Frames.udp
    frame[16] = 0xFF
    #expect(try #require(headers(frame)).network == .other)
  }

  @Test func lessThanAnEthernetHeader() {
    for count in 0..<14 { #expect(headers([UInt8](Frames.udp.prefix(count))) == nil) }
  }

  /// Whatever the bytes are, the offsets lie within them, and no function traps.
  @Test(arguments: [Frames.udp, Frames.taggedUDP, Frames.tcpIPv4, Frames.tcpIPv6])
  func anyBytes(_ good: [UInt8]) {
    var random = SystemRandomNumberGenerator()
    for _ in 0..<20_000 {
      var frame = [UInt8](good.prefix(Int.random(in: 0...good.count, using: &random)))
      for _ in 0..<Int.random(in: 0...6, using: &random) where !frame.isEmpty {
        frame[Int.random(in: 0..<frame.count, using: &random)] = .random(
          in: 0...255, using: &random)
      }
      guard let found = headers(frame) else { continue }
      let offsets = [found.networkOffset, found.transportOffset, found.end]
      #expect(offsets.allSatisfy { 0...frame.count ~= $0 }, "\(frame)")
      #expect(found.transportOffset <= found.end)
      unsafe _ = found.isTransportChecksumRight(in: frame.span.bytes)
      unsafe _ = found.isNetworkChecksumRight(in: frame.span.bytes)
      unsafe _ = found.payloadOffset(in: frame.span.bytes)
      _ = changed(&frame) { LargeSend.clearLengths(of: &$0, found) }
      _ = changed(&frame) { LargeSend.fillLengths(of: &$0, found) }
    }
  }
}

/// Calls `body` with the bytes of an array.
func changed(_ frame: inout [UInt8], _ body: (inout MutableRawSpan) -> Bool) -> Bool {
  var span = frame.mutableSpan
  var bytes = unsafe span.mutableBytes
  return body(&bytes)
}
