// SPDX-License-Identifier: Apache-2.0

import BalloonProtocol
import BalloonVSC
import SimulatedBus
import SimulatedHost
import Testing
import VSC

/// The dynamic memory driver and a host, joined as two processes would be.
@Suite(.timeLimit(.minutes(10))) struct BalloonOverBusTests {
  static let instance: GUID = "8d1f6a2e-59a6-4a4f-93b7-5f60c0e1a005"

  @Test func reportsArrive() async throws {
    let vsp = BalloonVSP(instance: Self.instance)
    let bed = try await BalloonBed(vsp)
    try await bed.start { $0.takesMemory = false }
    try await bed.wait { vsp.record.reports >= 3 }
    let record = vsp.record
    #expect(record.version == .v2_0)
    #expect(record.capabilities == [])
    #expect(record.violations == [])
    let memory = try SystemMemory.now()
    let report = try #require(record.lastReport)
    #expect(report.available > 0)
    #expect(report.available <= memory.total)
    #expect(report.committed > 0)
    let status = bed.told.status
    #expect(status.protocolVersion == "2.0")
    #expect(status.reportsSent >= 3)
    #expect(bed.told.events.first == .ready)
    await bed.close()
    #expect(bed.told.events.last == .ended(.channel(.ended(.closed))))
  }

  @Test(arguments: [BalloonVersion.v0_3, .v1_0, .v2_0])
  func eachVersionWorks(_ version: BalloonVersion) async throws {
    let vsp = BalloonVSP(instance: Self.instance, newestVersion: version)
    let bed = try await BalloonBed(vsp)
    try await bed.start()
    #expect(bed.told.status.protocolVersion == "\(version)")
    #expect(vsp.record.version == version)
    await bed.close()
  }

  @Test func aHostThatWantsNoReportsGetsNone() async throws {
    let vsp = BalloonVSP(instance: Self.instance, pages: 1, wantsReports: false)
    let bed = try await BalloonBed(vsp)
    try await bed.start { $0.takesMemory = false }
    #expect(bed.told.status.areReportsSuppressed)
    try await Task.sleep(for: .milliseconds(50))
    #expect(vsp.record.reports == 0)
    // And there is no balloon, so no page is asked for.
    #expect(vsp.record.requests == 0)
    await bed.close()
  }

  /// Ends in time, though nobody answers.
  @Test func aSilentHostIsGivenUp() async throws {
    let bed = try await BalloonBed(ScriptedBalloonVSP(accepts: -1, []))
    await #expect(throws: BalloonError.timedOut(.versionRequest)) {
      try await bed.start { $0.answerTimeout = 20_000_000 }
    }
    await bed.close()
  }

  @Test func aHostWithoutACommonVersionIsRefused() async throws {
    let vsp = ScriptedBalloonVSP(accepts: 3, [])
    let bed = try await BalloonBed(vsp)
    await #expect(throws: BalloonError.noCommonVersion) { try await bed.start() }
    #expect(
      vsp.received.map { Array($0[8..<13]) } == [
        [0, 0, 2, 0, 0], [0, 0, 1, 0, 0], [3, 0, 0, 0, 1],
      ])
    await bed.close()
  }

  // MARK: - Hostile hosts

  @Test func nonsenseIsCountedAndTheChannelGoesOn() async throws {
    let vsp = ScriptedBalloonVSP([
      // Longer than its packet; unknown; a second version response; what only guests send.
      [6, 0, 99, 0, 0, 0, 0, 0], [77, 0, 8, 0, 0, 0, 0, 0], [2, 0, 16, 0] + zeros(12),
      [5, 0, 48, 0] + zeros(44),
      // Four thousand million ranges.
      [8, 0, 16, 0] + zeros(8) + [255, 255, 255, 255],
      // Hot-add, and the host's own trouble.
      [10, 0, 16, 0] + zeros(12), [0, 0, 8, 0] + zeros(4),
      // Every page that there can be, which the balloon does not have.
      [8, 0, 24, 0] + zeros(8) + [1, 0, 0, 0] + [0, 0, 0, 0, 0, 255, 255, 255],
      [12, 0, 32, 0] + zeros(8) + [16, 0, 0, 0] + zeros(4) + [8, 0, 0, 0, 0, 0, 4, 0, 0, 0, 0, 0],
    ])
    let bed = try await BalloonBed(vsp)
    try await bed.start { $0.takesMemory = false }
    try await bed.wait { bed.told.status.hostMaximumPages != nil }
    let status = bed.told.status
    #expect(status.malformedMessages == 2)
    #expect(status.unknownMessages == 1)
    #expect(status.unexpectedMessages == 2)
    #expect(status.hostErrors == 1)
    #expect(status.refusedHotAdds == 1)
    #expect(status.foreignPages == 0xFF_FFFF)
    #expect(status.returnedPages == 0)
    #expect(status.hostMaximumPages == 0x4_0000)
    try await bed.wait { vsp.received.count == 4 }
    #expect(vsp.received.map(\.first) == [1, 3, 11, 9])
    #expect(vsp.received[2].suffix(8) == [0, 0, 0, 0, 1, 0, 0, 0])
    let sent = status.reportsSent
    try await bed.wait { bed.told.status.reportsSent > sent }
    await bed.close()
  }

  @Test func withoutMemoryARequestIsAnsweredWithNoPage() async throws {
    let vsp = ScriptedBalloonVSP([[6, 0, 16, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0]])
    let bed = try await BalloonBed(vsp)
    try await bed.start { $0.takesMemory = false }
    try await bed.wait { vsp.received.count == 3 }
    #expect(vsp.received.last?.first == 7)
    #expect(vsp.received.last?.suffix(8) == [0, 0, 0, 0, 0, 0, 0, 0])
    try await bed.wait { bed.told.status.refusedRequests == 1 }
    #expect(bed.told.status.partialAnswers == 1)
    #expect(
      bed.told.events.contains(.inflated(requestedPages: 512, givenPages: 0)))
    await bed.close()
  }

  @Test func aRescindedDeviceEndsTheDriver() async throws {
    let host = try SimulatedHost(path: socketPath("balloon"))
    let id = host.add(BalloonVSP(instance: Self.instance))
    let bus = try await SimulatedBus.connect(path: host.path)
    let worker = try Worker(.init(name: "balloon"))
    let device = Device(try #require(bus.devices.first), workers: [worker])
    let ended = Promise<BalloonError>()
    let driver = BalloonVSC { event, _ in
      if case .ended(let error) = event { ended.keep(error) }
    }
    try await driver.start(device)
    host.revoke(id)
    #expect(await ended.value() == .channel(.ended(.rescinded)))
    worker.stop()
    await device.close()
    await bus.disconnect()
    host.stop()
  }

  // MARK: - Memory

  /// There and back. 1029 pages are two huge ones and five.
  @Test(.enabled("needs CAP_SYS_ADMIN and io_uring") { await canBalloon() })
  func pagesGoThereAndBack() async throws {
    let vsp = BalloonVSP(instance: Self.instance, pages: 1029)
    let bed = try await BalloonBed(vsp)
    try await bed.start()
    try await bed.wait { vsp.record.balloonedPages == 1029 }
    #expect(vsp.record.capabilities.contains(.balloon))
    try await bed.wait { bed.told.status.balloonedPages == 1029 }
    // A part, which may cut a huge page, and the rest.
    vsp.unballoon(700)
    try await bed.wait { vsp.record.unballoons == 1 }
    #expect(vsp.record.balloonedPages == 329)
    try await bed.wait { bed.told.status.balloonedPages == 329 }
    vsp.unballoon(.max)
    try await bed.wait { vsp.record.unballoons == 2 }
    try await bed.wait { bed.told.status.balloonedPages == 0 }
    let status = bed.told.status
    #expect(status.returnedPages == 1029)
    #expect(status.foreignPages == 0)
    #expect(status.heldPages == 0)
    #expect(status.hugePages == 0)
    #expect(status.partialAnswers == 0)
    #expect(vsp.record.violations == [])
    // And again.
    vsp.balloon(512)
    try await bed.wait { vsp.record.balloonedPages == 512 }
    #expect(vsp.record.violations == [])
    await bed.close()
  }

  /// Asked for 4096 pages, of which 1024 may be had: the host asks again, and gets none.
  @Test(.enabled("needs CAP_SYS_ADMIN and io_uring") { await canBalloon() })
  func theMaximumIsKept() async throws {
    let vsp = BalloonVSP(instance: Self.instance, pages: 4096)
    let bed = try await BalloonBed(vsp)
    try await bed.start { $0.maximumPages = 1100 }
    try await bed.wait { bed.told.status.refusedRequests == 1 }
    let status = bed.told.status
    #expect(status.balloonedPages == 1024)
    #expect(status.balloonRequests == 2)
    #expect(status.partialAnswers == 2)
    #expect(vsp.record.balloonedPages == 1024)
    #expect(vsp.record.violations == [])
    await bed.close()
  }

  @Test func theFloorIsKept() async throws {
    let vsp = ScriptedBalloonVSP([[6, 0, 16, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0]])
    let bed = try await BalloonBed(vsp)
    // More than this machine has.
    try await bed.start { $0.floorPages = 1 << 40 }
    try await bed.wait { bed.told.status.refusedRequests == 1 }
    #expect(bed.told.status.balloonedPages == 0)
    await bed.close()
  }
}
