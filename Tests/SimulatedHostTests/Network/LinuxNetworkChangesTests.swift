// SPDX-License-Identifier: Apache-2.0

import NetworkProtocol
import SimulatedHost
import Testing
import VMBus

/// What Linux's network driver sends when somebody changes the interface's settings, captured as in
/// `LinuxNetworkTests`.
@Suite struct LinuxNetworkChangesTests {
  static func bytes(_ hexadecimal: String, zeros: Int = 0) -> [UInt8] {
    LinuxNetworkTests.bytes(hexadecimal, zeros: zeros)
  }

  /// A channel up to its receive buffer.
  static func start(frameByteCount: String) throws -> NVSPSession {
    var configuration = AdapterConfiguration()
    configuration.mtu = 9000
    configuration.maximumQueues = 4
    var session = NVSPSession(configuration)
    let messages = [
      bytes("010000000100060001000600", zeros: 28),
      bytes("7d000000" + frameByteCount + "00000000ac000000", zeros: 24),
      bytes("64000000060000001e000000", zeros: 28),
      bytes("650000001f1e0e00feca", zeros: 30),
    ]
    for message in messages {
      // Linux asks for the completions of the version and of the buffer.
      _ = try session.handle(
        unsafe message.span.bytes, isTransactional: message[0] == 1 || message[0] == 0x65)
    }
    return session
  }

  /// The receive buffer has 16 MiB. 256 bytes of headers and 36 that nobody uses go with each frame:
  /// 9306 bytes 1802 times, and 1806 bytes 9289 times. Linux takes these completions.
  @Test(arguments: [
    ("36230000", "6600000001000000010000000000000" + "05a2400000a07000084e1ff00"),
    ("ea050000", "6600000001000000010000000000000" + "00e07000049240000fefaff00"),
  ]) func framesOfAnotherSize(_ frameByteCount: String, _ completion: String) throws {
    var session = try Self.start(frameByteCount: frameByteCount)
    #expect(session.frameByteCount == (frameByteCount == "36230000" ? 9014 : 1514))
    let message = session.receiveBuffer(byteCount: 16 << 20).message
    let span = message.span
    let answer = unsafe span.bytes.withUnsafeBytes { unsafe [UInt8]($0.prefix(28)) }
    #expect(answer == Self.bytes(completion))
  }

  /// The filter, then HALT; then it wants its buffers back, and waits for no answer.
  @Test func theEndBeforeANewBeginning() throws {
    var rndis = RNDISSession()
    let messages = [
      Self.bytes("020000001800000001000000010000000000000000400000"),
      Self.bytes("05000000200000000c0000000e0101000400000014000000000000000d000000"),
      Self.bytes("05000000200000000f0000000e01010004000000140000000000000000000000"),
      Self.bytes("030000000c00000011000000"),
    ]
    var events: [RNDISSession.Event] = []
    for message in messages {
      events.append(try rndis.handle(unsafe message.span.bytes, NetworkFacts()).event)
    }
    #expect(
      events == [
        .initialized, .filter([.directed, .allMulticast, .broadcast]), .filter([]), .halted,
      ])

    var session = try Self.start(frameByteCount: "36230000")
    _ = session.receiveBuffer(byteCount: 16 << 20)
    _ = session.sendBuffer(byteCount: 1 << 20)
    for message in [Self.bytes("67000000feca", zeros: 34), Self.bytes("6a000000", zeros: 36)] {
      #expect(message.count == 40)
      let action = try session.handle(unsafe message.span.bytes, isTransactional: false)
      switch action {
      case .dropReceiveBuffer: #expect(message[0] == 0x67)
      case .dropSendBuffer: #expect(message[0] == 0x6A)
      default: Issue.record("another action")
      }
    }
    // Once.
    let again = Self.bytes("67000000feca", zeros: 34)
    #expect(throws: NetVSPError.unexpected(.revokeReceiveBuffer)) {
      try session.handle(unsafe again.span.bytes, isTransactional: false)
    }
  }

  @Test func subchannelsAreAskedForAgain() throws {
    var session = try Self.start(frameByteCount: "36230000")
    _ = session.receiveBuffer(byteCount: 16 << 20)
    _ = session.sendBuffer(byteCount: 1 << 20)
    // The first RNDIS message ends the start-up: it lies in the packet's range.
    let rndis = Self.bytes("6b00000001000000ffffffff00000000", zeros: 24)
    _ = try session.handle(unsafe rndis.span.bytes, isTransactional: true)
    let message = Self.bytes("850000000100000001000000", zeros: 28)
    let action = try session.handle(unsafe message.span.bytes, isTransactional: true)
    guard case .offerSubchannels(let answer, let count) = action else {
      Issue.record("no subchannels")
      return
    }
    let span = answer.span
    let bytes = unsafe span.bytes.withUnsafeBytes { unsafe [UInt8]($0.prefix(12)) }
    // Its type again, success, and how many.
    #expect(bytes == Self.bytes("850000000100000001000000") && count == 1)
  }
}
