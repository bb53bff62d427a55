// SPDX-License-Identifier: Apache-2.0

import PacketIO
import Testing

func checksum(_ bytes: [UInt8]) -> InternetChecksum {
  var sum = InternetChecksum()
  unsafe sum.add(bytes.span.bytes)
  return sum
}

@Suite struct InternetChecksumTests {
  /// The example of RFC 1071, section 3.
  @Test func theExampleOfTheRFC() {
    let sum = checksum([0x00, 0x01, 0xF2, 0x03, 0xF4, 0xF5, 0xF6, 0xF7])
    #expect(sum.folded == 0xDDF2)
    #expect(sum.checksum == 0x220D)
  }

  @Test func anOddByteIsTheUpperHalfOfItsWord() {
    #expect(checksum([0xAB]).folded == 0xAB00)
    #expect(checksum([0x01, 0x02, 0x03]).folded == 0x0402)
    #expect(checksum([]).folded == 0)
  }

  @Test func theParts() {
    var sum = InternetChecksum()
    sum.add(0x0001)
    sum.add(0xF203)
    unsafe sum.add(([0xF4, 0xF5, 0xF6, 0xF7] as [UInt8]).span.bytes)
    #expect(sum.folded == 0xDDF2)
  }

  /// Word by word, as the RFC writes it, for all lengths around the steps of the fast loop.
  @Test func agreesWithTheSlowSum() {
    var bytes: [UInt8] = []
    for count in 0..<70 {
      var slow = 0
      for index in stride(from: 0, to: count, by: 2) {
        slow += Int(bytes[index]) << 8 | (index + 1 < count ? Int(bytes[index + 1]) : 0)
      }
      while slow > 0xFFFF { slow = slow & 0xFFFF + slow >> 16 }
      #expect(checksum(bytes).folded == UInt16(slow))
      bytes.append(UInt8(truncatingIfNeeded: 255 - count * 7))
    }
    #expect(checksum([UInt8](repeating: 0xFF, count: 65536)).folded == 0xFFFF)
  }
}
