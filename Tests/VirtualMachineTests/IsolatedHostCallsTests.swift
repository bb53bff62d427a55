// SPDX-License-Identifier: Apache-2.0

import Logging
import Platform
import SimulatedHost
import SimulatedLink
import Testing
import VMBus

@testable import VirtualMachine

/// The same as `HostCallsTests`, of machines that hide their memory.
@Suite(.timeLimit(.minutes(1))) struct IsolatedHostCallsTests {
  final class Bed {
    let host: SimulatedHost
    let memory: MachineMemory
    let synIC: SyntheticInterrupts
    let joined: JoinedHost
    let calls: HostCalls

    init(_ isolation: GuestIsolation) throws {
      var configuration = SimulatedHost.Configuration()
      configuration.logger.logLevel = .critical
      host = try SimulatedHost(
        path: "/tmp/vmbus-test-isolated-\(UInt32.random(in: 0 ... .max)).sock", configuration)
      memory = try MachineMemory(byteCount: 64 << 20, isIsolated: true)
      synIC = try SyntheticInterrupts(0)
      joined = try #require(
        try JoinedHost(
          host.path, isolation, memory, [synIC], HostSynICPages(processorCount: 1)))
      var logger = Logger(label: "test")
      logger.logLevel = .critical
      calls = HostCalls(joined.link, memory, logger: logger, hostSynICs: joined.hostSynICs) {}
    }

    deinit { host.stop() }

    /// The guest has its pages at 0x5000 and 0x6000.
    func enableSynIC() {
      calls.setSynIC(
        synIC, SynICRegisters(control: 1, messagePage: 0x5001, eventFlagsPage: 0x6001))
    }

    func post(_ payload: [UInt8]) -> HypercallStatus {
      let header: [UInt8] = [
        4, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, UInt8(payload.count), 0, 0, 0,
      ]
      #expect(memory.write(0x7000, header + payload))
      return calls.hypercall(input: 0x5C, parameter: 0x7000) { _, _ in }
    }

    /// The visibility call for these pages; the list lies at 0x8000.
    func change(_ visibility: UInt8, _ pages: [UInt64], from start: UInt64 = 0) -> UInt64 {
      var input = [UInt8](repeating: 0xFF, count: 8) + [visibility, 0, 0, 0, 0, 0, 0, 0]
      for page in pages {
        input += (0..<8).map { UInt8(truncatingIfNeeded: page >> (8 * UInt64($0))) }
      }
      #expect(memory.write(0x8000, input))
      return calls.changeVisibility(
        input: 0xDB | UInt64(pages.count) << 32 | start << 48, parameter: 0x8000)
    }

    /// The bytes in the slot of the VMBus, after at most so many looks.
    func message(looks: Int = 2000) throws -> [UInt8] {
      for _ in 0..<looks {
        joined.hostSynICs[0].interrupted()
        if memory.word(0x5200) != 0 { return try #require(memory.read(0x5200, count: 256)) }
        sleepForTest(milliseconds: 5)
      }
      return []
    }
  }

  static let unload: [UInt8] = [16, 0, 0, 0, 0, 0, 0, 0]

  /// Its SynIC pages are private, and the host has others; or the paravisor writes to them itself.
  @Test(arguments: [GuestIsolation.vbs, .vbsConfidential, .snpConfidential])
  func aGuestConnects(_ isolation: GuestIsolation) throws {
    let bed = try Bed(isolation)
    bed.enableSynIC()
    #expect(bed.post(HostCallsTests.contact) == .success)
    let message = try bed.message()
    #expect(message.prefix(6) == [1, 0, 0, 0, 16, 0])
    #expect(message.dropFirst(16).prefix(9) == [15, 0, 0, 0, 0, 0, 0, 0, 1])
    #expect(bed.synIC.interrupt.drain() > 0)
    // The next one waits until the guest has taken that one, and said so.
    #expect(bed.post(Self.unload) == .success)
    #expect(try bed.message().dropFirst(16).prefix(1) == [15])
    if isolation == .vbs {
      #expect(bed.memory.word(0x5204).map { $0 >> 8 & 1 } == 1)
    }
    #expect(bed.memory.write(0x5200, [0, 0, 0, 0]))
    bed.calls.interruptEnded(bed.synIC)
    #expect(try bed.message().dropFirst(16).prefix(1) == [17])
  }

  @Test func messagesWaitForTheGuestsPage() throws {
    let bed = try Bed(.vbs)
    #expect(bed.post(HostCallsTests.contact) == .success)
    #expect(try bed.message(looks: 10).isEmpty)
    bed.enableSynIC()
    #expect(try bed.message().dropFirst(16).prefix(1) == [15])
  }

  /// What lies in a page that the guest has made visible is posted as well.
  @Test func inputsAreTakenFromWhereTheGuestHasThem() throws {
    let bed = try Bed(.vbs)
    bed.enableSynIC()
    #expect(bed.change(3, [7]) == 0x1_0000_0000)
    #expect(bed.post(HostCallsTests.contact) == .success)
    #expect(try bed.message().dropFirst(16).prefix(1) == [15])
  }

  /// The other side is told: a paravisor's messages do not go to a page that everybody sees.
  @Test func thePeerKnowsWhatIsVisible() throws {
    let bed = try Bed(.vbsConfidential)
    #expect(bed.change(3, [9, 5, 6, 0x0400_000A]) == 0x4_0000_0000)
    for page: GPN in [5, 6, 9, 10] { #expect(bed.memory.isVisible(page) == true) }
    bed.enableSynIC()
    #expect(bed.post(HostCallsTests.contact) == .success)
    #expect(try bed.message(looks: 10).isEmpty)
    // Private again, and told once more.
    #expect(bed.change(0, [5, 6]) == 0x2_0000_0000)
    bed.calls.setSynIC(bed.synIC, SynICRegisters())
    bed.enableSynIC()
    #expect(try bed.message().dropFirst(16).prefix(1) == [15])
  }

  @Test func hostileCallsAreRefused() throws {
    let bed = try Bed(.vbs)
    // Neither memory nor a page; the pages before it are done.
    #expect(bed.change(3, [0x4000]) == 5)
    #expect(bed.change(3, [.max]) == 5)
    #expect(bed.change(3, [1, .max - 1, 2]) == 0x1_0000_0005)
    #expect(bed.memory.isVisible(1) == true && bed.memory.isVisible(2) == false)
    // From the third one on.
    #expect(bed.change(3, [.max, .max, 3], from: 2) == 0x3_0000_0000)
    #expect(bed.memory.isVisible(3) == true)
    #expect(bed.change(1, [4]) == 5)
    #expect(bed.calls.changeVisibility(input: 0x1_0000_00DB, parameter: 64 << 20) == 5)
    #expect(bed.calls.changeVisibility(input: 0x5C, parameter: 0x8000) == 2)
    // No call of the usual way.
    #expect(
      bed.calls.hypercall(input: 0x1_0000_00DB, parameter: 0x8000) { _, _ in } == .invalidCode)
  }

  @Test func pagesThatFollowOneAnotherAreOneRun() {
    #expect(HostCalls.runs([]).isEmpty)
    #expect(HostCalls.runs([5, 6, 7, 9, 8, 9]) == [5..<8, 9..<10, 8..<10])
    #expect(HostCalls.runs([.max]).map(\.count) == [1])
    #expect(HostCalls.runs([.max - 1, .max, 0]).map(\.count) == [1, 1, 1])
  }
}
