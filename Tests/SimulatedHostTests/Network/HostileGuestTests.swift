// SPDX-License-Identifier: Apache-2.0

import SimulatedHost
import Testing

/// Guests of random bytes: the device answers, refuses or ends, and never touches what is not its own.
@Suite struct HostileGuestTests {
  @Test func randomScripts() throws {
    let guest = try HostileGuest()
    // Always the same ones.
    var random = SystemlessGenerator(state: 42)
    var packets = 0
    for round in 0..<1500 {
      var script = (0..<Int.random(in: 1...400, using: &random)).map { _ in
        UInt8.random(in: 0...255, using: &random)
      }
      // Most of them begin with a whole start-up.
      if round % 4 != 0 { script[0] = script[0] & 0x0E | 1 }
      packets += try guest.play(script)
    }
    #expect(packets > 10_000)
  }

  @Test func aScriptWithoutAFaultSendsAFrameAndGetsItBack() throws {
    let guest = try HostileGuest()
    // Start-up; then a frame of 64 bytes in a section.
    let message = Wire.packet(Wire.frame())
    // Three answers, eight completions, and the frame with its own.
    let before = try guest.play([1])
    let after = try guest.play([1, 0xC3, 6] + message + [0])
    #expect(before == 11 && after == 13)
  }
}

/// Random numbers that are the same each time.
struct SystemlessGenerator: RandomNumberGenerator {
  var state: UInt64

  mutating func next() -> UInt64 {
    state &+= 0x9E37_79B9_7F4A_7C15
    var mixed = state
    mixed = (mixed ^ (mixed >> 30)) &* 0xBF58_476D_1CE4_E5B9
    mixed = (mixed ^ (mixed >> 27)) &* 0x94D0_49BB_1331_11EB
    return mixed ^ (mixed >> 31)
  }
}
