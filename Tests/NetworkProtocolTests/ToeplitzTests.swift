// SPDX-License-Identifier: Apache-2.0

import NetworkProtocol
import Testing

/// The vectors are those of Microsoft's "Verifying the RSS Hash Calculation".
@Suite struct ToeplitzTests {
  private func hash(_ bytes: [UInt8]) -> UInt32 { Toeplitz().hash(unsafe bytes.span.bytes) }

  @Test func knownVectors() {
    let addresses: [UInt8] = [66, 9, 149, 187, 161, 142, 100, 80]
    #expect(hash(addresses) == 0x323e_8fc2)
    #expect(hash(addresses + [0x0A, 0xEA, 0x06, 0xE6]) == 0x51cc_c178)
    let others: [UInt8] = [199, 92, 111, 2, 65, 69, 140, 83]
    #expect(hash(others) == 0xd718_262a)
    #expect(hash(others + [0x37, 0x96, 0x12, 0x83]) == 0xc626_b0ea)
  }

  static let ipv6Source: [UInt8] = [
    0x3f, 0xfe, 0x25, 0x01, 0x02, 0x00, 0x1f, 0xff, 0, 0, 0, 0, 0, 0, 0, 7,
  ]
  static let ipv6Destination: [UInt8] = [
    0x3f, 0xfe, 0x25, 0x01, 0x02, 0x00, 0, 0x03, 0, 0, 0, 0, 0, 0, 0, 1,
  ]

  @Test func knownVectorsOfIPv6() {
    let addresses = Self.ipv6Source + Self.ipv6Destination
    #expect(hash(addresses) == 0x2cc1_8cd5)
    #expect(hash(addresses + [0x0A, 0xEA, 0x06, 0xE6]) == 0x4020_7d3d)
  }

  // MARK: - Frames

  private func ipv4(
    proto: UInt8, fragment: UInt16 = 0, options: Int = 0, tag: [UInt8] = []
  ) -> [UInt8] {
    var frame = [UInt8](repeating: 0xEE, count: 12) + tag + [0x08, 0x00]
    frame += [0x45 + UInt8(options), 0, 0, 40, 0, 0, UInt8(fragment >> 8), UInt8(fragment & 0xFF)]
    frame += [64, proto, 0, 0, 66, 9, 149, 187, 161, 142, 100, 80]
    frame += [UInt8](repeating: 1, count: 4 * options)
    return frame + [0x0A, 0xEA, 0x06, 0xE6] + [UInt8](repeating: 0, count: 16)
  }

  private func hash(frame: [UInt8]) -> (value: UInt32, kind: RSSHash)? {
    Toeplitz().hash(frame: unsafe frame.span.bytes)
  }

  @Test func framesAreHashedByTheirFlow() throws {
    let tcp = try #require(hash(frame: ipv4(proto: 6)))
    #expect(tcp.value == 0x51cc_c178 && tcp.kind == .tcpIPv4)
    #expect(hash(frame: ipv4(proto: 17))?.kind == .udpIPv4)
    #expect(hash(frame: ipv4(proto: 6, options: 3))?.value == 0x51cc_c178)
    #expect(hash(frame: ipv4(proto: 6, tag: [0x81, 0, 0, 5]))?.value == 0x51cc_c178)
    let other = try #require(hash(frame: ipv4(proto: 1)))
    #expect(other.value == 0x323e_8fc2 && other.kind == .ipv4)
    // Both the first fragment and the others: only the first one has the ports.
    #expect(hash(frame: ipv4(proto: 6, fragment: 0x2000))?.value == 0x323e_8fc2)
    #expect(hash(frame: ipv4(proto: 6, fragment: 0x0010))?.value == 0x323e_8fc2)
  }

  @Test func framesOfIPv6AreHashed() throws {
    var frame = [UInt8](repeating: 0, count: 12) + [0x86, 0xDD, 0x60, 0, 0, 0, 0, 20, 6, 64]
    frame += Self.ipv6Source + Self.ipv6Destination + [0x0A, 0xEA, 0x06, 0xE6]
    let found = try #require(hash(frame: frame))
    #expect(found.value == 0x4020_7d3d && found.kind == .tcpIPv6)
  }

  @Test func framesThatEndEarlyAreNot() {
    let whole = ipv4(proto: 6)
    for count in 0..<34 { #expect(hash(frame: Array(whole[..<count])) == nil) }
    // Without all of the ports.
    #expect(hash(frame: Array(whole[..<37]))?.kind == .ipv4)
    #expect(hash(frame: [UInt8](repeating: 0xFF, count: 64)) == nil)
  }
}
