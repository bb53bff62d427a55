// SPDX-License-Identifier: Apache-2.0

import LinuxTestSupport
import TestSupport
import Testing

@testable import VMBusLinux

@Suite struct NodeFactsTests {
  let locks = """
    1: POSIX  ADVISORY  READ  501 00:05:87 128 128
    2: FLOCK  ADVISORY  WRITE 1234 00:05:88 0 EOF
    2: -> FLOCK  ADVISORY  WRITE 1235 00:05:88 0 EOF
    3: FLOCK  MANDATORY READ 77 fe:1a:88 0 EOF
    4: broken
    """

  @Test func aLockIsFoundByDeviceAndInode() {
    #expect(LockTable.holder(of: .init(major: 0, minor: 5, inode: 88), in: locks) == 1234)
    #expect(LockTable.holder(of: .init(major: 0xFE, minor: 0x1A, inode: 88), in: locks) == 77)
  }

  @Test func otherLocksDoNotCount() {
    #expect(LockTable.holder(of: .init(major: 0, minor: 5, inode: 87), in: locks) == nil)
    #expect(LockTable.holder(of: .init(major: 0, minor: 5, inode: 89), in: locks) == nil)
    #expect(LockTable.holder(of: .init(major: 0, minor: 5, inode: 88), in: "") == nil)
  }

  @Test func aFileOfOurOwn() throws {
    let tree = try SysfsTree()
    try tree.write(["node": ""])
    let facts = try #require(try NodeFacts(ofNode: "\(tree.path)/node"))
    #expect(facts.isAccessible)
    #expect(facts.lockedBy == nil)
    #expect(try NodeFacts(ofNode: "\(tree.path)/other") == nil)
  }
}
