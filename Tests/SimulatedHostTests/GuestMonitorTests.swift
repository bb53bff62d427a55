// SPDX-License-Identifier: Apache-2.0

import Platform
import Testing
import VMBus

@testable import SimulatedHost

@Suite struct GuestMonitorTests {
  static let pages = MonitorPages(parentToChild: 0x10_3000, childToParent: 0x10_2000)
  /// The pending bits of group 1 lie at 16 in the page.
  static let group1 = 2 * 4096 + 16

  static func makeMonitor(
    _ bed: GuestSynICTests.Bed, _ number: UInt8
  ) throws -> (monitor: GuestMonitor, doorbell: EventBox) {
    let monitor = GuestMonitor(bed.memory)
    try monitor.setPages(pages, in: .hostVisible)
    let doorbell = try EventBox()
    monitor.watch(MonitorID(number), doorbell)
    return (monitor, doorbell)
  }

  @Test func aTriggerIsASignal() throws {
    let bed = try GuestSynICTests.Bed()
    let (monitor, doorbell) = try Self.makeMonitor(bed, 37)
    monitor.look()
    #expect(doorbell.event.drain() == 0)
    bed.setByte(Self.group1, 0x20)
    monitor.look()
    #expect(doorbell.event.drain() == 1 && bed.byte(Self.group1) == 0)
    monitor.look()
    #expect(doorbell.event.drain() == 0)
  }

  @Test func bitsOfNobodyAreTaken() throws {
    let bed = try GuestSynICTests.Bed()
    let (monitor, doorbell) = try Self.makeMonitor(bed, 37)
    for offset in 0..<4096 { bed.setByte(2 * 4096 + offset, 0xFF) }
    monitor.look()
    #expect(doorbell.event.drain() == 1)
    monitor.unwatch(MonitorID(37))
    bed.setByte(Self.group1, 0x20)
    monitor.look()
    #expect(doorbell.event.drain() == 0)
  }

  @Test func aGuestMayHaveNoPages() throws {
    let bed = try GuestSynICTests.Bed()
    let (monitor, doorbell) = try Self.makeMonitor(bed, 37)
    bed.setByte(Self.group1, 0x20)
    try monitor.setPages(nil, in: .hostVisible)
    monitor.look()
    #expect(doorbell.event.drain() == 0 && bed.byte(Self.group1) == 0x20)
  }

  @Test(arguments: [0x10_4000, 0xFF000, .max] as [UInt64])
  func pagesElsewhereAreRefused(_ address: UInt64) throws {
    let bed = try GuestSynICTests.Bed()
    let (monitor, doorbell) = try Self.makeMonitor(bed, 37)
    #expect(throws: GuestMemoryError.notVisible(page: address / 4096)) {
      try monitor.setPages(
        MonitorPages(parentToChild: 0x10_3000, childToParent: address), in: .hostVisible)
    }
    bed.setByte(Self.group1, 0x20)
    monitor.look()
    #expect(doorbell.event.drain() == 0)
  }

  /// For a guest that does not signal.
  @Test func ringsCanBeLookedAtWithoutASignal() throws {
    let bed = try GuestSynICTests.Bed()
    let monitor = GuestMonitor(bed.memory)
    let doorbell = try EventBox()
    monitor.poll(doorbell)
    for _ in 0..<2 {
      monitor.look()
      #expect(doorbell.event.drain() == 1)
    }
    monitor.endPolling(doorbell)
    monitor.look()
    #expect(doorbell.event.drain() == 0)
  }
}
