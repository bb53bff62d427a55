// SPDX-License-Identifier: Apache-2.0

import CUserVSC
import LinuxTestSupport
import TestSupport
import Testing
import VMBus

@testable import VMBusKernel
@testable import VMBusLinux

@Suite struct ModuleObstacleTests {
  let kernel = KernelFacts(release: KernelRelease(6, 12), drivers: ["hv_uservsc"])
  let usable = NodeFacts(mode: 0o600, owner: 0, group: 0, isAccessible: true)
  static let node = "/dev/vmbus/\(SysfsTree.instance)"

  /// A device that is bound to the module, and what a test does to it.
  private func record(_ change: (inout VMBusDeviceRecord) -> Void = { _ in }) throws
    -> VMBusDeviceRecord
  {
    let tree = try SysfsTree.controller()
    var record = try VMBusDeviceRecord(reading: tree.directory, nodes: [])
    record.driver = "hv_uservsc"
    change(&record)
    return record
  }

  private func facts(
    ring: UInt32 = 1, external: UInt32 = 1
  ) throws -> ModuleProbe {
    .facts(
      try ModuleFacts(
        ModuleFactsTests.info { $0.external_visibility = external },
        ModuleChannel(channel: 9, ring: ring)))
  }

  private func obstacle(
    of record: VMBusDeviceRecord, _ node: NodeFacts?, _ probe: ModuleProbe
  ) throws -> ModuleObstacle? {
    try record.obstacle(
      kernel,
      node: { path in
        #expect(path == Self.node)
        return node
      }, probe: { probe })
  }

  @Test func nothingIsInTheWay() throws {
    #expect(try obstacle(of: record(), usable, facts()) == nil)
    #expect(try obstacle(of: record(), usable, facts(ring: 3, external: 2)) == nil)
  }

  @Test func theModuleIsNotLoaded() throws {
    let bare = KernelFacts(release: KernelRelease(6, 12), drivers: ["uio_hv_generic"])
    let record = try record { $0.driver = nil }
    let obstacle = try record.obstacle(
      bare, node: { _ in usable }, probe: { .obstacle(.inUse(node: Self.node)) })
    #expect(obstacle == .binding(.notLoaded(driver: "hv_uservsc")))
    #expect(obstacle?.remedy == "modprobe hv_uservsc")
  }

  @Test func boundToAnotherOrNone() throws {
    let other = try record { $0.driver = "hv_storvsc" }
    let found = try obstacle(of: other, usable, facts())
    #expect(
      found
        == .binding(.boundTo(driver: "hv_storvsc", other.instance, wanted: "hv_uservsc")))
    #expect(found?.remedy?.contains("echo hv_uservsc > ") == true)
    let none = try record { $0.driver = nil }
    #expect(
      try obstacle(of: none, usable, facts())
        == .binding(.unbound(none.instance, driver: "hv_uservsc")))
  }

  @Test func theNode() throws {
    #expect(try obstacle(of: record(), nil, facts()) == .binding(.noNode(Self.node)))
    let forbidden = NodeFacts(mode: 0o600, owner: 0, group: 0, isAccessible: false)
    let found = try obstacle(of: record(), forbidden, facts())
    #expect(
      found?.description == "no permission on \(Self.node) (mode 600, user 0, group 0)")
    #expect(found?.remedy?.contains("SUBSYSTEM==\"hv_uservsc\"") == true)
    let locked = NodeFacts(mode: 0o600, owner: 0, group: 0, isAccessible: true, lockedBy: 812)
    // Whoever has it is told before anybody opens it.
    #expect(
      try obstacle(of: record(), locked, .obstacle(.inUse(node: Self.node)))
        == .binding(.locked(node: Self.node, process: 812)))
  }

  @Test func inUseWithoutALock() throws {
    let found = try obstacle(of: record(), usable, .obstacle(.inUse(node: Self.node)))
    #expect(found == .inUse(node: Self.node))
  }

  @Test func anotherInterface() throws {
    let found = try obstacle(of: record(), usable, .obstacle(.facts(.version(2))))
    #expect(
      found?.description
        == "the kernel module hv_uservsc speaks version 2 of its interface, and this program version 1"
    )
    #expect(found?.remedy?.contains("kmod/") == true)
  }

  @Test func anUnlawfulPair() throws {
    #expect(
      try obstacle(of: record(), usable, facts(ring: 2, external: 3))
        == .facts(.unlawful(ring: .shared, external: .encrypted)))
  }

  /// A file that is no device of the module's.
  @Test func aStrangersNode() {
    #expect(ModuleProbe(node: "/dev/null") == .obstacle(.facts(.otherInterface)))
    guard case .obstacle(.refused(let node, _)) = ModuleProbe(node: "/nowhere") else {
      Issue.record("a node that is not there was opened")
      return
    }
    #expect(node == "/nowhere")
  }
}
