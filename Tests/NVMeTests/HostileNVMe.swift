// SPDX-License-Identifier: Apache-2.0

import BlockStorage
import Glibc
import NVMeProtocol
import PCIFunction
import Platform
import Synchronization

@testable import NVMe
@testable import VSC

/// The bytes that a hostile controller is made of. What is missing at the end is zero.
struct HostileBytes {
  private let bytes: [UInt8]
  private var position = 0

  init(_ bytes: [UInt8]) { self.bytes = bytes }

  var isEmpty: Bool { position >= bytes.count }

  mutating func next() -> UInt8 {
    defer { position += 1 }
    return position < bytes.count ? bytes[position] : 0
  }

  mutating func word() -> UInt64 { (0..<8).reduce(0) { word, _ in word << 8 | UInt64(next()) } }
}

/// Memory between pages that nobody may touch: one byte too far ends the process, whichever
/// instruction does it.
@safe
final class GuardedMemory: @unchecked Sendable {
  let start: UnsafeMutableRawPointer
  let byteCount: Int
  /// As the device would number them: addresses of this process.
  let numbers: UnsafeMutablePointer<GPN>

  /// - Parameter byteCount: a multiple of 4096.
  init(byteCount: Int) {
    guard
      let all = unsafe mmap(
        nil, byteCount + 8192, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0),
      unsafe all != MAP_FAILED,
      unsafe mprotect(all + 4096, byteCount, PROT_READ | PROT_WRITE) == 0
    else { fatalError("no memory for a test") }
    unsafe start = all + 4096
    self.byteCount = byteCount
    unsafe numbers = .allocate(capacity: byteCount / 4096)
    for page in 0..<byteCount / 4096 {
      unsafe (numbers + page).initialize(
        to: UInt64(UInt(bitPattern: start)) >> 12 + UInt64(page))
    }
  }

  deinit {
    unsafe munmap(start - 4096, byteCount + 8192)
    unsafe numbers.deallocate()
  }

  func clear() { unsafe memset(start, 0, byteCount) }
}

/// A function whose memory has guard pages and whose device is a test's. The memory is made once and used
/// for many inputs: what is asked for again in the same order is the same.
final class HostileFunction: PCIFunction {
  let identity = PCIIdentity(
    address: PCIAddress(bus: 0, device: 1, function: 0), vendor: 0, device: 0, classCode: 0x010802,
    revision: 0, transport: "hostile")
  let bar = GuardedMemory(byteCount: 16384)
  let vectorCount = 1
  var endReason: ChannelEnd? { nil }
  private let memory = Lock<(all: [GuardedMemory], next: Int)>(([], 0))

  func again() {
    memory.withLock { $0.next = 0 }
    bar.clear()
  }

  func open() async throws(PCIError) {}
  func registers(ofBAR index: Int) throws(PCIError) -> PCIRegisters {
    unsafe PCIRegisters(start: bar.start, byteCount: bar.byteCount, owner: bar)
  }
  func readConfiguration(at offset: Int, width: Int) throws(PCIError) -> UInt32 { 0 }
  func writeConfiguration(_ value: UInt32, at offset: Int, width: Int) throws(PCIError) {}
  func setBusMastering(_ isOn: Bool) throws(PCIError) {}
  func reset() async throws(PCIError) {}
  func enableInterrupts(_ workers: [Worker]) throws(PCIError) {}

  func allocate(
    _ visibility: MemoryVisibility, byteCount: Int, _ access: PCIAccess
  ) throws(PCIError) -> DMAPages {
    let found = memory.withLock { memory in
      defer { memory.next += 1 }
      if memory.next < memory.all.count, memory.all[memory.next].byteCount == byteCount {
        return memory.all[memory.next]
      }
      let new = GuardedMemory(byteCount: byteCount)
      memory.all.removeSubrange(min(memory.next, memory.all.count)...)
      memory.all.append(new)
      return new
    }
    found.clear()
    return unsafe DMAPages(
      start: found.start, byteCount: byteCount, pageNumbers: found.numbers, isScrubbed: true,
      owner: found)
  }

  func ended() async -> ChannelEnd { .closed }
  func close() async {}
}

/// The driver's end against a controller that is made of bytes: what must hold whatever they are. A
/// failure ends the process, so that a fuzzer sees it.
///
/// - Returns: completions and register values that the controller gave.
func driveHostile(_ input: [UInt8], _ function: HostileFunction) -> Int {
  var bytes = HostileBytes(input)
  function.again()
  let settings = bytes.next()
  if settings & 3 == 3 { return lookAtRandomData(&bytes, function) }
  do {
    var run = try HostileRun(function, depth: 1 + Int(bytes.next() & 15), settings)
    while !bytes.isEmpty { run.step(&bytes) }
    let given = run.given
    run.finish()
    return given
  } catch {
    fatalError("the memory of a test is refused: \(error)")
  }
}

/// Registers and answers of any content are used or refused.
private func lookAtRandomData(_ bytes: inout HostileBytes, _ function: HostileFunction) -> Int {
  var count = 0
  var data = [UInt8](repeating: 0, count: 540)
  var namespace = [UInt8](repeating: 0, count: 192)
  while !bytes.isEmpty {
    let capabilities = NVMeCapabilities(rawValue: bytes.word())
    let status = NVMeControllerStatus(rawValue: UInt32(truncatingIfNeeded: bytes.word()))
    if status.isReady && status.isGone { fatalError("what is gone is ready") }
    if capabilities.maximumEntries < 1 || capabilities.timeout < 500_000_000 {
      fatalError("capabilities that can't be")
    }
    let number = UInt16(truncatingIfNeeded: bytes.word())
    // Most of these doorbells lie nowhere.
    if let registers = try? function.registers(ofBAR: 0) {
      for offset in [
        NVMeRegister.tail(number, stride: capabilities.doorbellStride),
        NVMeRegister.head(number & 63, stride: capabilities.doorbellStride),
      ] {
        if let doorbell = try? registers.doorbell(at: offset) { doorbell.ring(0) }
      }
    }
    for _ in 0..<8 {
      data[Int(bytes.word() % 540)] = bytes.next()
      namespace[Int(bytes.word() % 192)] = bytes.next()
    }
    if let controller = try? NVMeControllerData(parsing: data),
      let found = try? NVMeNamespaceData(parsing: namespace),
      let disk = try? DiskInformation(
        controller, found, identifier: 1, maximumTransfer: 256 << 10)
    {
      let geometry = disk.geometry
      if geometry.blockByteCount < 512 || geometry.blockByteCount > 4096
        || geometry.maximumTransferByteCount < 4096
        || geometry.maximumTransferByteCount > 256 << 10 || geometry.byteCount > UInt64(Int64.max)
      {
        fatalError("a disk that can't be")
      }
    }
    count += 4
  }
  return count
}

/// A queue, its controller, and what is known of both.
struct HostileRun: ~Copyable {
  private var queue: NVMeQueue
  private var pool: DMAPool<HostVisible>
  private let submissions: GuardedPages
  private let completions: GuardedPages
  private let depth: Int
  private let entries: Int
  private let function: HostileFunction
  private var underWay: Set<UInt64> = []
  private var nextTag: UInt64 = 0
  private(set) var given = 0

  // The controller's side.
  private var read = 0
  private var tail = 0
  private var phase: UInt16 = 1
  /// Commands that were read and not completed, with the page of their data.
  private var commands: [(identifier: UInt16, address: UInt64)] = []
  private var old: [UInt16] = []

  /// Addresses of this process behind a queue's pages.
  @safe
  struct GuardedPages {
    let start: UnsafeMutableRawPointer
  }

  init(_ function: HostileFunction, depth: Int, _ settings: UInt8) throws {
    self.function = function
    self.depth = depth
    let memory = try QueueMemory(function, depth: depth, pageCount: 8)
    let pair = try QueuePair(1, memory, function.registers(ofBAR: 0), stride: 4)
    let pool: DMAPool<HostVisible> = try function.makePool(count: depth, byteCount: 32768)
    entries = memory.entries
    unsafe submissions = GuardedPages(start: memory.submissions.start)
    unsafe completions = GuardedPages(start: memory.completions.start)
    var disk = DiskInformation()
    disk.geometry.blockCount = 1 << 20
    disk.geometry.maximumTransferByteCount = 32768
    queue = NVMeQueue(
      pair, namespace: 1, disk, depth: depth, timeout: 1, takesDescriptors: settings & 4 != 0,
      state: ChannelState())
    self.pool = pool
  }

  mutating func step(_ bytes: inout HostileBytes) {
    let operation = bytes.next()
    switch operation & 15 {
    case 0...3: submit(&bytes)
    case 4: expire()
    case 5 where operation >> 4 == 0: restart()
    default: complete(&bytes)
    }
    pump()
  }

  private mutating func submit(_ bytes: inout HostileBytes) {
    let kind = bytes.next()
    let count = 1 + Int(kind >> 2)
    let tag = nextTag
    guard let taken = pool.take(count * 512) else { return }
    let page = taken.deviceAddress(ofPage: 0)
    var buffer = Optional(taken)
    // Memory that the controller may still write is nobody's (law 3).
    for command in commands where command.address == page {
      fatalError("lent memory was handed out")
    }
    do throws(StorageError) {
      if kind & 1 == 0 {
        try queue.read(at: UInt64(kind), blockCount: count, into: &buffer, tag: tag)
      } else {
        try queue.write(
          at: UInt64(kind), blockCount: count, from: &buffer, tag: tag, forced: kind & 2 == 0)
      }
      underWay.insert(tag)
      nextTag += 1
      queue.publish()
      fetch()
    } catch {
      guard error == .wouldBlock else { fatalError("a request was refused: \(error)") }
      switch buffer {
      case .some: break
      case .none: fatalError("a buffer got lost")
      }
    }
  }

  /// The controller reads what is new.
  private mutating func fetch() {
    let shown = Int(
      unsafe function.bar.start.load(fromByteOffset: 0x1008, as: UInt32.self))
    if shown >= entries { fatalError("a doorbell of no entry") }
    while read != shown {
      let entry = unsafe submissions.start + read * 64
      let identifier = unsafe entry.load(fromByteOffset: 2, as: UInt16.self)
      let address = unsafe entry.load(fromByteOffset: 24, as: UInt64.self)
      for command in commands where command.identifier == identifier {
        fatalError("a command id twice at one time")
      }
      commands.append((identifier, address))
      read = (read + 1) % entries
    }
    if commands.count > depth { fatalError("too many commands") }
  }

  private mutating func complete(_ bytes: inout HostileBytes) {
    let kind = bytes.next()
    var completion = NVMeCompletion()
    completion.result = UInt32(kind)
    completion.head = UInt16(bytes.next())
    completion.queue = 1
    switch kind & 7 {
    case 0...3 where !commands.isEmpty:
      completion.identifier = commands[Int(bytes.next()) % commands.count].identifier
    case 4 where !old.isEmpty: completion.identifier = old[Int(bytes.next()) % old.count]
    case 5:
      completion.identifier = commands.first?.identifier ?? 0
      completion.queue = UInt16(bytes.next())
    default: completion.identifier = UInt16(truncatingIfNeeded: bytes.word())
    }
    let status = kind & 8 == 0 ? 0 : UInt16(bytes.next()) << 8 | UInt16(bytes.next())
    // Now and then one that is not new.
    completion.status = status & 0xFFFE | (kind & 0xF0 == 0xF0 ? phase ^ 1 : phase)
    let entry = unsafe completions.start + tail * 16
    unsafe entry.storeBytes(of: completion.result.littleEndian, as: UInt32.self)
    unsafe entry.storeBytes(of: completion.head.littleEndian, toByteOffset: 8, as: UInt16.self)
    unsafe entry.storeBytes(of: completion.queue.littleEndian, toByteOffset: 10, as: UInt16.self)
    unsafe entry.storeBytes(
      of: completion.identifier.littleEndian, toByteOffset: 12, as: UInt16.self)
    unsafe entry.storeBytes(of: completion.status.littleEndian, toByteOffset: 14, as: UInt16.self)
    given += 1
    guard completion.status & 1 == phase else { return }
    tail += 1
    if tail == entries { (tail, phase) = (0, phase ^ 1) }
    guard completion.queue == 1 else { return }
    for index in commands.indices where commands[index].identifier == completion.identifier {
      commands.swapAt(index, commands.count - 1)
      commands.removeLast()
      if old.count < 64 {
        old.append(completion.identifier)
      } else {
        old[given & 63] = completion.identifier
      }
      return
    }
  }

  private mutating func pump() {
    var count = 0
    while let completion = queue.next() {
      take(completion)
      count += 1
      if count > 1000 { fatalError("completions never end") }
    }
    queue.publish()
    if queue.count > depth || queue.abandoned > queue.count { fatalError("too many requests") }
  }

  private mutating func take(_ completion: borrowing StorageCompletion<HostVisible>) {
    guard underWay.remove(completion.tag) != nil else {
      fatalError("a completion of no request")
    }
    if case .failure(let error) = completion.result, "\(error)".isEmpty {
      fatalError("an error without a text")
    }
    switch completion.buffer {
    case .some(let buffer): if buffer.isLent { fatalError("a buffer that is lent") }
    case .none: break
    }
  }

  private mutating func expire() {
    var count = 0
    while let late = queue.nextExpired(now: .max) {
      switch late.buffer {
      case .some: fatalError("the buffer of a late request")
      case .none: break
      }
      take(late)
      count += 1
      if count > depth { fatalError("late requests never end") }
    }
  }

  /// A reset: the controller has nothing any more.
  private mutating func restart() {
    queue.suspend()
    var ended: [UInt64] = []
    queue.restart { ended.append($0) }
    for tag in ended where underWay.remove(tag) == nil { fatalError("a request that ended twice") }
    if !underWay.isEmpty || queue.count != 0 { fatalError("a request got lost in a reset") }
    commands = []
    (read, tail, phase) = (0, 0, 1)
    unsafe function.bar.start.storeBytes(of: 0, toByteOffset: 0x1008, as: UInt32.self)
    queue.resume()
    if pool.statistics.inUse != 0 || pool.statistics.lost != 0 { fatalError("a buffer got lost") }
  }

  /// The end: nobody is left waiting, and no buffer is missing after a reset.
  consuming func finish() {
    expire()
    if !underWay.isEmpty { fatalError("a request was never told") }
    restart()
  }
}
