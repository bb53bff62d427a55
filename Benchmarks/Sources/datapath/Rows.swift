// SPDX-License-Identifier: Apache-2.0

import Dispatch
import StorageVSC
import VSC

/// The rows of the table of memories, as `scripts/bench` counts instructions for them. Data that has to be
/// bounced is copied between a private buffer and the device's; else it stays where the device put it.
enum Row: String, CaseIterable {
  case plain
  case bounced
  case ring
  case encrypted

  var confidentiality: Confidentiality {
    switch self {
    case .plain, .bounced: .hostVisible
    case .ring: .ring
    case .encrypted: .ringAndExternalMemory
    }
  }

  func makeDevice() throws -> HeapDevice {
    try HeapDevice(.event, confidentiality, isIsolated: self != .plain)
  }
}

/// `plain-read-4`, for requests of 4 KiB, and so on.
var rowPaths: [(name: String, run: (Int) throws -> Void)] {
  Row.allCases.flatMap { row in
    [4, 256].flatMap { kilobytes in
      [false, true].map { isWrite in
        (
          "\(row)-\(isWrite ? "write" : "read")-\(kilobytes)",
          { count in try runRow(row, count, byteCount: kilobytes << 10, isWrite: isWrite) }
        )
      }
    }
  }
}

/// `copy-4`, for bare copies of 4 KiB: what the bounces are measured by.
var copyPaths: [(name: String, run: (Int) throws -> Void)] {
  [4, 256].map { kilobytes in ("copy-\(kilobytes)", { count in runCopies(count, kilobytes << 10) })
  }
}

private func runCopies(_ count: Int, _ byteCount: Int) {
  let from = UnsafeMutableRawPointer.allocate(byteCount: byteCount, alignment: 4096)
  let to = UnsafeMutableRawPointer.allocate(byteCount: byteCount, alignment: 4096)
  unsafe from.initializeMemory(as: UInt8.self, repeating: 1, count: byteCount)
  for _ in 0..<count { unsafe to.copyMemory(from: from, byteCount: byteCount) }
  unsafe from.deallocate()
  unsafe to.deallocate()
}

private func runRow(_ row: Row, _ count: Int, byteCount: Int, isWrite: Bool) throws {
  let worker = try Worker(.init(name: "datapath", spinRounds: 0))
  let device = try row.makeDevice()
  let owner = Device(device, workers: [worker])
  let done = DispatchSemaphore(value: 0)
  try blocking { started in
    let driver = RowVSC(
      host: device, count: count, byteCount: byteCount, isWrite: isWrite, done: done)
    try await driver.start(owner)
    started.signal()
  }
  done.wait()
  worker.stop()
}

private struct RowVSC: VSC {
  static var deviceClass: DeviceClass { .scsi }
  let host: HeapDevice
  let count: Int
  let byteCount: Int
  let isWrite: Bool
  let done: DispatchSemaphore

  func start<Ring: Visibility, External: Visibility>(
    _ channel: consuming sending Channel<Ring, External>, of device: Device, on worker: Worker
  ) async throws {
    var pool: DMAPool<External> = try device.makePool(count: 33, byteCount: byteCount)
    guard let answer = pool.take() else { throw WrongPacket() }
    let queue = StorageQueue(
      channel, StorageQueue<Ring, External>.Configuration(depth: 32), answer: answer)
    let path = RowPath(
      queue: queue, pool: pool, host: try HeapHost(host), count: count, byteCount: byteCount,
      isWrite: isWrite)
    _ = worker.attach(path) { done.signal() }
  }
}

@safe
private struct RowPath<Ring: Visibility, External: Visibility>: Pollable, ~Copyable {
  var queue: StorageQueue<Ring, External>
  var pool: DMAPool<External>
  var host: HeapHost
  let application: UnsafeMutableRawPointer
  let count: Int
  let byteCount: Int
  let isWrite: Bool
  let isBounced: Bool
  /// COMPLETE_IO, SRB status success, all bytes moved (@24).
  var answer = InlineArray<64, UInt8>(repeating: 0)
  var sent = 0
  var received = 0

  init(
    queue: consuming StorageQueue<Ring, External>, pool: consuming DMAPool<External>,
    host: consuming HeapHost, count: Int, byteCount: Int, isWrite: Bool
  ) {
    unsafe application = .allocate(byteCount: byteCount, alignment: 4096)
    unsafe application.initializeMemory(as: UInt8.self, repeating: 1, count: byteCount)
    isBounced = pool.isBounced
    self.queue = queue
    self.pool = pool
    self.host = host
    self.count = count
    self.byteCount = byteCount
    self.isWrite = isWrite
    (answer[0], answer[12], answer[14]) = (1, 52, 1)
    (answer[25], answer[26]) = (
      UInt8(truncatingIfNeeded: byteCount >> 8), UInt8(truncatingIfNeeded: byteCount >> 16)
    )
  }

  deinit { unsafe application.deallocate() }

  @_specialize(where Ring == HostVisible, External == HostVisible)
  @_specialize(where Ring == Encrypted, External == HostVisible)
  @_specialize(where Ring == Encrypted, External == Encrypted)
  mutating func poll(budget: Int) -> Int? {
    do {
      guard queue.isReady else {
        _ = queue.next()
        queue.publish()
        try host.answerStartUp()
        if let failure = queue.failure { throw failure }
        return 1
      }
      try send()
      let answer = answer
      _ = try host.answerAll(unsafe answer.span.bytes)
      let work = try receive()
      queue.publish()
      return received == count ? nil : work
    } catch {
      fail("\(error)")
    }
  }

  @inline(__always)
  private mutating func send() throws {
    while sent < count, !queue.isFull, let taken = pool.take() {
      var buffer = Optional(taken)
      let block = UInt64(sent & 0xFF) &* 512
      if isWrite {
        if isBounced {
          buffer?.copyIn(unsafe RawSpan(_unsafeStart: application, byteCount: byteCount))
        }
        try queue.write(
          at: block, blockCount: byteCount >> 9, from: &buffer, tag: UInt64(sent))
      } else {
        try queue.read(at: block, blockCount: byteCount >> 9, into: &buffer, tag: UInt64(sent))
      }
      sent &+= 1
    }
    queue.publish()
  }

  @inline(__always)
  private mutating func receive() throws -> Int {
    var work = 0
    while var completion = queue.next() {
      guard case .success(byteCount) = completion.result else { throw WrongPacket() }
      if isBounced, !isWrite {
        var target = unsafe MutableRawSpan(_unsafeStart: application, byteCount: byteCount)
        completion.buffer?.moveOut(from: 0, into: &target)
      }
      received &+= 1
      work &+= 1
    }
    return work
  }

  mutating func arm() -> Bool {
    _ = queue.arm()
    return true
  }

  mutating func disarm() { queue.disarm() }
}
