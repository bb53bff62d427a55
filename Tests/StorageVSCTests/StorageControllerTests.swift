// SPDX-License-Identifier: Apache-2.0

import Platform
import StorageProtocol
import Synchronization
import TestSupport
import Testing

@testable import StorageVSC
@testable import VMBus
@testable import VSC

@Suite(.serialized) struct StorageControllerTests {
  static func controller(
    _ change: (inout FakeController.Control) -> Void = { _ in }
  ) async throws -> Machine {
    try await Machine(lun: nil) { control in
      control.disks[3] = FakeController.Disk(byteCount: 65536)
      control.disks[3]?.serial = "third"
      control.disks[200] = FakeController.Disk(byteCount: 1 << 18)
      control.disks[200]?.blockSize = 4096
      change(&control)
    }
  }

  /// The next event.
  static func next(
    _ events: AsyncStream<StorageController.Event>
  ) async throws -> StorageController.Event {
    for await event in events { return event }
    throw NoValue()
  }

  @Test func findsAllDisks() async throws {
    let machine = try await Self.controller()
    let disks = machine.controller.disks
    #expect(disks.map(\.lun) == [0, 3, 200])
    #expect(disks.map(\.information.disk.serial) == ["S123", "third", "S123"])
    #expect(disks.map(\.byteCount) == [1 << 20, 65536, 1 << 18])
    #expect(throws: StorageError.noDisk(lun: 1)) { try machine.controller.disk(1) }
  }

  @Test func disksDoNotMix() async throws {
    let machine = try await Self.controller()
    for (disk, byte) in zip(machine.controller.disks, [1, 2, 3] as [UInt8]) {
      try await disk.write(at: 4096, [UInt8](repeating: byte, count: 4096))
    }
    let first = machine.shared.control.withLock { control in
      [0, 3, 200].map { control.disks[$0]?.bytes[4096] }
    }
    #expect(first == [1, 2, 3])
  }

  @Test(arguments: [(0, 4096), (1, 1), (4095, 2), (100, 70000), (12288, 8192)])
  func largeBlocksAreWrittenInPartsToo(_ offset: Int, _ count: Int) async throws {
    let machine = try await Self.controller()
    let disk = try machine.controller.disk(200)
    #expect(disk.information.disk.geometry.blockByteCount == 4096)
    var expected = try #require(machine.shared.control.withLock { $0.disks[200]?.bytes })
    let new = [UInt8](repeating: 0xEE, count: count)
    expected.replaceSubrange(offset..<offset + count, with: new)
    try await disk.write(at: UInt64(offset), new)
    #expect(machine.shared.control.withLock { $0.disks[200]?.bytes } == expected)
    #expect(try await disk.read(at: UInt64(offset), count: count) == new)
  }

  @Test func aHostThatCantListIsAskedForEachUnit() async throws {
    #expect(try reportedUnits([0, 0, 0, 8, 0, 0, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0]) == [5])
    // Longer than what came, twice the same, flat addressing, beyond 255, another addressing.
    let odd: [UInt8] =
      [0xFF, 0xFF, 0xFF, 0xFF, 0, 0, 0, 0] + [0, 7, 0, 0, 0, 0, 0, 0] + [0x40, 7, 0, 0, 0, 0, 0, 0]
      + [0x01, 0, 0, 0, 0, 0, 0, 0] + [0xC1, 1, 0, 0, 0, 0, 0, 0] + [0, 1]
    #expect(try reportedUnits(odd) == [7])
    #expect(throws: StorageError.self) { try reportedUnits([0, 0, 0]) }
  }

  @Test func disksComeAndGo() async throws {
    let machine = try await Self.controller()
    let events = machine.controller.events()
    let gone = try machine.controller.disk(3)
    machine.shared.control.withLock {
      $0.disks[7] = FakeController.Disk(byteCount: 4096)
    }
    // ENUMERATE_BUS.
    machine.tell([11, 0, 0, 0])
    guard case .added(let disk) = try await Self.next(events) else { throw NoValue() }
    #expect(disk.lun == 7 && disk.byteCount == 4096)
    _ = try await disk.read(at: 0, count: 4096)

    machine.shared.control.withLock { $0.disks[3] = nil }
    machine.tell([11, 0, 0, 0] + [UInt8](repeating: 0, count: 60))
    guard case .removed(lun: 3) = try await Self.next(events) else { throw NoValue() }
    await gone.waitUntilEnded()
    await #expect(throws: StorageError.removed(lun: 3)) { try await gone.read(at: 0, count: 1) }
    #expect(machine.controller.disks.map(\.lun) == [0, 7, 200])
    // The others go on.
    _ = try await machine.controller.disk(0).read(at: 0, count: 1)
  }

  /// INQUIRY, READ CAPACITY, MODE SENSE, and INQUIRY for the list of pages and the serial number.
  @Test(arguments: [[0x12, 0], [0x9E], [0x1A], [0x12, 1, 0x00], [0x12, 1, 0x80]] as [[UInt8]])
  func aDiskThatGoesWhileItIsAskedIsNotAnotherDisk(_ command: [UInt8]) async throws {
    let machine = try await Self.controller()
    let events = machine.controller.events()
    machine.shared.control.withLock { $0.departures[3] = command }
    try await machine.controller.rescan()
    guard case .removed(lun: 3) = try await Self.next(events) else { throw NoValue() }
    #expect(machine.controller.disks.map(\.lun) == [0, 200])
    await machine.controller.close()
    for await event in events { Issue.record("\(event)") }
  }

  @Test func aRequestToADiskThatIsGoneSaysSo() async throws {
    let machine = try await Self.controller()
    let events = machine.controller.events()
    let disk = try machine.controller.disk(3)
    machine.shared.control.withLock { $0.disks[3] = nil }
    await #expect(throws: StorageError.removed(lun: 3)) { try await disk.read(at: 0, count: 512) }
    guard case .removed(lun: 3) = try await Self.next(events) else { throw NoValue() }
  }

  @Test func anotherDiskInItsPlaceIsAnotherDisk() async throws {
    let machine = try await Self.controller()
    let events = machine.controller.events()
    let old = try machine.controller.disk(3)
    machine.shared.control.withLock { $0.disks[3]?.serial = "other" }
    machine.tell([11, 0, 0, 0])
    guard case .removed(lun: 3) = try await Self.next(events) else { throw NoValue() }
    guard case .added(let new) = try await Self.next(events) else { throw NoValue() }
    #expect(new.information.disk.serial == "other" && new !== old)
    #expect(old.ended == .removed(lun: 3))
  }

  @Test func aDiskThatGrowsIsReadToItsNewEnd() async throws {
    let machine = try await Self.controller()
    let events = machine.controller.events()
    let disk = try machine.controller.disk(3)
    machine.shared.control.withLock {
      $0.disks[3]?.bytes += [UInt8](repeating: 5, count: 65536)
      // UNIT ATTENTION, capacity data has changed: told once, by the next request.
      $0.failures = [check(6, 0x2A, 9)]
    }
    _ = try await disk.read(at: 0, count: 512)
    guard case .resized(let resized, from: 65536) = try await Self.next(events) else {
      throw NoValue()
    }
    #expect(resized === disk && disk.byteCount == 131072)
    #expect(try await disk.read(at: 131071, count: 1) == [5])
  }

  @Test func writeProtectionThatComesLaterIsTold() async throws {
    let machine = try await Self.controller()
    let events = machine.controller.events()
    let disk = try machine.controller.disk(0)
    machine.shared.control.withLock {
      $0.readOnly = true
      // UNIT ATTENTION, mode parameters changed.
      $0.failures = [check(6, 0x2A, 1)]
    }
    _ = try await disk.read(at: 0, count: 1)
    guard case .changed(let changed) = try await Self.next(events) else { throw NoValue() }
    #expect(changed === disk)
    await #expect(throws: StorageError.readOnly) { try await disk.write(at: 0, [1]) }
  }

  @Test func eventsEndWithTheController() async throws {
    let machine = try await Self.controller()
    let events = machine.controller.events()
    await machine.controller.close()
    var count = 0
    for await _ in events { count += 1 }
    #expect(count == 0)
    #expect(throws: StorageError.channel(.ended(.closed))) { try machine.controller.disk(0) }
    var late = 0
    for await _ in machine.controller.events() { late += 1 }
    #expect(late == 0)
  }

  @Test(arguments: [
    (UInt16(0x0602), [0x0602] as [UInt16], 64), (0x0600, [0x0602, 0x0600], 64),
    (0x0501, [0x0602, 0x0600, 0x0501], 64), (0x0402, [0x0602, 0x0600, 0x0501, 0x0402], 48),
    (0x0200, [0x0602, 0x0600, 0x0501, 0x0402, 0x0200], 48),
  ])
  func eachVersionWorks(_ newest: UInt16, _ asked: [UInt16], _ length: Int) async throws {
    let machine = try await Machine(channels: 2, offered: 2) { $0.newestVersion = newest }
    #expect(machine.shared.control.withLock { $0.versions } == asked)
    #expect(try machine.disk.information.disk.version.rawValue == newest)
    try await machine.disk.write(at: 700, [UInt8](repeating: 0xAB, count: 3000))
    let bytes = try await machine.disk.read(at: 700, count: 3000)
    #expect(bytes.allSatisfy { $0 == 0xAB })
    // Each request is as long as its version's.
    #expect(machine.shared.control.withLock { $0.lengths } == [length])
  }

  @Test func noCommonVersionIsTold() async throws {
    await #expect(
      throws: StorageOpenError.storage(.refused(.noCommonVersion(.revisionMismatch)))
    ) { _ = try await Machine { $0.newestVersion = 0x0100 } }
  }
}
