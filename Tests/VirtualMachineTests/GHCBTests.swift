// SPDX-License-Identifier: Apache-2.0

import Logging
import Testing

@testable import VirtualMachine

/// What Linux does with a GHCB. Offsets and values are those of its `union hv_ghcb`, of the GHCB's
/// specification and of Microsoft's SynIC registers.
@Suite struct GHCBTests {
  final class Bed {
    let pages: HostSynICPages
    let ghcb: GHCB
    let calls: HostCalls

    init() throws {
      pages = try HostSynICPages(processorCount: 2)
      ghcb = GHCB(processor: 1, pages)
      var logger = Logger(label: "test")
      logger.logLevel = .critical
      let memory = try MachineMemory(byteCount: 64 << 20, isIsolated: true)
      calls = HostCalls(nil, memory, logger: logger) {}
    }

    /// The second processor's GHCB lies behind four SynIC pages and another GHCB.
    func put(_ offset: Int, _ value: UInt64) {
      unsafe (pages.start + 5 * 4096 + offset).storeBytes(of: value.littleEndian, as: UInt64.self)
    }

    func word(_ offset: Int) -> UInt64 {
      unsafe UInt64(littleEndian: (pages.start + 5 * 4096 + offset).load(as: UInt64.self))
    }

    /// Writes a register as Linux does; the answer is that there is nothing to complain of.
    func write(_ register: UInt64, _ value: UInt64) -> String? {
      put(0x390, 0x7C)
      put(0x398, 1)
      put(0x308, register)
      put(0x1F8, value & 0xFFFF_FFFF)
      put(0x310, value >> 32)
      return ghcb.exit(calls)
    }

    func read(_ register: UInt64) -> UInt64? {
      put(0x390, 0x7C)
      put(0x398, 0)
      put(0x308, register)
      guard ghcb.exit(calls) == nil else { return nil }
      return word(0x310) << 32 | word(0x1F8)
    }
  }

  @Test func theRegisterSaysWhereThePageIs() throws {
    let bed = try Bed()
    // Boundary bit 38; host's pages at bit 37, and this page is the sixth.
    #expect(bed.ghcb.register == 0x60_0000_5000)
  }

  @Test func versionsAreNegotiated() throws {
    let bed = try Bed()
    bed.ghcb.register = 2
    #expect(bed.ghcb.exit(bed.calls) == nil)
    // Versions 1 to 2.
    #expect(bed.ghcb.register == 0x0002_0001_0000_0001)
    // The guest asks to be ended.
    bed.ghcb.register = 0x100
    #expect(bed.ghcb.exit(bed.calls) == "request 0x100 by GHCB")
    // A page of its own choice.
    bed.ghcb.register = 0x60_0000_4000
    #expect(bed.ghcb.exit(bed.calls) == "its GHCB is at 0x6000004000")
  }

  @Test func theHostsSynICPagesAreTold() throws {
    let bed = try Bed()
    // SIMP and SIEFP of the second processor.
    #expect(bed.read(0x4000_0083) == 0x60_0000_2000)
    #expect(bed.read(0x4000_0082) == 0x60_0000_3000)
    #expect(bed.read(0x4000_0092) == 0)
    bed.put(0x398, 7)
    #expect(bed.write(0x4000_0083, 0x60_0000_2001) == nil)
    #expect(bed.word(0x398) == 0)
    #expect(bed.read(0x4000_0083) == 0x60_0000_2001)
    // The guest's name.
    #expect(bed.write(0x4000_0000, 0x8100_0006_0C6B_0000) == nil)
    #expect(bed.read(0x4000_0000) == 0x8100_0006_0C6B_0000)
  }

  @Test func otherExitsEndTheMachine() throws {
    let bed = try Bed()
    // But for an empty page.
    #expect(bed.ghcb.exit(bed.calls) == nil)
    #expect(bed.write(0x4000_0100, 1) == "register 0x40000100 by GHCB")
    bed.put(0x390, 0x72)
    #expect(bed.ghcb.exit(bed.calls) == "exit 0x72")
  }

  /// Usage 1, the code at 4080, and the input from 0 on; the status comes where the code was.
  @Test func hypercallsAreMade() throws {
    let bed = try Bed()
    bed.put(0xFF8, 1 << 32)
    bed.put(4080, 0x5D)
    bed.put(0, 0x11)
    #expect(bed.ghcb.exit(bed.calls) == nil)
    // Nobody is there to be signalled: no such connection.
    #expect(bed.word(4080) == 0x12)
    #expect(bed.ghcb.hypercallCount == 1)
    bed.put(4080, 0xDB)
    #expect(bed.ghcb.exit(bed.calls) == nil)
    #expect(bed.word(4080) == 2)
    // A message of more than 240 bytes.
    bed.put(4080, 0x5C)
    bed.put(8, 241 << 32 | 1)
    #expect(bed.ghcb.exit(bed.calls) == nil)
    #expect(bed.word(4080) == 5)
  }
}
