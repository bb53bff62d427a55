// SPDX-License-Identifier: Apache-2.0

import Footprint
import SimulatedBus
import SimulatedHost
import Testing
import VSC

@Suite(.timeLimit(.minutes(10))) struct OpenCloseTests {
  /// In a process of its own: nobody else opens files there.
  @Test func aThousandOpensAndClosesLeaveNothingBehind() async {
    await #expect(processExitsWith: .success) { try await openAndCloseAThousandTimes() }
  }
}

private func openAndCloseAThousandTimes() async throws {
  let host = try SimulatedHost(path: socketPath())
  host.add(EchoVSP())
  let bus = try await SimulatedBus.connect(path: host.path)
  // What is made once and stays is made before the count.
  for _ in 0..<10 { try await openAndClose(bus) }
  let before = try Footprint(threads: "open-close")
  for _ in 0..<1000 { try await openAndClose(bus) }
  var after = try Footprint(threads: "open-close")
  // The last ones of both sides are given back by threads of their own.
  for _ in 0..<100 where !after.isWithin(before) {
    try await Task.sleep(for: .milliseconds(50))
    after = try Footprint(threads: "open-close")
  }
  #expect(after.isWithin(before), "before: \(before); after: \(after)")
  await bus.disconnect()
  host.stop()
}

/// Each time with another worker, as a driver that starts anew has.
private func openAndClose(_ bus: SimulatedBus) async throws {
  let worker = try Worker(.init(name: "open-close"))
  let device = Device(try #require(bus.devices.first), workers: [worker])
  _ = try await countEchoes(of: 8, on: device)
  worker.stop()
  await device.close()
}
