// SPDX-License-Identifier: Apache-2.0

import Testing

@testable import VMBus

@Suite struct HypercallTests {
  static func decode(_ input: UInt64, _ parameter: UInt64) -> Result<Hypercall, HypercallRefusal> {
    Hypercall.decode(input: input, parameter: parameter)
  }

  static func refused(_ status: HypercallStatus) -> Result<Hypercall, HypercallRefusal> {
    .failure(HypercallRefusal(status))
  }

  @Test func linuxCallsAreKnown() {
    // As Linux makes them: the message's input lies in memory, the signal's in the register.
    #expect(Self.decode(0x5C, 0x10_2000) == .success(.postMessage(input: 0x10_2000)))
    #expect(Self.decode(0x1_005D, 0x2001) == .success(.signalEvent(connectionID: 0x2001)))
    #expect(Self.decode(0x5D, 0x3000) == .success(.signalEventInMemory(input: 0x3000)))
  }

  @Test func otherCallsAreRefused() {
    // 0x8001: what Linux asks for first, on a hypervisor with extended calls.
    for code: UInt64 in [0, 0x5B, 0x5E, 0xDB, 0x8001, 0xFFFF] {
      #expect(Self.decode(code, 0) == Self.refused(.invalidCode))
    }
  }

  @Test func controlBitsAreLookedAt() {
    // A fast message, a variable header, repetitions, reserved bits.
    #expect(Self.decode(0x1_005C, 0x1000) == Self.refused(.invalidInput))
    for bit in 17..<64 {
      #expect(Self.decode(0x5C | 1 << UInt64(bit), 0x1000) == Self.refused(.invalidInput))
      #expect(Self.decode(0x1_005D | 1 << UInt64(bit), 0x2001) == Self.refused(.invalidInput))
    }
  }

  @Test func inputsAreAligned() {
    for offset: UInt64 in 1...7 {
      #expect(Self.decode(0x5C, 0x1000 + offset) == Self.refused(.invalidAlignment))
      #expect(Self.decode(0x5D, 0x1000 + offset) == Self.refused(.invalidAlignment))
    }
  }

  @Test func connectionsHave24Bits() {
    #expect(Self.decode(0x1_005D, 0xFF_FFFF) == .success(.signalEvent(connectionID: 0xFF_FFFF)))
    #expect(Self.decode(0x1_005D, 0x100_0000) == Self.refused(.invalidConnectionID))
    #expect(Self.decode(0x1_005D, 0x1_0000_2001) == Self.refused(.invalidParameter))
    #expect(Self.decode(0x1_005D, .max) == Self.refused(.invalidParameter))
  }

  static func input(size: UInt32, count: Int = 256) -> [UInt8] {
    var bytes: [UInt8] = [4, 0, 0, 0, 0xEE, 0xEE, 0xEE, 0xEE, 1, 0, 0, 0]
    for shift: UInt32 in [0, 8, 16, 24] { bytes.append(UInt8(truncatingIfNeeded: size >> shift)) }
    while bytes.count < count { bytes.append(UInt8(truncatingIfNeeded: bytes.count)) }
    return Array(bytes.prefix(count))
  }

  @Test func aMessageIsTakenApart() throws {
    let (message, payload) = try PostedMessage.parse(Self.input(size: 40)).get()
    #expect(message.connectionID == 4 && message.type == 1 && message.payloadByteCount == 40)
    #expect(payload == Array(16..<56))
    #expect(try PostedMessage.parse(Self.input(size: 240)).get().payload.count == 240)
    #expect(try PostedMessage.parse(Self.input(size: 0)).get().payload.isEmpty)
  }

  @Test(arguments: [241, 256, 0xFFFF_FFFF, 0x8000_0000] as [UInt32])
  func aMessageThatIsTooLongIsRefused(_ size: UInt32) {
    guard case .failure(let refusal) = PostedMessage.parse(Self.input(size: size)) else {
      Issue.record("accepted")
      return
    }
    #expect(refusal.status == .invalidParameter)
  }

  @Test func aMessageThatIsCutOffIsRefused() {
    for count in 0..<56 {
      guard case .failure = PostedMessage.parse(Self.input(size: 40, count: count)) else {
        Issue.record("accepted \(count) bytes")
        return
      }
    }
  }
}
