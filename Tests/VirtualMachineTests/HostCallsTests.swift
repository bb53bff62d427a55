// SPDX-License-Identifier: Apache-2.0

import Logging
import Platform
import SimulatedHost
import SimulatedLink
import Synchronization
import Testing
import VMBus

@testable import VirtualMachine

/// What a machine's processors do for their guest, against a host over its socket; only KVM is not
/// there.
@Suite(.timeLimit(.minutes(1))) struct HostCallsTests {
  /// A machine of one processor whose guest has its message page at 0x5000 and its event flags at
  /// 0x6000, and writes its messages to 0x7000.
  final class Bed {
    let host: SimulatedHost
    let memory: MachineMemory
    let synIC: SyntheticInterrupts
    let calls: HostCalls
    let isGone = Promise<Void>()
    let bound = Lock<[UInt32]>([])

    init() throws {
      host = try SimulatedHost(
        path: "/tmp/vmbus-test-calls-\(UInt32.random(in: 0 ... .max)).sock")
      memory = try MachineMemory(byteCount: 64 << 20)
      synIC = try SyntheticInterrupts(0)
      let link = try GuestLink(path: host.path)
      var joining = GuestLink.Joining()
      joining.regions = memory.regions
      joining.files = [memory.file.owned.rawValue]
      joining.interrupts = [synIC.interrupt.rawValue]
      try link.join(joining)
      var logger = Logger(label: "test")
      logger.logLevel = .critical
      let isGone = isGone
      calls = HostCalls(link, memory, logger: logger) { isGone.keep(()) }
    }

    deinit { host.stop() }

    func call(_ input: UInt64, _ parameter: UInt64) -> HypercallStatus {
      calls.hypercall(input: input, parameter: parameter) { connection, _ in
        bound.withLock { $0.append(connection) }
      }
    }

    /// HvPostMessage with these 256 bytes at most.
    func post(connection: UInt32, _ payload: [UInt8]) -> HypercallStatus {
      let header: [UInt8] = [
        UInt8(connection), 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, UInt8(payload.count), 0, 0, 0,
      ]
      #expect(memory.write(0x7000, header + payload))
      return call(0x5C, 0x7000)
    }

    func enableSynIC() {
      calls.setSynIC(
        synIC, SynICRegisters(control: 1, messagePage: 0x5001, eventFlagsPage: 0x6001))
    }

    /// The bytes in the slot of the VMBus, as soon as there are some.
    func message() throws -> [UInt8] {
      for _ in 0..<2000 {
        if memory.word(0x5200) != 0 { return try #require(memory.read(0x5200, count: 256)) }
        sleepForTest(milliseconds: 5)
      }
      return []
    }
  }

  // By hand: type 14, version 5.3, processor 0, SINT 2, monitor pages 0x8000 and 0x9000.
  static let contact: [UInt8] = [
    14, 0, 0, 0, 0, 0, 0, 0, 3, 0, 5, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0,
    0, 0x80, 0, 0, 0, 0, 0, 0, 0, 0x90, 0, 0, 0, 0, 0, 0,
  ]

  @Test func aGuestConnects() throws {
    let bed = try Bed()
    bed.enableSynIC()
    #expect(bed.post(connection: 4, Self.contact) == .success)
    let message = try bed.message()
    // Type 1, 16 bytes; then type 15, supported, its state, and the connection for messages.
    #expect(message.prefix(6) == [1, 0, 0, 0, 16, 0])
    #expect(
      message.dropFirst(16).prefix(16) == [15, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 4, 0, 0, 0])
    #expect(bed.synIC.interrupt.drain() == 1)
  }

  @Test func messagesWaitForAPageThatIsEnabledLate() throws {
    let bed = try Bed()
    #expect(bed.post(connection: 4, Self.contact) == .success)
    #expect(bed.memory.word(0x5200) == 0)
    bed.enableSynIC()
    #expect(try bed.message().prefix(1) == [1])
  }

  @Test func theEndOfAMessageIsToldWhereTheHostWaits() throws {
    let bed = try Bed()
    bed.enableSynIC()
    #expect(bed.post(connection: 4, Self.contact) == .success)
    _ = try bed.message()
    // An answer to UNLOAD waits behind it.
    #expect(bed.post(connection: 4, [16, 0, 0, 0, 0, 0, 0, 0]) == .success)
    #expect(bed.memory.read(0x5205, count: 1) == [1])
    // Interrupts of channels end as well, and the slot is full then.
    #expect(!bed.synIC.hasEndedMessage(bed.memory))
    #expect(bed.memory.write(0x5200, [0, 0, 0, 0]))
    #expect(bed.synIC.hasEndedMessage(bed.memory))
    bed.calls.interruptEnded(bed.synIC)
    #expect(try bed.message().dropFirst(16).prefix(4) == [17, 0, 0, 0])
    #expect(bed.memory.write(0x5200, [0, 0, 0, 0]))
    // The host has no more, and said so.
    #expect(!bed.synIC.hasEndedMessage(bed.memory))
  }

  @Test func theFirstSignalBindsADoorbell() throws {
    let bed = try Bed()
    #expect(bed.call(0x1_005D, 0x2001) == .success)
    #expect(bed.call(0x1_005D, 0x2001) == .success)
    #expect(bed.memory.write(0x8000, [0x02, 0x20, 0, 0, 0, 0, 0, 0]))
    #expect(bed.call(0x5D, 0x8000) == .success)
    #expect(bed.bound.withLock { $0 } == [0x2001, 0x2002])
  }

  @Test func hostileCallsAreRefused() throws {
    let bed = try Bed()
    // No memory there, or not all of it; a page that is none; a connection that is none.
    #expect(bed.call(0x5C, 64 << 20) == .invalidParameter)
    #expect(bed.call(0x5C, (64 << 20) - 8) == .invalidParameter)
    #expect(bed.call(0x5C, .max & ~7) == .invalidParameter)
    #expect(bed.call(0x5D, 64 << 20) == .invalidParameter)
    #expect(bed.post(connection: 7, Self.contact) == .invalidConnectionID)
    #expect(bed.memory.write(0x800C, [0xFF, 0xFF, 0xFF, 0xFF]))
    #expect(bed.call(0x5C, 0x8000) == .invalidParameter)
    // A SynIC outside of memory gets nothing, and the machine goes on.
    bed.calls.setSynIC(
      bed.synIC, SynICRegisters(control: 1, messagePage: .max, eventFlagsPage: .max))
    #expect(!bed.synIC.hasEndedMessage(bed.memory))
    bed.enableSynIC()
    #expect(bed.post(connection: 4, Self.contact) == .success)
    #expect(try bed.message().prefix(1) == [1])
  }

  @Test func aGuestCanTakeItsPagesBack() throws {
    let bed = try Bed()
    bed.enableSynIC()
    bed.calls.setSynIC(
      bed.synIC, SynICRegisters(control: 0, messagePage: 0x5001, eventFlagsPage: 0x6001))
    #expect(bed.post(connection: 4, Self.contact) == .success)
    // The answer to a call that comes after it.
    #expect(bed.post(connection: 4, [16, 0, 0, 0, 0, 0, 0, 0]) == .success)
    #expect(bed.memory.word(0x5200) == 0)
  }

  @Test func aHostThatIsGoneIsNoticed() throws {
    let bed = try Bed()
    bed.host.stop()
    #expect(bed.post(connection: 4, Self.contact) != .success)
    bed.isGone.wait()
  }

  @Test func registersAreEnabledOneByOne() {
    let off = SynICRegisters(control: 0, messagePage: 0x5001, eventFlagsPage: 0x6001)
    #expect(off.enabledMessagePage == nil && off.enabledEventFlagsPage == nil)
    let half = SynICRegisters(control: 1, messagePage: 0x5001, eventFlagsPage: 0x6000)
    #expect(half.enabledMessagePage == 5 && half.enabledEventFlagsPage == nil)
  }
}
