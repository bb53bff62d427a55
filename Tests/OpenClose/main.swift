// SPDX-License-Identifier: Apache-2.0

// Opens and closes the balloon device of this machine in one process, for scripts/vm-test:
//   open-close COUNT   so many times, with its driver; fails when something of the system is left
//   open-close memory  takes memory for DMA, and shows where it lies
//   open-close wait    waits until the device, which must be there, has gone and come back

import BalloonVSC
import Footprint
import Glibc
import Platform
import VMBusKernel
import VMBusLinux
import VMBusUIO
import VSC

struct Failure: Error, CustomStringConvertible {
  let description: String
}

func findBalloon(_ bus: LinuxBus) throws -> any DeviceTransport {
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

func openAndClose(_ bus: LinuxBus, times count: Int) async throws {
  // What is made once and stays is made before the count.
  for _ in 0..<2 { try await openAndClose(findBalloon(bus)) }
  // A timer of the system, too.
  try await Task.sleep(for: .milliseconds(1))
  var before = try Footprint(threads: "open-close")
  // What the system makes at some time and keeps is no leak: then a second round has no more.
  for _ in 0..<2 {
    for _ in 0..<count { try await openAndClose(findBalloon(bus)) }
    var after = try Footprint(threads: "open-close")
    // The last worker's descriptors go with the last one who has it, a moment later.
    for _ in 0..<100 where !after.isWithin(before) {
      try await Task.sleep(for: .milliseconds(50))
      after = try Footprint(threads: "open-close")
    }
    print("\(count) times; before: \(before); after: \(after)")
    if after.isWithin(before) { return }
    before = after
  }
  throw Failure(description: "something is left")
}

/// Two pools of 3 MiB: four huge pages. A third one of 64 MiB is more than there is.
func takeMemory(_ bus: LinuxBus) async throws {
  let transport = try findBalloon(bus)
  let first = try transport.allocate(.hostVisible, byteCount: 3 << 20)
  let second = try transport.allocate(.hostVisible, byteCount: 3 << 20)
  var numbers: [GPN] = []
  for pages in [first, second] {
    let count = pages.byteCount / 4096
    for page in 0..<count { numbers.append(unsafe pages.pageNumbers[page]) }
    for page in [0, count - 1] {
      unsafe (pages.start + page * 4096).storeBytes(of: 7, as: UInt64.self)
    }
  }
  let isContiguous = (1..<512).allSatisfy { numbers[$0] == numbers[0] + GPN($0) }
  guard numbers.count == 1536, Set(numbers).count == 1536, !numbers.contains(0),
    numbers[0] % 512 == 0, isContiguous
  else { throw Failure(description: "wrong page numbers: \(numbers)") }
  print("pages 0x\(String(numbers[0], radix: 16)) and 0x\(String(numbers[768], radix: 16))")
  do {
    _ = try transport.allocate(.hostVisible, byteCount: 64 << 20)
    throw Failure(description: "there is more memory than there is")
  } catch let error as TransportError {
    print(error)
  }
  await transport.close()
}

func waitForIt(_ bus: LinuxBus) async throws {
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
  let bus = LinuxBus([KernelModuleDriver(), UIODriver()])
  switch CommandLine.arguments.dropFirst().first {
  case "memory": try await takeMemory(bus)
  case "wait": try await waitForIt(bus)
  case let count?: try await openAndClose(bus, times: Int(count) ?? 1)
  case nil: throw Failure(description: "usage: open-close COUNT | memory | wait")
  }
} catch {
  print("open-close: \(error)")
  exit(1)
}
