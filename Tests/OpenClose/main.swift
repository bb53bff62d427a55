// SPDX-License-Identifier: Apache-2.0

// Opens and closes the balloon device of this machine in one process, for scripts/vm-test:
//   open-close COUNT   so many times, with its driver; fails when something of the system is left
//   open-close wait    waits until the device, which must be there, has gone and come back

import BalloonVSC
import Footprint
import Glibc
import Platform
import VMBusUIO
import VSC

struct Failure: Error, CustomStringConvertible {
  let description: String
}

func findBalloon(_ bus: UIOBus) throws -> any DeviceTransport {
  guard let found = try bus.devices.first(where: { $0.identity.deviceClass == .balloon }) else {
    throw Failure(description: "there is no balloon device")
  }
  return found
}

/// Returns when the host has accepted the driver, and the channel is closed again.
func openAndClose(_ transport: any DeviceTransport) async throws {
  let worker = try Worker(.init(name: "open-close", spinRounds: 0))
  let device = Device(transport, workers: [worker])
  defer { worker.stop() }
  try await BalloonVSC(.init(takesMemory: false)).start(device)
  worker.stop()
  await device.close()
}

func openAndClose(_ bus: UIOBus, times count: Int) async throws {
  // What is made once and stays is made before the count.
  for _ in 0..<2 { try await openAndClose(findBalloon(bus)) }
  let before = try Footprint(threads: "open-close")
  for _ in 0..<count { try await openAndClose(findBalloon(bus)) }
  let after = try Footprint(threads: "open-close")
  print("\(count) times; before: \(before); after: \(after)")
  guard before == after else { throw Failure(description: "something is left") }
}

func waitForIt(_ bus: UIOBus) async throws {
  let instance = try findBalloon(bus).identity.instance
  print("waiting")
  fflush(nil)
  while try findBalloon(bus).obstacle == nil { try await Task.sleep(for: .milliseconds(20)) }
  guard let device = try await bus.comesBack(instance) else {
    throw Failure(description: "the wait was cancelled")
  }
  try await openAndClose(device)
  print("it came back, and was opened")
}

do {
  let bus = UIOBus()
  switch CommandLine.arguments.dropFirst().first {
  case "wait": try await waitForIt(bus)
  case let count?: try await openAndClose(bus, times: Int(count) ?? 1)
  case nil: throw Failure(description: "usage: open-close COUNT | wait")
  }
} catch {
  print("open-close: \(error)")
  exit(1)
}
