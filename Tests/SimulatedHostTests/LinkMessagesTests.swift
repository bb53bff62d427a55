// SPDX-License-Identifier: Apache-2.0

import SimulatedLink
import Testing
import VMBus

/// The layouts of the socket's calls, by hand: guest and host may be of different builds.
@Suite struct LinkMessagesTests {
  @Test func join() {
    var join = LinkJoin()
    join.isolation = .paravisor
    join.boundaryBit = 46
    join.processorCount = 3
    join.regionCount = 2
    join.fileCount = 1
    join.vtl = 2
    join.hasHostInterrupts = 1
    #expect(
      join.wireBytes == [
        0x56, 0x4D, 0x53, 0x4C, 1, 0, 2, 46, 3, 0, 2, 0, 1, 0, 2, 1,
      ])
  }

  @Test func region() {
    var region = LinkRegion()
    region.firstPage = 0x10_0000
    region.pageCount = 0x200
    region.fileOffset = 0x3000
    region.file = 1
    region.isEncrypted = 1
    region.startsPrivate = 1
    #expect(
      region.wireBytes == [
        0, 0, 0x10, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0,
        0, 0x30, 0, 0, 0, 0, 0, 0, 1, 0, 1, 1, 0, 0, 0, 0,
      ])
  }

  @Test func visibility() {
    var change = LinkVisibility()
    change.firstPage = 0x4_0000_0001
    change.pageCount = 512
    change.isHostVisible = 1
    #expect(
      change.wireBytes == [
        1, 0, 0, 0, 4, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0,
      ])
  }

  @Test func pageHypercallAndLeaf() {
    var page = LinkPage()
    (page.processor, page.page) = (7, 0x1234)
    #expect(page.wireBytes == [7, 0, 0, 0, 0, 0, 0, 0, 0x34, 0x12, 0, 0, 0, 0, 0, 0])
    var call = LinkHypercall()
    (call.input, call.parameter) = (0x5C, 0x2000)
    #expect(call.wireBytes == [0x5C, 0, 0, 0, 0, 0, 0, 0, 0, 0x20, 0, 0, 0, 0, 0, 0])
    let leaf = LinkLeaf(CPUIDLeaf(eax: 1, ebx: 0x0200_0000, ecx: 3, edx: 4))
    #expect(leaf.wireBytes == [1, 0, 0, 0, 0, 0, 0, 2, 3, 0, 0, 0, 4, 0, 0, 0])
  }
}
