// SPDX-License-Identifier: Apache-2.0

import Foundation
import TestSupport
import Testing

/// Random hosts: none may make the driver trap, reach past its memory, lose a request or tell of
/// one twice. The memory has guard pages; run it under AddressSanitizer too.
@Suite struct StorageHostileTests {
  /// Packets of the host in all; `SOAK_PACKETS` asks for more.
  static let packets =
    ProcessInfo.processInfo.environment["SOAK_PACKETS"].flatMap(Int.init) ?? 100_000

  @Test func noHostBreaksTheDriver() {
    var random = Numbers(seed: 1)
    let memory = HostileMemory()
    var sent = 0
    var runs = 0
    while sent < Self.packets {
      var input = (0..<(64 + Int(random.next() % 4096))).map { _ in
        UInt8(truncatingIfNeeded: random.next())
      }
      // Half of them with small numbers, which reach deeper.
      if random.next() & 1 == 0 {
        for index in 1..<input.count where random.next() & 3 == 0 { input[index] &= 0x0F }
      }
      sent += driveHostile(input, memory)
      runs += 1
    }
    // Otherwise the hosts would end too soon to say anything.
    #expect(sent / runs > 5)
  }
}
