// SPDX-License-Identifier: Apache-2.0

import Platform
import SimulatedLink
import Testing
import VMBus

@testable import SimulatedHost

@Suite struct GuestSynICTests {
  /// Guest memory of 4 pages at page 0x100, seen from both sides.
  final class Bed {
    let synIC: GuestSynIC
    let memory: GuestMemory
    let guest: MappedMemory
    let interrupt: EventDescriptor

    init() throws {
      let file = try MemoryFile(name: "test", byteCount: 4 * 4096)
      guest = try file.map()
      var region = LinkRegion()
      region.firstPage = 0x100
      region.pageCount = 4
      // A message that was really sent: descriptors pass through a socket.
      let listener = try PacketListener(
        path: "/tmp/vmbus-test-synic-\(UInt32.random(in: 0 ... .max)).sock")
      let sender = try PacketSocket(connectingTo: listener.path)
      guard let receiver = try listener.accept() else { throw SetUpFailed() }
      try sender.send([1], descriptors: [file.owned.rawValue])
      guard let message = try receiver.receive() else { throw SetUpFailed() }
      memory = try GuestMemory([region], fileCount: 1, from: message)
      interrupt = try EventDescriptor()
      synIC = GuestSynIC(memory, interrupt: try interrupt.owned.duplicate())
      try synIC.setPages(message: 0x100, eventFlags: 0x101, in: .hostVisible)
    }

    func byte(_ offset: Int) -> UInt8 { unsafe guest.bytes[offset] }
    func setByte(_ offset: Int, _ value: UInt8) { unsafe guest.bytes[offset] = value }
  }

  struct SetUpFailed: Error {}

  static func message(_ channel: ChannelID) -> OutgoingMessage {
    OutgoingMessage(.rescindChannelOffer(RescindChannelOffer { $0.channelID = channel }))
  }

  @Test func aMessageLiesInTheSlotOfItsSINT() throws {
    let bed = try Bed()
    #expect(bed.synIC.post(Self.message(5)))
    #expect(bed.interrupt.drain() == 1)
    // Slot 2 at 512: type 1, 12 bytes, no other message; the payload at 528: type 2, channel 5.
    #expect((512..<516).map { bed.byte($0) } == [1, 0, 0, 0])
    #expect(bed.byte(516) == 12 && bed.byte(517) == 0)
    #expect((528..<540).map { bed.byte($0) } == [2, 0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0])
  }

  @Test func messagesWaitForAPage() throws {
    let bed = try Bed()
    try bed.synIC.setPages(message: nil, eventFlags: nil, in: .hostVisible)
    #expect(bed.synIC.post(Self.message(5)))
    bed.synIC.setEventFlag(1)
    #expect(bed.interrupt.drain() == 0)
    #expect(bed.byte(512) == 0 && (4096..<8192).allSatisfy { bed.byte($0) == 0 })
    try bed.synIC.setPages(message: 0x102, eventFlags: 0x103, in: .hostVisible)
    #expect(bed.interrupt.drain() == 1)
    #expect(bed.byte(8192 + 512) == 1 && bed.byte(8192 + 536) == 5)
  }

  @Test func theNextMessageWaitsUntilTheSlotIsFree() throws {
    let bed = try Bed()
    #expect(bed.synIC.post(Self.message(5)))
    #expect(bed.synIC.post(Self.message(6)))
    #expect(bed.interrupt.drain() == 1)
    #expect(bed.byte(536) == 5)
    // The guest is asked to tell when it has taken the first one.
    #expect(bed.byte(517) == SynICMessageHeader.messagePending)
    // A guest that lies about it gains nothing.
    bed.synIC.endOfMessage()
    #expect(bed.byte(536) == 5)
    bed.setByte(512, 0)
    bed.synIC.endOfMessage()
    #expect(bed.byte(536) == 6)
    #expect(bed.interrupt.drain() == 1)
  }

  @Test func aGuestThatTakesNoMessagesIsBounded() throws {
    let bed = try Bed()
    var accepted = 0
    while accepted < 100_000, bed.synIC.post(Self.message(1)) { accepted += 1 }
    #expect(accepted == GuestSynIC.maximumWaiting + 1)
  }

  @Test func anEventFlagRaisesOneInterruptUntilItIsCleared() throws {
    let bed = try Bed()
    bed.synIC.setEventFlag(70)
    bed.synIC.setEventFlag(70)
    #expect(bed.interrupt.drain() == 1)
    // SINT 2 at 512 of the second page; flag 70 is bit 6 of byte 8.
    #expect(bed.byte(4096 + 512 + 8) == 1 << 6)
    bed.setByte(4096 + 512 + 8, 0)
    bed.synIC.setEventFlag(70)
    #expect(bed.interrupt.drain() == 1)
    // Outside of the page's flags: nothing happens.
    bed.synIC.setEventFlag(2048)
    #expect(bed.interrupt.drain() == 0)
  }

  @Test func pagesThatAreNotThereAreRefused() throws {
    let bed = try Bed()
    #expect(throws: GuestMemoryError.notVisible(page: 0x104)) {
      try bed.synIC.setPages(message: 0x104, eventFlags: 0x101, in: .hostVisible)
    }
    #expect(throws: GuestMemoryError.notVisible(page: 0x100)) {
      try bed.synIC.setPages(message: 0x100, eventFlags: 0x101, in: .encrypted)
    }
  }
}
