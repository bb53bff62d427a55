// SPDX-License-Identifier: Apache-2.0

import BlockStorage
import Dispatch
import NVMe
import PCIFunction
import VSC

/// Reads of 4 KiB through the NVMe driver's burst face, on a worker, by the number of them under way.
func runNVMe(_ packets: Int) throws { try runNVMe(packets, depth: 32) }
func runNVMe1(_ packets: Int) throws { try runNVMe(packets, depth: 1) }
func runNVMe256(_ packets: Int) throws { try runNVMe(packets, depth: 256) }
/// The same with requests of 32 KiB, whose pages are told in a list.
func runNVMeList(_ packets: Int) throws { try runNVMe(packets, depth: 32, byteCount: 32768) }

/// Prints what a read of 4 KiB takes in nanoseconds, by the number of them under way: that number, the
/// driver's time, its device's, tab between. Reading the clock is in both.
func runNVMeTimes(_ packets: Int) throws {
  for depth in [1, 32, 256] { try runNVMe(packets, depth: depth, isTimed: true) }
}

private func runNVMe(
  _ packets: Int, depth: Int, byteCount: Int = 4096, isTimed: Bool = false
) throws {
  let worker = try Worker(.init(name: "datapath", spinRounds: 0))
  let function = HeapFunction()
  let device = ControllerPointer(function)
  let ends = DispatchSemaphore(value: 0)
  let startUp = worker.attach(StartUpPath(device: device))
  try blocking { started in
    var configuration = NVMeController.Configuration(depth: depth)
    configuration.bufferByteCount = byteCount
    let controller = try await NVMeController.open(
      function, workers: [worker], configuration)
    let queue = try await controller.makeQueue(0, namespace: 1, depth: depth)
    let pool: DMAPool<HostVisible> = try controller.makePool(
      count: depth + 1, byteCount: byteCount)
    startUp.detach()
    controller.attach(
      NVMePath(
        queue: queue, pool: pool, device: device, packets: packets, blockCount: byteCount / 512,
        isTimed: isTimed),
      to: 0
    ) { ends.signal() }
    started.signal()
    // It stays until the path is over.
    try? await Task.sleep(for: .seconds(1_000_000))
    withExtendedLifetime(controller) {}
  }
  ends.wait()
  worker.stop()
}

/// The device, for both paths: only the worker's thread follows it.
@safe
private struct ControllerPointer: @unchecked Sendable {
  let pointer: UnsafeMutablePointer<HeapController>

  init(_ function: HeapFunction) {
    unsafe pointer = .allocate(capacity: 1)
    unsafe pointer.initialize(to: HeapController(function))
  }
}

private struct StartUpPath: Pollable, ~Copyable {
  let device: ControllerPointer

  init(device: ControllerPointer) { self.device = device }

  mutating func poll(budget: Int) -> Int? { unsafe device.pointer.pointee.answerStartUp() }
  // It looks again each millisecond: a start-up that spins would be counted.
  mutating func arm() -> Bool { false }
  var nextDeadline: UInt64 { MonotonicClock.now() &+ 1_000_000 }
  mutating func disarm() {}
}

private struct NVMePath: Pollable, ~Copyable {
  var queue: NVMeQueue
  var pool: DMAPool<HostVisible>
  let device: ControllerPointer
  let packets: Int
  let blockCount: Int
  let isTimed: Bool
  var sent = 0
  var received = 0
  /// Of the fastest turn: what else the machine does only makes one longer.
  var best = (driver: Double.infinity, device: Double.infinity)

  init(
    queue: consuming NVMeQueue, pool: consuming DMAPool<HostVisible>,
    device: ControllerPointer, packets: Int, blockCount: Int, isTimed: Bool
  ) {
    self.queue = queue
    self.pool = pool
    self.device = device
    self.packets = packets
    self.blockCount = blockCount
    self.isTimed = isTimed
  }

  mutating func poll(budget: Int) -> Int? {
    do {
      let begin = now()
      while sent < packets, !queue.isFull, let taken = pool.take() {
        var buffer = Optional(taken)
        try queue.read(
          at: UInt64(sent & 0xFFFF) &* 8, blockCount: blockCount, into: &buffer,
          tag: UInt64(sent))
        sent &+= 1
      }
      queue.publish()
      let asked = now()
      _ = unsafe device.pointer.pointee.answerAll()
      let answered = now()
      var work = 0
      while let completion = queue.next() {
        guard case .success = completion.result else { throw WrongPacket() }
        received &+= 1
        work &+= 1
      }
      queue.publish()
      if isTimed, work > 0 {
        best.driver = min(best.driver, Double(asked - begin + now() - answered) / Double(work))
        best.device = min(best.device, Double(answered - asked) / Double(work))
        if received == packets { print("\(work)\t\(best.driver)\t\(best.device)") }
      }
      return received == packets ? nil : work
    } catch {
      fail("\(error)")
    }
  }

  func now() -> UInt64 { isTimed ? MonotonicClock.now() : 0 }

  mutating func arm() -> Bool { true }
  mutating func disarm() {}
}
