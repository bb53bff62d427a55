// SPDX-License-Identifier: Apache-2.0

import NVMe
import NVMeProtocol
import PCIFunction
import VSC

/// A PCI function whose device is in the same process, in the hands of the path that is measured: its
/// registers and its memory lie on the heap, and its addresses are those of this process.
final class HeapFunction: PCIFunction {
  let identity = PCIIdentity(
    address: PCIAddress(bus: 0, device: 1, function: 0), vendor: 0, device: 0, classCode: 0x010802,
    revision: 0, transport: "heap")
  let memory = HeapPages(byteCount: 16384)
  let vectorCount = 1
  var endReason: ChannelEnd? { nil }

  func open() async throws(PCIError) {}

  func registers(ofBAR index: Int) throws(PCIError) -> PCIRegisters {
    unsafe PCIRegisters(start: memory.start, byteCount: memory.byteCount, owner: memory)
  }

  func readConfiguration(at offset: Int, width: Int) throws(PCIError) -> UInt32 { 0 }
  func writeConfiguration(_ value: UInt32, at offset: Int, width: Int) throws(PCIError) {}
  func setBusMastering(_ isOn: Bool) throws(PCIError) {}
  func reset() async throws(PCIError) {}
  func enableInterrupts(_ workers: [Worker]) throws(PCIError) {}

  func allocate(
    _ memory: MemoryVisibility, byteCount: Int, _ access: PCIAccess
  ) throws(PCIError) -> DMAPages {
    let owner = HeapPages(byteCount: byteCount)
    return unsafe DMAPages(
      start: owner.start, byteCount: byteCount, pageNumbers: owner.numbers, isScrubbed: false,
      owner: owner)
  }

  func ended() async -> ChannelEnd {
    try? await Task.sleep(for: .seconds(1_000_000))
    return .closed
  }

  func close() async {}
}

/// The device's end: a controller with one namespace of 1 GiB and one queue pair, which answers at once
/// and moves no data.
///
/// Safe: the addresses that it is told are those of memory in this process, which the function keeps.
@safe
struct HeapController: ~Copyable {
  @safe
  private struct Pair {
    var submissions: UnsafeMutableRawPointer
    var completions: UnsafeMutableRawPointer
    var entries: Int
    var head = 0
    var tail = 0
    var phase: UInt64 = 1
  }

  private let registers: UnsafeMutableRawPointer
  private var admin: Pair?
  private var pair: Pair?
  private var completionAddress: UInt64 = 0

  init(_ function: HeapFunction) {
    unsafe registers = function.memory.start
    // 4096 entries, half a second, NVM commands.
    unsafe registers.storeBytes(of: 4095 | 1 << 24 | 1 << 37, as: UInt64.self)
  }

  /// Answers all requests of the queue pair. Never inlined, so that its instructions can be told from the
  /// driver's.
  @inline(never)
  mutating func answerAll() -> Int {
    guard var queue = pair else { return 0 }
    let tail = unsafe Int(registers.load(fromByteOffset: 0x1008, as: UInt32.self))
    var count = 0
    while queue.head != tail {
      Self.answer(&queue, queue: 1, result: 0)
      count &+= 1
    }
    pair = queue
    return count
  }

  /// Answers the start-up: registers and the admin queue.
  mutating func answerStartUp() -> Int {
    let configuration = unsafe registers.load(fromByteOffset: 0x14, as: UInt32.self)
    guard configuration & 1 == 1 else {
      unsafe registers.storeBytes(of: 0, toByteOffset: 0x1C, as: UInt32.self)
      return 0
    }
    if admin == nil {
      let attributes = unsafe registers.load(fromByteOffset: 0x24, as: UInt32.self)
      let submissions = unsafe registers.load(fromByteOffset: 0x28, as: UInt64.self)
      let completions = unsafe registers.load(fromByteOffset: 0x30, as: UInt64.self)
      admin = Self.pair(submissions, completions, Int(attributes & 0xFFF) + 1)
      unsafe registers.storeBytes(of: 1, toByteOffset: 0x1C, as: UInt32.self)
    }
    guard var queue = admin else { return 0 }
    let tail = unsafe Int(registers.load(fromByteOffset: 0x1000, as: UInt32.self))
    var count = 0
    while queue.head != tail {
      let result = unsafe administer(queue.submissions + queue.head * 64)
      Self.answer(&queue, queue: 0, result: result)
      count += 1
    }
    admin = queue
    return count
  }

  private static func pair(_ submissions: UInt64, _ completions: UInt64, _ entries: Int) -> Pair? {
    guard let first = unsafe UnsafeMutableRawPointer(bitPattern: UInt(submissions)),
      let second = unsafe UnsafeMutableRawPointer(bitPattern: UInt(completions))
    else { return nil }
    return unsafe Pair(submissions: first, completions: second, entries: entries)
  }

  private static func answer(_ pair: inout Pair, queue: UInt64, result: UInt32) {
    let id = unsafe UInt64(
      (pair.submissions + pair.head * 64).load(fromByteOffset: 2, as: UInt16.self))
    pair.head = pair.head + 1 == pair.entries ? 0 : pair.head + 1
    let entry = unsafe pair.completions + pair.tail * 16
    unsafe entry.storeBytes(of: result, as: UInt32.self)
    let word = UInt64(pair.head) | queue << 16 | id << 32 | pair.phase << 48
    unsafe entry.storeBytes(of: word, toByteOffset: 8, as: UInt64.self)
    pair.tail += 1
    if pair.tail == pair.entries {
      pair.tail = 0
      pair.phase ^= 1
    }
  }

  private mutating func administer(_ entry: UnsafeMutableRawPointer) -> UInt32 {
    let opcode = unsafe entry.load(as: UInt8.self)
    let address = unsafe entry.load(fromByteOffset: 24, as: UInt64.self)
    let word10 = unsafe entry.load(fromByteOffset: 40, as: UInt32.self)
    switch opcode {
    case 0x06:
      guard let target = unsafe UnsafeMutableRawPointer(bitPattern: UInt(address)) else { return 0 }
      if word10 & 0xFF == 1 {
        // Entries of 64 and of 16 bytes, one namespace.
        unsafe target.storeBytes(of: 0x4466, toByteOffset: 512, as: UInt16.self)
        unsafe target.storeBytes(of: 1, toByteOffset: 516, as: UInt32.self)
      } else {
        // 2^21 blocks of 2^9 bytes.
        unsafe target.storeBytes(of: 1 << 21, as: UInt64.self)
        unsafe target.storeBytes(of: 9, toByteOffset: 130, as: UInt8.self)
      }
    case 0x05: completionAddress = address
    case 0x01:
      pair = Self.pair(address, completionAddress, Int(word10 >> 16) + 1)
    default: break
    }
    return 0
  }
}
