// SPDX-License-Identifier: Apache-2.0

import Testing
import VMBus

@Suite struct GUIDTests {
  // Bytes: the network class as the VMBus offer of a real host carries it (mixed-endian).
  static let networkBytes: [UInt8] = [
    0x63, 0x51, 0x61, 0xf8, 0x3e, 0xdf, 0xc5, 0x46, 0x91, 0x3f, 0xf2, 0xd2, 0xf9, 0x65, 0xed, 0x0e,
  ]

  @Test func textBecomesMixedEndianBytes() {
    let guid: GUID = "f8615163-df3e-46c5-913f-f2d2f965ed0e"
    #expect(guid.wireBytes.indices.map { guid.wireBytes[$0] } == Self.networkBytes)
    #expect(guid.description == "f8615163-df3e-46c5-913f-f2d2f965ed0e")
  }

  @Test func bracesAndUpperCaseAreRead() {
    #expect(
      GUID("{F8615163-DF3E-46C5-913F-F2D2F965ED0E}") == "f8615163-df3e-46c5-913f-f2d2f965ed0e")
  }

  @Test(arguments: [
    "", "{}", "f8615163-df3e-46c5-913f-f2d2f965ed0", "f8615163-df3e-46c5-913f-f2d2f965ed0e0",
    "{f8615163-df3e-46c5-913f-f2d2f965ed0e", "f8615163-df3e-46c5-913f-f2d2f965ed0e}",
    "g8615163-df3e-46c5-913f-f2d2f965ed0e", "f8615163df3e46c5913ff2d2f965ed0e",
    "f8615163-df3e-46c5-913ff2d2-f965ed0e", "+8615163-df3e-46c5-913f-f2d2f965ed0e",
  ])
  func otherTextIsRefused(_ text: String) {
    #expect(GUID(text) == nil)
  }
}
