// SPDX-License-Identifier: Apache-2.0

import Logging
import Platform
import SimulatedHost
import SimulatedLink
import TestSupport
import Testing
import VMBus

/// A host with an echo device, an honest guest that uses it, and what a test does to both.
private final class HostileBed {
  let host: SimulatedHost
  let device = EchoVSP()
  private let bystander: SmallGuest
  private var channel: SmallChannel
  private var count: UInt8 = 0

  init() throws {
    var configuration = SimulatedHost.Configuration()
    // Each thing that is refused is told, and here it is thousands.
    configuration.logger.logLevel = .critical
    host = try SimulatedHost(
      path: "/tmp/vmbus-test-hostile-\(UInt32.random(in: 0 ... .max)).sock", configuration)
    host.add(device)
    bystander = try SmallGuest(host)
    guard let id = bystander.offers.first?.channelID else {
      throw SmallGuest.Failed(reason: "no offer")
    }
    channel = try bystander.open(id)
  }

  deinit { host.stop() }

  /// The honest guest has its packet echoed.
  func expectService(sourceLocation: SourceLocation = #_sourceLocation) throws {
    count &+= 1
    let payload = [count, 1, 2, 3, 4, 5, 6, 7]
    let echo = try channel.ask(payload)
    #expect(echo == payload, sourceLocation: sourceLocation)
  }

  /// Waits until only the honest guest has a channel.
  func expectOneChannel() throws {
    try bystander.wait("others have let go") { _ in self.device.openChannels == 1 }
  }

  func waitForRefusals(_ count: UInt64) throws {
    try bystander.wait("\(count) refusals, not \(host.refusals)") { _ in
      self.host.refusals == count
    }
  }
}

/// What a guest can do wrong beside its packets. The host says no, counts it, and serves the others.
@Suite(.timeLimit(.minutes(10))) struct HostileListTests {
  @Test func garbageIsCounted() throws {
    let bed = try HostileBed()
    var random = Numbers(seed: 0xBAD)
    var guest = try RogueGuest(bed.host)
    for round in 0..<3000 {
      var bytes = (0..<Int.random(in: 0...240, using: &random)).map { _ in
        UInt8.random(in: 0...255, using: &random)
      }
      // Mostly a message that there is, and often one of the channel that there is.
      if round % 8 != 0, bytes.count >= 8 {
        bytes.replaceSubrange(
          0..<8, with: [UInt8.random(in: 0...27, using: &random)] + [0, 0, 0, 0, 0, 0, 0])
        if round % 2 == 0, bytes.count >= 12 { bytes.replaceSubrange(8..<12, with: [1, 0, 0, 0]) }
      }
      // One that wants its messages where it has no processor is cut off.
      if try !guest.post(bytes) { guest = try RogueGuest(bed.host) }
      while try guest.nextMessage() != nil {}
    }
    #expect(bed.host.refusals > 1000)
    try bed.expectService()
  }

  /// Words, their length and count as the header says them.
  static let descriptions: [(words: [UInt64], length: Int?, count: UInt16)] = [
    // A page outside; before the memory; the last there can be; one that wraps to the memory's.
    ([4096, 0x100 + 64], nil, 1), ([4096, 0xFF], nil, 1), ([4096, .max], nil, 1),
    ([8192, .max, 0], nil, 1), ([4096, 1 << 52 | 0x100], nil, 1),
    // The right page first.
    ([3 * 4096, 0x102, 0x103, 0x200], nil, 1),
    // No range; more ranges than words; a second one that is not there.
    ([4096, 0x102], nil, 0), ([4096, 0x102], nil, .max), ([4096, 0x102], nil, 2),
    ([8192, 0x102, 0x103, 4096], nil, 2),
    // Ranges of nothing; offsets past the first page; 4 GiB in one page.
    ([0, 0x102], nil, 1), ([4096 << 32 | 4096, 0x102, 0x103], nil, 1),
    ([UInt64.max, 0x102], nil, 1), ([0xFFFF_FFFF, 0x102], nil, 1),
    // Lengths that are none.
    ([4096, 0x102], 0, 1), ([4096, 0x102], 8, 1), ([4096, 0x102], 15, 1),
    ([4097, 0x102], nil, 1),
  ]

  @Test(arguments: descriptions)
  func memoryThatIsNotThere(_ words: [UInt64], _ length: Int?, _ count: UInt16) throws {
    let bed = try HostileBed()
    let guest = try RogueGuest(bed.host)
    #expect(try guest.describe(7, words, length: length, count: count) == .unsuccessful)
    #expect(bed.host.refusals == 1)
    // Its number is free, and no device has heard of it.
    #expect(try guest.open(7, downstream: 2) == .unsuccessful)
    #expect(bed.host.refusals == 2)
    #expect(try guest.describe(7, pages: (2..<10).map(guest.page)) == .success)
    #expect(try guest.open(7, downstream: 4) == .success)
    try bed.expectService()
  }

  @Test func aDescriptionThatNeverEnds() throws {
    let bed = try HostileBed()
    let guest = try RogueGuest(bed.host)
    try guest.begin(7, [65520, 0x102], length: 65528)
    // Neither another one of its number, nor its teardown, nor a ring there.
    #expect(try guest.describe(7, [4096, 0x102]) == .unsuccessful)
    try guest.post(
      .gpadlTeardown(
        GPADLTeardown {
          $0.channelID = 1
          $0.gpadlID = 7
        }))
    #expect(try guest.open(7, downstream: 2) == .unsuccessful)
    #expect(bed.host.refusals == 3)
    try bed.expectService()
  }

  @Test func fourGibibytes() throws {
    let bed = try HostileBed()
    let guest = try RogueGuest(bed.host)
    // 32 MiB each, of the same page: the most that one description holds.
    let words = [8190 * 4096] + [UInt64](repeating: guest.page(2), count: 8190)
    var accepted: [GPADLID] = []
    var refused: UInt64 = 0
    for number: UInt32 in 1...128 {
      let id = GPADLID(number)
      if refused == 0, try guest.describe(id, words) == .success {
        accepted.append(id)
      } else {
        // What is too much is refused by its header, before its pages have come.
        try guest.begin(id, Array(words.prefix(2)), length: words.count * 8)
        if refused > 0 { #expect(try guest.created(id) == .unsuccessful) }
        refused += 1
      }
    }
    #expect(accepted.count == 327_680 / 8191)
    #expect(accepted.count + Int(refused) == 128)
    #expect(bed.host.refusals >= refused)
    try bed.expectService()
    // The guest may have others in their place.
    try guest.tearDown(accepted[0])
    #expect(try guest.describe(999, words) == .success)
  }

  @Test func ringsOfOddSizes() throws {
    let bed = try HostileBed()
    let guest = try RogueGuest(bed.host, pages: 8300)
    let page = guest.page
    // Not whole pages, at either end; two ranges; one, two and three pages.
    let shapes: [([UInt64], UInt16)] = [
      ([8 * 4096 - 1] + (2..<10).map(page), 1),
      ([1 << 32 | (8 * 4096 - 1)] + (2..<10).map(page), 1),
      ([4 * 4096] + (2..<6).map(page) + [4 * 4096] + (6..<10).map(page), 2),
      ([4096, page(2)], 1), ([2 * 4096, page(2), page(3)], 1),
      ([3 * 4096, page(2), page(3), page(4)], 1),
    ]
    var refusals: UInt64 = 0
    for (index, shape) in shapes.enumerated() {
      let id = GPADLID(UInt32(index + 1))
      #expect(try guest.describe(id, shape.0, count: shape.1) == .success)
      for downstream: UInt32 in [0, 1, 2, 3, 4] {
        #expect(try guest.open(id, downstream: downstream) == .unsuccessful)
        refusals += 1
        #expect(bed.host.refusals == refusals)
      }
    }
    // A good one, cut where it can't be cut, and for a processor that is not there.
    #expect(try guest.describe(50, pages: (2..<10).map(page)) == .success)
    for downstream: UInt32 in [0, 1, 7, 8, 9, 0x8000_0000, .max] {
      #expect(try guest.open(50, downstream: downstream) == .unsuccessful)
    }
    #expect(try guest.open(50, downstream: 4, processor: 1) == .unsuccessful)
    refusals += 8
    #expect(bed.host.refusals == refusals)
    // 32 MiB, behind each other.
    #expect(try guest.describe(52, pages: (2..<8192).map(page)) == .success)
    #expect(try guest.open(52, downstream: 8188) == .success)
    try bed.expectService()
  }

  /// Both halves in one page over and over: whatever is written is index, descriptor and data.
  @Test func aRingOfOnePageManyTimes() throws {
    let bed = try HostileBed()
    let guest = try RogueGuest(bed.host)
    #expect(try guest.describe(1, pages: [GPN](repeating: guest.page(2), count: 16)) == .success)
    #expect(try guest.open(1, downstream: 8) == .success)
    let bell = try guest.doorbell(OfferChannel.defaultConnectionID(1))
    var random = Numbers(seed: 0x1234)
    for _ in 0..<500 {
      for offset in stride(from: 0, to: 4096, by: 4) {
        unsafe guest.start(ofPage: 2).storeBytes(
          of: UInt32.random(in: 0...0x8000, using: &random) & ~7, toByteOffset: offset,
          as: UInt32.self)
      }
      bell?.signal()
    }
    try bed.expectService()
    try guest.close()
    try guest.tearDown(1)
    try bed.expectOneChannel()
  }

  @Test func aWriteIndexThatIsNone() throws {
    let bed = try HostileBed()
    let guest = try RogueGuest(bed.host)
    #expect(try guest.describe(1, pages: (2..<12).map(guest.page)) == .success)
    unsafe guest.start(ofPage: 2).storeBytes(of: 0xFFFF_FFF3, as: UInt32.self)
    #expect(try guest.open(1, downstream: 5) == .success)
    // The device lets go of the ring; the guest can close it all the same.
    try bed.waitForRefusals(1)
    try bed.expectOneChannel()
    try bed.expectService()
    try guest.close()
    try guest.tearDown(1)
    #expect(try guest.describe(1, pages: (12..<22).map(guest.page)) == .success)
    #expect(try guest.open(1, downstream: 5) == .success)
    try bed.expectService()
  }

  @Test func aReadIndexThatIsNone() throws {
    let bed = try HostileBed()
    let guest = try RogueGuest(bed.host)
    #expect(try guest.describe(1, pages: (2..<12).map(guest.page)) == .success)
    unsafe guest.start(ofPage: 2).storeBytes(of: 0xFFFF_FFF3, toByteOffset: 4, as: UInt32.self)
    #expect(try guest.open(1, downstream: 5) == .unsuccessful)
    #expect(bed.host.refusals == 1)
    try bed.expectService()
  }

  @Test func signalsOfNobody() throws {
    let bed = try HostileBed()
    let guest = try RogueGuest(bed.host)
    // Numbers that no channel has, of a channel that is not open, and of one that was.
    for number: UInt32 in [0, 1, 4, 0x1FFF, 0x27FF, .max, OfferChannel.defaultConnectionID(1)] {
      let bell = try guest.doorbell(number)
      for _ in 0..<1000 { bell?.signal() }
    }
    try bed.expectService()
    let bell = try guest.doorbell(OfferChannel.defaultConnectionID(1))
    #expect(try guest.describe(1, pages: (2..<12).map(guest.page)) == .success)
    for _ in 0..<3 {
      #expect(try guest.open(1, downstream: 5) == .success)
      try guest.close()
      for _ in 0..<1000 { bell?.signal() }
    }
    try guest.tearDown(1)
    // The ring is the guest's again: what it writes there is nobody's packet.
    unsafe guest.start(ofPage: 2).storeBytes(of: 0xFFFF_FFF3, as: UInt32.self)
    bell?.signal()
    try bed.expectService()
    try bed.expectOneChannel()
    #expect(bed.host.refusals == 0)
  }

  @Test func moreDoorbellsThanThereAreForOne() throws {
    let bed = try HostileBed()
    let guest = try RogueGuest(bed.host)
    var count = 0
    while count < 5000, try guest.doorbell(UInt32(0x10_0000 + count)) != nil { count += 1 }
    #expect(1..<5000 ~= count)
    #expect(bed.host.refusals == 1)
    // Others get theirs, and can come.
    let other = try RogueGuest(bed.host)
    #expect(try other.doorbell(OfferChannel.defaultConnectionID(1)) != nil)
    try bed.expectService()
  }

  @Test func moreMemoryThanAGuestMayHave() throws {
    let bed = try HostileBed()
    let guest = try RawGuest(bed.host)
    // Nothing is behind it: only its addresses would be taken.
    let memory = try MemoryFile(name: "vast", byteCount: 1 << 39)
    let event = try EventDescriptor()
    #expect(
      try guest.call(
        .join, PartitionTests.join(), descriptors: [memory.owned.rawValue, event.rawValue])
        == .invalidParameter)
    #expect(bed.host.refusals == 1)
    try bed.expectService()
  }

  @Test(arguments: 0..<6) func deathInTheMiddle(_ place: Int) throws {
    let bed = try HostileBed()
    for _ in 0..<20 {
      let guest = try RogueGuest(bed.host, connects: place > 0)
      if place == 1 { try guest.begin(1, [65520, 0x102], length: 65528) }
      if place >= 2 {
        #expect(try guest.describe(1, pages: (2..<12).map(guest.page)) == .success)
      }
      if place == 2 { try guest.beginOpen(1, downstream: 5) }
      if place >= 3 {
        #expect(try guest.open(1, downstream: 5) == .success)
        let bell = try guest.doorbell(OfferChannel.defaultConnectionID(1))
        // Half of a packet.
        unsafe guest.start(ofPage: 2).storeBytes(of: 8, as: UInt32.self)
        bell?.signal()
      }
      if place == 4 { try guest.close() }
      if place == 5 {
        try guest.post(
          .gpadlTeardown(
            GPADLTeardown {
              $0.channelID = 1
              $0.gpadlID = 1
            }))
      }
      guest.die()
      try bed.expectService()
    }
    try bed.expectOneChannel()
  }
}
