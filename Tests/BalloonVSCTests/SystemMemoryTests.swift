// SPDX-License-Identifier: Apache-2.0

import Testing

@testable import BalloonVSC

@Suite struct SystemMemoryTests {
  @Test func meminfoIsReadInPages() {
    let text = """
      MemTotal:        8000000 kB
      MemFree:          100000 kB
      MemAvailable:    4000000 kB
      Committed_AS:     400008 kB
      HugePages_Total:       0
      """
    #expect(
      SystemMemory(meminfo: text)
        == SystemMemory(total: 2_000_000, available: 1_000_000, committed: 100_002))
  }

  @Test(arguments: ["", "MemTotal: x kB\n", "MemTotal: 1 kB\nMemAvailable: 1 kB"])
  func aTextThatLacksSomethingIsRefused(_ text: String) {
    #expect(SystemMemory(meminfo: text) == nil)
  }

  @Test func thisMachineHasMemory() throws {
    let memory = try SystemMemory.now()
    #expect(memory.total > 0)
    #expect(memory.available <= memory.total)
    #expect(memory.committed > 0)
  }

  /// The table of Linux's driver, in MiB.
  @Test(arguments: [
    (16, 16), (32, 24), (128, 72), (512, 168), (2048, 360), (8192, 744), (32768, 1512),
  ])
  func theFloorIsThatOfLinux(_ total: UInt64, _ floor: UInt64) {
    let memory = SystemMemory(total: total * 256, available: 0, committed: 0)
    #expect(memory.defaultFloor == floor * 256)
  }

  @Test(
    arguments: [
      // All of it.
      (1024, 0, 10_000, 1024),
      // The floor leaves 1536 pages: three huge pages.
      (4096, 0, 2600, 1536),
      // Below the floor.
      (512, 0, 1000, 0), (512, 0, 0, 0),
      // 2000 may be held at most.
      (4096, 0, 100_000, 1536), (4096, 1600, 100_000, 0), (300, 1600, 100_000, 300),
      (300, 3000, 100_000, 0),
    ] as [(UInt32, UInt64, UInt64, UInt64)])
  func theOperatorsLimitsHold(
    _ requested: UInt32, _ taken: UInt64, _ available: UInt64, _ allowed: UInt64
  ) {
    let limits = BalloonLimits(floor: 1000, maximum: 2000)
    let memory = SystemMemory(total: 1_000_000, available: available, committed: 0)
    #expect(limits.allowance(requested: requested, taken: taken, memory: memory) == allowed)
  }
}
