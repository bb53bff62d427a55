// SPDX-License-Identifier: Apache-2.0

import SimulatedHost
import TestSupport
import Testing

/// Guests of random bytes: the device answers, refuses or ends, and never touches what is not its own.
@Suite struct HostileGuestTests {
  @Test func randomScripts() throws {
    let guest = try HostileGuest()
    // Always the same ones.
    var random = Numbers(seed: 42)
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
