// SPDX-License-Identifier: Apache-2.0

import NetworkProtocol
import SimulatedHost
import Testing
import VMBus

/// Messages of the network driver of Debian's kernel 7.3.4, captured by vmbus-host of a guest of
/// vmbus-vm with two processors.
@Suite struct LinuxNetworkTests {
  static func bytes(_ hexadecimal: String, zeros: Int = 0) -> [UInt8] {
    let digits = Array(hexadecimal.utf8)
    return stride(from: 0, to: digits.count - 1, by: 2).map { index in
      UInt8(String(decoding: digits[index...index + 1], as: UTF8.self), radix: 16) ?? 0
    } + [UInt8](repeating: 0, count: zeros)
  }

  /// NVSP messages have 40 bytes, whatever they say.
  @Test func theStartUp() throws {
    var configuration = AdapterConfiguration()
    configuration.maximumQueues = 4
    var session = NVSPSession(configuration)
    let messages = [
      Self.bytes("010000000100060001000600", zeros: 28),
      Self.bytes("7d000000ea05000000000000ac000000", zeros: 24),
      Self.bytes("64000000060000001e000000", zeros: 28),
    ]
    for (index, message) in messages.enumerated() {
      #expect(message.count == 40)
      _ = try session.handle(unsafe message.span.bytes, isTransactional: index == 0)
    }
    #expect(session.version == .v61 && session.stage == .buffers)
    // The MTU and the Ethernet header.
    #expect(session.frameByteCount == 1514 && session.capabilities.rawValue == 0xAC)
    let buffer = Self.bytes("65000000111e0e00feca", zeros: 30)
    let action = try session.handle(unsafe buffer.span.bytes, isTransactional: true)
    guard case .mapReceiveBuffer(let gpadl, let id) = action else {
      Issue.record("no receive buffer")
      return
    }
    #expect(gpadl.rawValue == 0x000E_1E11 && id == 0xCAFE)
  }

  static let key =
    "6d5a56da255b0ec24167253d43a38fb0d0ca2bcbae7b30b477cb2da38030f20c6a42b73bbeac01fa"

  static func scaling(requestID: String, flags: String) -> [UInt8] {
    bytes(
      "050000006c020000" + requestID + "04020100500200001400000000000000" + "89022800" + flags
        + "00000117000000020000280000002800000028020000000000000000000000000000"
        + String(repeating: "0000000001000000", count: 64) + key)
  }

  /// Every control message of the probe, in order: a status of success for each.
  @Test func theInterfaceIsSetUp() throws {
    var session = RNDISSession()
    var facts = NetworkFacts()
    facts.maximumQueues = 4
    facts.allowsCoalescing = true
    let messages = [
      Self.bytes("020000001800000001000000010000000000000000400000"),
      Self.bytes("040000001c0000000200000006010100000000001400000000000000"),
      Self.bytes("040000001c0000000300000001010101000000001400000000000000"),
      Self.bytes("040000001c0000000400000016020200000000001400000000000000"),
      Self.bytes("04000000b8000000050000000d0201fc9c0000001400000000000000a7039c00", zeros: 152),
      Self.bytes(
        "0500000038000000060000000c0201fc1c000000140000000000000080031c00"
          + "010404040400000202000000000000000000020200000000"),
      Self.bytes("040000001c0000000700000014010100000000001400000000000000"),
      Self.bytes("040000001c0000000800000007010100000000001400000000000000"),
      Self.bytes("040000002e0000000900000003020100120000001400000000000000880212", zeros: 15),
      // First it turns scaling off, then on.
      Self.scaling(requestID: "0a000000", flags: "1000"),
      Self.scaling(requestID: "0b000000", flags: "0000"),
    ]
    for (index, message) in messages.enumerated() {
      let reply = try session.handle(unsafe message.span.bytes, facts)
      let answer = try #require(reply.message)
      // Its type, its request, success.
      #expect(answer.prefix(4) == [message[0], 0, 0, 0x80])
      #expect(Array(answer[8..<12]) == Array(message[8..<12]))
      #expect(Array(answer[12..<16]) == [0, 0, 0, 0], "message \(index)")
      if index == 9 { #expect(session.scaling == nil) }
    }
    #expect(session.coalescesIPv4 && session.coalescesIPv6)
    let scaling = try #require(session.scaling)
    #expect(scaling.table == (0..<128).map { UInt8($0 % 2) })
    #expect(scaling.key[0] == 0x6D && scaling.key[39] == 0xFA)
    #expect(scaling.hash.rawValue == 0x1701)
  }
}
