// SPDX-License-Identifier: Apache-2.0

import SimulatedHost
import StorageProtocol
import Testing

@Suite struct StorageFaultTextTests {
  @Test(arguments: [
    ("busy", StorageFault(.device(.busy), count: 1)),
    ("hold:commands=read", StorageFault(.hold, commands: .read, count: 1)),
    ("queue-full:count=7", StorageFault(.device(.queueFull), count: 7)),
    (
      "medium:blocks=8-9:after=2:count=3",
      StorageFault(
        .sense(.unrecoveredRead), commands: [.read, .write], blocks: 8...9, after: 2, count: 3)
    ),
    (
      "sense=b/4b/0:commands=read+flush",
      StorageFault(
        .sense(SCSISense(key: .abortedCommand, code: 0x4B)), commands: [.read, .flush], count: 1)
    ),
    ("srb=0e:blocks=4", StorageFault(.request(.busReset), blocks: 4...4, count: 1)),
    (
      "overstate=4096:commands=unmap+write+other",
      StorageFault(.overstate(4096), commands: [.write, .other, .unmap], count: 1)
    ),
  ])
  func whatIsRead(_ pair: (String, StorageFault)) { #expect(StorageFault(pair.0) == pair.1) }

  @Test(arguments: [
    "", "busy=1", "medium=3", "sense", "sense=3/11", "sense=10/0/0", "sense=3/100/0", "srb=40",
    "srb=", "overstate=-1", "overstate=4294967296", "busy:blocks=9-8", "busy:blocks=1-2-3",
    "busy:blocks=", "busy:after=-1", "busy:count=x", "busy:commands=", "busy:commands=read+seek",
    "busy:ms=3", "busy:", "drop", "hold=1",
  ])
  func whatIsNot(_ text: String) { #expect(StorageFault(text) == nil) }

  @Test func faultsWaitAndEnd() throws {
    let bench = try StorageBench()
    let fault = try #require(StorageFault("overstate=4096:commands=read:after=1:count=1"))
    bench.controller.withFaults(lun: 0) { $0.inject(fault) }
    let read = Command(SCSIDiskTests.read16(0, 1), room: 512)
    #expect(read.run(on: bench).request.transferLength == 512)
    let lying = read.run(on: bench)
    #expect(lying.isGood && lying.request.transferLength == 4608)
    #expect(read.run(on: bench).request.transferLength == 512)
  }

  @Test func versions() {
    #expect(StorageVersion("5.1") == .windows8)
    #expect(StorageVersion("6.2") == .windows10)
    #expect(StorageVersion("2.0") == .windowsVista)
    #expect(StorageVersion("7.0") == nil)
  }
}
