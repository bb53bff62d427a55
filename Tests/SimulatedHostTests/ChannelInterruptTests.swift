// SPDX-License-Identifier: Apache-2.0

import Platform
import Testing

@testable import SimulatedHost

@Suite struct ChannelInterruptTests {
  /// The flags of SINT 2 lie 512 bytes into the second page.
  static func flags(_ bed: GuestSynICTests.Bed) -> UInt8 { bed.byte(4096 + 512) }

  @Test func itCanBeMovedToAnotherProcessor() throws {
    let (first, second) = (try GuestSynICTests.Bed(), try GuestSynICTests.Bed())
    let made = ChannelInterrupt([first.synIC, second.synIC], processor: 0, flag: 3)
    let interrupt = try #require(made)
    interrupt.signal()
    #expect(Self.flags(first) == 8 && Self.flags(second) == 0)
    #expect(interrupt.move(to: 1))
    interrupt.signal()
    #expect(Self.flags(second) == 8)
    #expect(first.interrupt.drain() == 1 && second.interrupt.drain() == 1)
  }

  @Test func processorsThatAreNotThereAreRefused() throws {
    let bed = try GuestSynICTests.Bed()
    #expect(ChannelInterrupt([bed.synIC], processor: 1, flag: 3) == nil)
    #expect(ChannelInterrupt([], processor: 0, flag: 3) == nil)
    let made = ChannelInterrupt([bed.synIC], processor: 0, flag: 3)
    let interrupt = try #require(made)
    #expect(!interrupt.move(to: 1) && !interrupt.move(to: .max))
    interrupt.signal()
    #expect(Self.flags(bed) == 8)
  }
}
