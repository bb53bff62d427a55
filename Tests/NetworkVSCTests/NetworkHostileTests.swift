// SPDX-License-Identifier: Apache-2.0

import Foundation
import Platform
import Testing

/// Random hosts: none may make the driver trap, reach past its memory, or lose or repeat a completion.
/// The memory has guard pages; run it under AddressSanitizer too.
@Suite struct NetworkHostileTests {
  /// Packets of the host in all; `SOAK_PACKETS` asks for more.
  static let packets =
    ProcessInfo.processInfo.environment["SOAK_PACKETS"].flatMap(Int.init) ?? 50_000

  /// splitmix64: the same numbers in each run.
  struct Numbers: RandomNumberGenerator {
    var state: UInt64

    mutating func next() -> UInt64 {
      state &+= 0x9E37_79B9_7F4A_7C15
      var value = state
      value = (value ^ (value >> 30)) &* 0xBF58_476D_1CE4_E5B9
      value = (value ^ (value >> 27)) &* 0x94D0_49BB_1331_11EB
      return value ^ (value >> 31)
    }
  }

  @Test func noHostBreaksTheDriver() throws {
    var random = Numbers(state: 1)
    let worker = try Worker(.init(name: "network-test", spinRounds: 0))
    var sent = 0
    var runs = 0
    while sent < Self.packets {
      let input = (0..<(64 + Int(random.next() % 16384))).map { _ in
        // Small numbers reach deeper.
        UInt8(truncatingIfNeeded: random.next()) & (random.next() & 1 == 0 ? 0xFF : 0x0F)
      }
      sent += driveHostileNetwork(input, worker)
      runs += 1
    }
    worker.stop()
    // Otherwise the hosts would end too soon to say anything.
    #expect(sent / runs > 20)
  }
}
