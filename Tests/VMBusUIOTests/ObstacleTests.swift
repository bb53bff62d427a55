// SPDX-License-Identifier: Apache-2.0

import LinuxTestSupport
import TestSupport
import Testing
import VMBus
import VSC

@testable import VMBusLinux
@testable import VMBusUIO

@Suite struct ObstacleTests {
  let kernel = KernelFacts(release: KernelRelease(6, 12), drivers: [UIODriver.name])
  let usable = NodeFacts(mode: 0o600, owner: 0, group: 0, isAccessible: true)
  let node = UIODeviceRecord(
    name: "uio0", node: "/dev/uio0", maps: UIOLayoutTests.three, eventCount: 0, path: "/sys/uio0")

  /// A device without anything in its way, and what a test does to it.
  private func record(_ change: (inout VMBusDeviceRecord) -> Void = { _ in }) throws
    -> VMBusDeviceRecord
  {
    let tree = try SysfsTree.controller()
    var record = try VMBusDeviceRecord(reading: tree.directory, nodes: [node])
    change(&record)
    return record
  }

  @Test func nothingIsInTheWay() throws {
    #expect(try record().obstacle(kernel) { _ in usable } == nil)
  }

  /// Nobody asks the host for subchannels where signalling it while one comes ends the kernel.
  @Test func aDeviceWithoutMonitorHasItsPrimaryChannelAlone() async throws {
    let monitored = UIODevice(
      try record { $0.monitor = MonitorID(1) }, on: LinuxMachine(), UIODriver())
    let called = UIODevice(try record { $0.monitor = nil }, on: LinuxMachine(), UIODriver())
    #expect(monitored.whyNoSubchannels == nil)
    #expect(called.whyNoSubchannels?.contains("hypercall") == true)
    let workers = try (0..<2).map { try Worker(.init(name: "test-\($0)", spinRounds: 0)) }
    #expect(Device(monitored, workers: workers).workers.count == 2)
    #expect(Device(called, workers: workers).workers.count == 1)
    await #expect(throws: TransportError.noSubchannels) {
      _ = try await called.openSubchannel(1, ChannelParameters(), worker: workers[0])
    }
    for worker in workers { worker.stop() }
  }

  @Test func theModuleComesFirst() throws {
    let bare = KernelFacts(release: kernel.release, drivers: ["hv_storvsc"])
    let record = try record { $0.driver = nil }
    #expect(
      try record.obstacle(bare) { _ in usable } == .binding(.notLoaded(driver: UIODriver.name)))
  }

  @Test func boundToAnother() throws {
    let record = try record { $0.driver = "hv_storvsc" }
    let obstacle = try record.obstacle(kernel) { _ in usable }
    #expect(
      obstacle
        == .binding(
          .boundTo(driver: "hv_storvsc", record.instance, wanted: UIODriver.name)))
    #expect(obstacle?.remedy.contains("\(SysfsTree.instance)/driver/unbind") == true)
  }

  @Test func unbound() throws {
    let record = try record { $0.driver = nil }
    #expect(
      try record.obstacle(kernel) { _ in usable }
        == .binding(.unbound(record.instance, driver: UIODriver.name)))
  }

  /// Only an unmonitored channel that somebody tried to bind, on a kernel that refuses those.
  @Test func anOldKernelRefusesAChannelWithoutMonitor() throws {
    let old = KernelFacts(release: KernelRelease(6, 9), drivers: [UIODriver.name])
    let refused = try record { $0.driver = nil }
    #expect(
      try refused.obstacle(old) { _ in usable } == .refusedByKernel(KernelRelease(6, 9)))
    let monitored = try record {
      $0.driver = nil
      $0.monitor = MonitorID(3)
    }
    #expect(
      try monitored.obstacle(old) { _ in usable }
        == .binding(.unbound(monitored.instance, driver: UIODriver.name)))
    let notAsked = try record {
      $0.driver = nil
      $0.driverOverride = nil
    }
    #expect(
      try notAsked.obstacle(old) { _ in usable }
        == .binding(.unbound(notAsked.instance, driver: UIODriver.name)))
  }

  @Test func noUIODeviceOrTwo() throws {
    let none = try record { $0.nodes = [] }
    #expect(try none.obstacle(kernel) { _ in usable } == .noUIODevice(none.instance))
    let two = try record { record in
      record.nodes.append(node)
      record.nodes[1].name = "uio1"
    }
    #expect(try two.obstacle(kernel) { _ in usable } == .severalUIODevices(["uio0", "uio1"]))
  }

  @Test func mapsOfAnotherDriver() throws {
    let record = try record { $0.nodes[0].maps[1].name = "registers" }
    #expect(
      try record.obstacle(kernel) { _ in usable }
        == .wrongLayout(
          node: "/dev/uio0", .name(map: 1, found: "registers", expected: "int_page")))
  }

  @Test func theNode() throws {
    let record = try record()
    #expect(try record.obstacle(kernel) { _ in nil } == .binding(.noNode("/dev/uio0")))
    let forbidden = NodeFacts(mode: 0o640, owner: 0, group: 107, isAccessible: false)
    let obstacle = try record.obstacle(kernel) { _ in forbidden }
    #expect(
      obstacle
        == .binding(
          .noPermission(node: "/dev/uio0", mode: 0o640, owner: 0, group: 107, subsystem: "uio")))
    #expect(
      obstacle?.description == "no permission on /dev/uio0 (mode 640, user 0, group 107)")
    let locked = NodeFacts(mode: 0o600, owner: 0, group: 0, isAccessible: true, lockedBy: 812)
    #expect(
      try record.obstacle(kernel) { _ in locked }
        == .binding(.locked(node: "/dev/uio0", process: 812)))
  }

  @Test func aChannelThatIsOpenWithoutALockIsSomebodyElses() throws {
    var record = try record { $0.state = .opened }
    #expect(try record.obstacle(kernel) { _ in usable } == .openAlready(record.instance))
    record.state = .closed
    #expect(try record.obstacle(kernel) { _ in usable } == nil)
  }
}
