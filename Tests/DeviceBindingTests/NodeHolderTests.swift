// SPDX-License-Identifier: Apache-2.0

import LinuxDevices
import TestSupport
import Testing

@testable import DeviceBinding

@Suite struct NodeHolderTests {
  private func holders(_ tree: SysfsTree) throws -> [NodeHolder] {
    try NodeHolder.holders(of: "\(tree.path)/dev/uio0", SystemPaths(below: tree.path))
  }

  @Test func whoHasItOpenOrMapped() throws {
    let tree = try SysfsTree()
    let node = "\(tree.path)/dev/uio0"
    try tree.write([
      "dev/uio0": "", "dev/uio1": "", "proc/7/comm": "opener", "proc/8/comm": "mapper",
      "proc/8/maps":
        "00400000-00452000 r-xp 00000000 08:02 173521 /usr/bin/x\n7f00-7f40 rw-s 00000000 00:05 87 \(node)",
      "proc/9/maps": "7f00-7f40 rw-s 00000000 00:05 87 \(node)1", "proc/self/comm": "me",
      "proc/7/cgroup": "0::/user.slice/user-0.slice/session-3.scope",
    ])
    try tree.link("proc/7/fd/3", to: "/dev/null")
    try tree.link("proc/7/fd/4", to: node)
    try tree.link("proc/9/fd/4", to: "\(tree.path)/dev/uio1")
    try tree.link("proc/10/fd/4", to: "/nowhere")
    let found = try holders(tree)
    #expect(
      found == [NodeHolder(process: 7, name: "opener"), NodeHolder(process: 8, name: "mapper")])
    #expect(found.first?.remedy == "kill 7")
  }

  @Test func aNodeThatIsNotThereIsNobodys() throws {
    #expect(try holders(SysfsTree()).isEmpty)
  }

  /// On the machine that this runs on.
  @Test func aDeviceIsKnownByItsNumber() throws {
    let tree = try SysfsTree()
    try tree.link("dev/uio0", to: "/dev/zero")
    try tree.link("proc/7/fd/3", to: "/dev/zero")
    try tree.link("proc/8/fd/3", to: "/dev/null")
    #expect(try holders(tree).map(\.process) == [7])
  }
}
