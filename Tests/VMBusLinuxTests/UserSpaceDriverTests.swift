// SPDX-License-Identifier: Apache-2.0

import LinuxTestSupport
import TestSupport
import Testing
import VMBus

@testable import VMBusLinux

/// Which of two drivers a device is for: `best`, or `usual`, which every kernel has.
@Suite struct UserSpaceDriverTests {
  static let names = ["best", "usual"]
  static let none: String? = nil

  /// Bound to, wanted by driver_override, loaded, and the answer.
  @Test(arguments: [
    ("usual", "usual", ["best", "usual"], "usual"),
    ("best", none, ["best", "usual"], "best"),
    // Who has it counts more than who should.
    ("usual", "best", ["best", "usual"], "usual"),
    ("hv_storvsc", none, ["best", "usual", "hv_storvsc"], "best"),
    ("hv_storvsc", "usual", ["best", "usual", "hv_storvsc"], "usual"),
    (none, "best", ["usual"], "best"),
    (none, none, ["usual"], "usual"),
    (none, none, ["best"], "best"),
    // With nothing loaded, what can be had everywhere.
    (none, "hv_storvsc", [], "usual"),
  ])
  func isChosen(
    _ driver: String?, _ override: String?, _ loaded: [String], _ chosen: String
  ) throws {
    let tree = try SysfsTree.controller()
    var record = try VMBusDeviceRecord(reading: tree.directory, nodes: [])
    record.driver = driver
    record.driverOverride = override
    let place = record.driver(among: Self.names, loaded: Set(loaded))
    #expect(place.map { Self.names[$0] } == chosen)
  }

  @Test func amongNoneIsNone() throws {
    let tree = try SysfsTree.controller()
    let record = try VMBusDeviceRecord(reading: tree.directory, nodes: [])
    #expect(record.driver(among: [], loaded: ["usual"]) == nil)
  }
}
