// SPDX-License-Identifier: Apache-2.0

import PCIFunction
import Platform
import VMBus
import VSC

struct Failure: Error, CustomStringConvertible {
  let description: String
}

/// The admin queues of an NVMe controller, as far as a test of a transport needs them: one command at a
/// time, whose completion is seen when an interrupt has woken the worker.
@safe
struct AdminQueue: Pollable, ~Copyable, @unchecked Sendable {
  // Sent to its worker once; the memory is the worker's from then on.
  private let memory: DMAPages
  private let submissions: PCIDoorbell
  private let completions: PCIDoorbell
  private var tail = 0
  private var head = 0
  private var phase: UInt32 = 1
  private var waiting: Promise<UInt32>?

  static let entryCount = 16

  /// - Parameter memory: submissions in the first page, completions in the second one.
  init(
    _ memory: DMAPages, submissions: consuming sending PCIDoorbell,
    completions: consuming sending PCIDoorbell
  ) {
    self.memory = memory
    self.submissions = submissions
    self.completions = completions
  }

  /// - Parameters:
  ///   - address: where the device finds its data.
  ///   - done: kept with the status field, 0 for success.
  mutating func submit(
    _ opcode: UInt32, namespace: UInt32 = 0, address: UInt64, _ argument: UInt32,
    _ done: Promise<UInt32>
  ) {
    waiting = done
    var words = [UInt32](repeating: 0, count: 16)
    words[0] = opcode | UInt32(tail) << 16
    words[1] = namespace
    words[6] = UInt32(truncatingIfNeeded: address)
    words[7] = UInt32(truncatingIfNeeded: address >> 32)
    words[10] = argument
    for (index, word) in words.enumerated() {
      // Safe: within the first page.
      unsafe (memory.start + tail * 64 + index * 4).storeBytes(of: word, as: UInt32.self)
    }
    tail = (tail + 1) % Self.entryCount
    submissions.ring(UInt32(tail))
  }

  mutating func poll(budget: Int) -> Int? {
    // Safe: within the second page.
    let status = unsafe (memory.start + 4096 + head * 16 + 12).load(as: UInt32.self)
    guard status >> 16 & 1 == phase, let done = waiting else { return 0 }
    head = (head + 1) % Self.entryCount
    if head == 0 { phase ^= 1 }
    completions.ring(UInt32(head))
    waiting = nil
    done.keep(status >> 17)
    return 1
  }

  /// It does not look once more: an interrupt must tell.
  mutating func arm() -> Bool { false }
  mutating func disarm() {}
}

/// A controller that was started.
final class Controller: Sendable {
  let function: any PCIFunction
  let worker: Worker
  let registers: PCIRegisters
  let memory: DMAPages
  private let queue: WorkerHandle<AdminQueue>

  private enum Register {
    static let capabilities = 0x00
    static let configuration = 0x14
    static let status = 0x1C
    static let queueSizes = 0x24
    static let submissions = 0x28
    static let completions = 0x30
    static let doorbells = 0x1000
  }

  /// Starts an open function's controller, with its interrupts.
  init(_ function: any PCIFunction) async throws {
    self.function = function
    worker = try Worker(.init(name: "probe", spinRounds: 0))
    registers = try function.registers(ofBAR: 0)
    memory = try function.allocate(.hostVisible, byteCount: 4 * 4096, .readWrite)
    let capabilities = try registers.read64(at: Register.capabilities)
    try registers.write32(0, at: Register.configuration)
    try await Self.wait(registers, isReady: false)
    try function.setBusMastering(true)
    try function.enableInterrupts([worker])
    let last = UInt32(AdminQueue.entryCount - 1)
    try registers.write32(last << 16 | last, at: Register.queueSizes)
    try registers.write64(Self.address(memory, page: 0), at: Register.submissions)
    try registers.write64(Self.address(memory, page: 1), at: Register.completions)
    try registers.write32(4 << 20 | 6 << 16 | 1, at: Register.configuration)
    try await Self.wait(registers, isReady: true)
    let stride = 4 << Int(capabilities >> 32 & 0xF)
    queue = worker.attach(
      AdminQueue(
        memory, submissions: try registers.doorbell(at: Register.doorbells),
        completions: try registers.doorbell(at: Register.doorbells + stride)))
  }

  private static func wait(_ registers: PCIRegisters, isReady: Bool) async throws {
    for _ in 0..<1000 {
      let status = try registers.read32(at: Register.status)
      guard status != .max else { throw Failure(description: "the controller is gone") }
      if status & 1 == (isReady ? 1 : 0) { return }
      try await Task.sleep(for: .milliseconds(10))
    }
    throw Failure(description: "the controller does not become \(isReady ? "" : "un")ready")
  }

  static func address(_ memory: DMAPages, page: Int) -> UInt64 {
    // Safe: the pages asked for are within the memory.
    unsafe memory.pageNumbers[page] << 12
  }

  /// Identifies the controller into memory at an address of the device's.
  ///
  /// - Returns: the status, or nil when the function ended or no answer came in time.
  func identify(into address: UInt64) async throws -> UInt32? {
    let done = Promise<UInt32>()
    let sleeps = worker.account.sleeps
    // What is seen has to be seen after a sleep.
    for _ in 0..<200 where sleeps == 0 && worker.account.sleeps == 0 {
      try await Task.sleep(for: .milliseconds(5))
    }
    queue.perform { $0.submit(0x06, address: address, 1, done) }
    for _ in 0..<2000 where !done.isKept {
      if function.endReason != nil { return nil }
      try await Task.sleep(for: .milliseconds(5))
    }
    return done.isKept ? await done.value() : nil
  }

  /// The serial number, by DMA into the memory's third page.
  func serialNumber() async throws -> String? {
    let page = unsafe memory.start + 2 * 4096
    unsafe page.initializeMemory(as: UInt8.self, repeating: 0, count: 4096)
    guard let status = try await identify(into: Self.address(memory, page: 2)) else { return nil }
    guard status & 0x7FFF == 0 else {
      throw Failure(description: "IDENTIFY failed with status 0x\(String(status, radix: 16))")
    }
    // Safe: within the page.
    let bytes = (4..<24).map { unsafe (page + $0).load(as: UInt8.self) }
    let text = String(decoding: bytes, as: UTF8.self)
    return String(text.reversed().drop { $0 == " " }.reversed())
  }

  /// In the order that the framework asks for: first nobody uses the queue, then the function is quiet.
  func close() async {
    worker.stop()
    await function.close()
  }
}
