// SPDX-License-Identifier: Apache-2.0

import Platform
import StorageProtocol
import Synchronization

@testable import StorageVSC
@testable import VMBus
@testable import VSC

typealias HostileQueue = StorageQueue<HostVisible, HostVisible>

/// The driver's end against a host that is made of bytes: what must hold whatever they are. A
/// failure ends the process, so that a fuzzer sees it.
func driveHostile(_ input: [UInt8], _ memory: HostileMemory) -> Int {
  var bytes = HostileBytes(input)
  let settings = bytes.next()
  memory.clear()
  do {
    var host = try HostileHost(memory)
    let channel = try Channel<HostVisible, HostVisible>(
      RawChannel(
        confidentiality: .hostVisible, outgoing: memory.ring(memory.outgoing),
        incoming: memory.ring(memory.incoming),
        trailerCheck: settings & 0x80 == 0 ? .verify : .ignore,
        // Nobody is behind it.
        doorbell: .event(descriptor: -1), state: ChannelState()),
      ChannelParameters(maximumPacketByteCount: 256))
    let pool = DMAPool<HostVisible>(
      memory.pages, bufferByteCount: HostileMemory.bufferByteCount)
    if settings & 1 == 0 {
      drive(HostileRun(channel, pool), settings, &bytes, &host)
    } else {
      drive(HostileServiceRun(channel, pool), settings, &bytes, &host)
    }
    return host.sent
  } catch {
    fatalError("the rings of a test are refused: \(error)")
  }
}

/// One of the driver's ends, as the loop below moves it.
protocol HostileSubject: ~Copyable {
  /// Whether it is still in its start-up, and may go on.
  var isStarting: Bool { get }
  var isOver: Bool { get }
  mutating func pump()
  mutating func act(_ operation: UInt8, _ bytes: inout HostileBytes)
  /// The end: nobody is left waiting.
  consuming func finish()
}

private func drive<Subject: HostileSubject & ~Copyable>(
  _ subject: consuming Subject, _ settings: UInt8, _ bytes: inout HostileBytes,
  _ host: inout HostileHost
) {
  var subject = subject
  // An honest start-up, in three of four inputs.
  if settings & 6 != 0 {
    for _ in 0..<40 where subject.isStarting {
      subject.pump()
      host.receive()
      host.answerStartUp()
    }
  }
  while !bytes.isEmpty, !subject.isOver {
    let operation = bytes.next()
    if operation & 3 == 0 {
      subject.act(operation >> 2, &bytes)
    } else {
      host.act(&bytes)
    }
    subject.pump()
    host.receive()
  }
  subject.finish()
}

/// The burst face.
struct HostileRun: HostileSubject, ~Copyable {
  private var queue: HostileQueue
  private var pool: DMAPool<HostVisible>
  /// Bytes that were asked for, by tag.
  private var underWay: [UInt64: Int] = [:]
  private var nextTag: UInt64 = 0

  init(
    _ channel: consuming Channel<HostVisible, HostVisible>,
    _ pool: consuming DMAPool<HostVisible>
  ) {
    guard let answer = pool.take() else { fatalError("an empty pool") }
    queue = HostileQueue(
      channel, HostileQueue.Configuration(depth: 7, subchannels: 2), answer: answer)
    self.pool = pool
  }

  var isStarting: Bool { queue.disk == nil && queue.failure == nil }
  var isOver: Bool { queue.failure != nil }

  mutating func pump() {
    var count = 0
    while let completion = queue.next() {
      take(completion)
      count += 1
      if count > 1000 { fatalError("completions never end") }
    }
    _ = queue.takeEvents()
    queue.publish()
    if queue.count > 7 + 2 || queue.abandoned > queue.count { fatalError("too many requests") }
  }

  private mutating func take(_ completion: borrowing StorageCompletion<HostVisible>) {
    guard let asked = underWay.removeValue(forKey: completion.tag) else {
      fatalError("a completion of no request")
    }
    switch completion.result {
    case .success(let moved): if moved < 0 || moved > asked { fatalError("moved too much") }
    case .failure(let error): if "\(error)".isEmpty { fatalError("an error without a text") }
    }
    switch completion.buffer {
    case .some(let buffer): if buffer.isLent { fatalError("a buffer that is lent") }
    case .none: break
    }
  }

  mutating func act(_ operation: UInt8, _ bytes: inout HostileBytes) {
    let block = UInt64(bytes.next())
    let count = Int(bytes.next() % 17)
    var buffer = pool.take()
    let tag = nextTag
    nextTag += 1
    do throws(StorageError) {
      switch operation % 6 {
      case 0, 1: try queue.read(at: block, blockCount: count, into: &buffer, tag: tag)
      case 2: try queue.write(at: block, blockCount: count, from: &buffer, tag: tag, forced: true)
      case 3: try queue.flush(tag: tag)
      case 4:
        while let late = queue.nextExpired(now: .max) { take(late) }
        return
      default:
        if queue.arm() { queue.disarm() }
        return
      }
      underWay[tag] = operation % 6 == 3 ? 0 : count * 512
    } catch {
      if "\(error)".isEmpty { fatalError("an error without a text") }
    }
  }

  consuming func finish() {
    let isOver = queue.failure != nil
    while let late = queue.nextExpired(now: .max) { take(late) }
    // Each request was told once, and none is left.
    if !underWay.isEmpty { fatalError("requests without an end, over: \(isOver)") }
  }
}

/// The service behind a `BlockDevice`, without its worker.
struct HostileServiceRun: HostileSubject, ~Copyable {
  private var service: StorageService<HostVisible, HostVisible>?
  private let unit: StorageUnit
  private let handed = HostileHands()
  private let life = ServiceLife()
  private var transfers: [Transfer] = []
  private var isReady = false

  init(
    _ channel: consuming Channel<HostVisible, HostVisible>,
    _ pool: consuming DMAPool<HostVisible>
  ) {
    let configuration = StorageController.Configuration(
      depth: 7, bufferByteCount: HostileMemory.bufferByteCount, resetTimeout: 1000,
      retry: RetryPolicy(limit: 3, delay: 0))
    let queue = HostileQueue(
      controller: channel, HostileQueue.Configuration(depth: 7, subchannels: 1))
    service = .some(StorageService(queue, pool, configuration, life: life))
    var disk = DiskInformation()
    disk.geometry.blockCount = 1024
    disk.geometry.maximumTransferByteCount = 4096
    disk.provisioning.canFill = true
    disk.provisioning.canUnmap = true
    disk.provisioning.maximumFillBlockCount = 5
    let handed = handed
    unit = StorageUnit(disk, number: 0) { handed.add($0) }
  }

  var isStarting: Bool { !isReady && !isOver }

  var isOver: Bool {
    switch service {
    case .some: false
    case .none: true
    }
  }

  mutating func pump() {
    for transfer in handed.take() { service?.add(transfer) }
    isReady = isReady || service?.queue.agreement != nil
    guard var taken = service.take() else { return }
    // Nil: it is over, and dropping it tells everybody.
    if taken.poll(budget: 64) != nil { service = .some(taken) }
  }

  mutating func act(_ operation: UInt8, _ bytes: inout HostileBytes) {
    let offset = UInt64(bytes.next()) &* 131
    let count = 1 + Int(bytes.next()) &* 37
    let kind: Transfer.Kind
    switch operation % 8 {
    case 0, 1: kind = .read
    case 2: kind = .write(forced: false)
    case 3: kind = .flush
    case 4: kind = .writeZeroes(.fill)
    case 5: kind = .discard
    case 6:
      service?.expire(now: .max)
      return
    default:
      _ = service?.nextDeadline
      transfers.last?.outcome.keep(.cancelled)
      return
    }
    if transfers.count > 200 { return }
    let transfer: Transfer
    switch kind {
    case .flush: transfer = Transfer(kind, unit)
    case .discard: transfer = Transfer(kind, unit, offset: offset & ~511, byteCount: count << 9)
    default:
      transfer = Transfer(
        kind, unit, offset: offset, byteCount: count, flush: operation & 32 != 0,
        memory: .owned([UInt8](repeating: 7, count: count)))
    }
    transfers.append(transfer)
    unit.begin(transfer)
  }

  consuming func finish() {
    let (transfers, handed, unit) = (transfers, handed, unit)
    // As a controller does when its channel is over.
    life.whenEnded { unit.end($0) }
    drop()
    for transfer in handed.take() { transfer.settle(.cancelled) }
    for transfer in transfers where !transfer.outcome.isKept {
      fatalError("somebody waits for ever")
    }
  }

  private consuming func drop() {}
}

/// What a unit gave out for its channel.
final class HostileHands: Sendable {
  private let state = Lock<[Transfer]>([])

  func add(_ transfer: Transfer) { state.withLock { $0.append(transfer) } }

  func take() -> [Transfer] {
    state.withLock { list in
      defer { list = [] }
      return list
    }
  }
}
