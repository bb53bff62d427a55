// SPDX-License-Identifier: Apache-2.0

import Foundation
import PacketIO
import Testing

@Suite struct PcapngWriterTests {
  let path = FileManager.default.temporaryDirectory
    .appending(path: "vmbus-pcapng-\(UInt64.random(in: 0...UInt64.max))").path

  private func written(_ body: (inout PcapngWriter) throws -> Void) throws -> [UInt8] {
    defer { try? FileManager.default.removeItem(atPath: path) }
    var writer = try PcapngWriter(path: path)
    try body(&writer)
    try writer.flush()
    return try [UInt8](Data(contentsOf: URL(filePath: path)))
  }

  /// Section header, interface description, one enhanced packet block, as the specification has them.
  @Test func goldenBytes() throws {
    let bytes = try written { writer in
      let interface = try writer.addInterface(name: "vsc0")
      unsafe try writer.write(
        ([0xAA, 0xBB, 0xCC, 0xDD, 0xEE] as [UInt8]).span.bytes, interface: interface,
        direction: .sent, time: 0x0102_0304_0506_0708)
    }
    let section: [UInt8] = [
      0x0A, 0x0D, 0x0D, 0x0A, 28, 0, 0, 0, 0x4D, 0x3C, 0x2B, 0x1A, 1, 0, 0, 0,
      0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 28, 0, 0, 0,
    ]
    let description: [UInt8] = [
      1, 0, 0, 0, 40, 0, 0, 0, 1, 0, 0, 0, 0, 0, 4, 0,
      2, 0, 4, 0, 0x76, 0x73, 0x63, 0x30, 9, 0, 1, 0, 9, 0, 0, 0, 0, 0, 0, 0,
      40, 0, 0, 0,
    ]
    let packet: [UInt8] = [
      6, 0, 0, 0, 52, 0, 0, 0, 0, 0, 0, 0, 4, 3, 2, 1, 8, 7, 6, 5,
      5, 0, 0, 0, 5, 0, 0, 0, 0xAA, 0xBB, 0xCC, 0xDD, 0xEE, 0, 0, 0,
      2, 0, 4, 0, 2, 0, 0, 0, 0, 0, 0, 0, 52, 0, 0, 0,
    ]
    #expect([UInt8](bytes.prefix(28)) == section)
    #expect([UInt8](bytes.dropFirst(28).prefix(40)) == description)
    #expect([UInt8](bytes.dropFirst(68)) == packet)
  }

  @Test func aPartialChecksumIsCompletedInTheFileOnly() throws {
    var frame = Frames.udp
    frame.replaceSubrange(40..<42, with: [0x84, 0x20])
    let before = frame
    let bytes = try written { writer in
      let interface = try writer.addInterface(name: "vsc0")
      unsafe try writer.write(
        frame.span.bytes, FrameOffload(checksum: .partial(start: 34, offset: 6)),
        interface: interface, direction: .received, time: 0)
    }
    #expect([UInt8](bytes.dropFirst(68 + 28).prefix(frame.count)) == Frames.udp)
    #expect(frame == before)
  }

  /// Many more bytes than are collected at once, with frames as large as they come.
  @Test func blocksFollowEachOther() throws {
    let frame = [UInt8](repeating: 0x5A, count: 65553)
    let bytes = try written { writer in
      let interface = try writer.addInterface(name: "a")
      for count in 0..<200 {
        unsafe try writer.write(
          frame.span.bytes.extracting(first: frame.count - count), interface: interface,
          direction: .received, time: UInt64(count))
      }
    }
    var (position, packets) = (68, 0)
    while position + 28 <= bytes.count {
      #expect(bytes[position] == 6)
      let length = (0..<4).reduce(0) { $0 | Int(bytes[position + 4 + $1]) << (8 * $1) }
      let captured = (0..<4).reduce(0) { $0 | Int(bytes[position + 20 + $1]) << (8 * $1) }
      #expect(captured == frame.count - packets)
      position += length
      packets += 1
    }
    #expect(packets == 200)
    #expect(position == bytes.count)
  }
}
