// SPDX-License-Identifier: Apache-2.0

import Foundation
import Platform
import TestSupport
import Testing

/// Random hosts: none may make the driver trap, reach past its memory, or lose or repeat a completion.
/// The memory has guard pages; run it under AddressSanitizer too.
@Suite struct NetworkHostileTests {
  /// Packets of the host in all; `SOAK_PACKETS` asks for more.
  static let packets =
    ProcessInfo.processInfo.environment["SOAK_PACKETS"].flatMap(Int.init) ?? 50_000

  @Test func noHostBreaksTheDriver() throws {
    var random = Numbers(seed: 1)
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
