// SPDX-License-Identifier: Apache-2.0

import Platform
import Synchronization
import Testing

@testable import StorageVSC
@testable import VMBus
@testable import VSC

/// One channel of a host, on its own worker, that plays a controller with disks in memory.
struct FakeChannel: Pollable, ~Copyable {
  var host: ScriptedHost
  let shared: FakeController
  let channel: Int
  /// Of an answer in the ring: 64 bytes with descriptor and trailer.
  private static let answerByteCount = 88
  private var waitsForRoom = false

  init(_ host: consuming ScriptedHost, _ shared: FakeController, channel: Int) {
    self.host = host
    self.shared = shared
    self.channel = channel
  }

  mutating func poll(budget: Int) -> Int? {
    var work = 0
    while true {
      // Room for the answer first: a request that was taken is a request that is answered.
      waitsForRoom = ((try? host.producer.free()) ?? 0) < Self.answerByteCount
      guard !waitsForRoom, let packet = try? host.receive() else { break }
      work += 1
      if let answer = shared.answer(packet, channel) { try? host.send(answer, id: packet.id) }
    }
    for packet in shared.takeUnasked(channel) {
      try? host.send(packet.bytes, id: packet.id, type: packet.type)
      work += 1
    }
    return work
  }

  mutating func arm() -> Bool {
    if waitsForRoom, (try? host.producer.waitForSpace(Self.answerByteCount)) ?? true {
      return true
    }
    return (try? host.consumer.arm()) ?? true
  }

  mutating func disarm() {
    host.consumer.mask()
    host.producer.stopWaitingForSpace()
  }
}

/// The disks, and what the test sees and changes while the host runs.
final class FakeController: Sendable {
  struct Disk {
    var bytes: [UInt8]
    var blockSize = 512
    var serial = "S123"
    var readOnly = false
    var canForce = true
    /// Page B0 and B2; nil for a disk without provisioning.
    var provisioning: Provisioning?

    init(byteCount: Int) {
      bytes = (0..<byteCount).map { UInt8(truncatingIfNeeded: $0 &* 7 &+ $0 >> 9) }
    }
  }

  struct Provisioning {
    var maximumTransfer = 0
    var maximumUnmap = 0
    var maximumFill = 0
    /// Bits 7 UNMAP, 6 WRITE SAME with UNMAP, 2 zeros.
    var features: UInt8 = 0xC4
  }

  struct Packet {
    var bytes: [UInt8]
    var id: UInt64 = 0
    var type = PacketType.inBand
  }

  struct Control {
    var disks: [UInt8: Disk]
    /// Requests get no answer; resets neither.
    var isSilent = false
    var ignoresResets = false
    /// Versions above are refused.
    var newestVersion: UInt16 = 0x0602
    var maximumSubchannels: UInt8 = 0
    var grantsSubchannels = true
    /// How the next requests are answered, instead of being done.
    var failures: [[UInt8]] = []
    /// Commands that are not known.
    var unknown: Set<UInt8> = []
    var unasked: [Packet] = []
    /// The disks that go when a command that begins so comes to them, by LUN.
    var departures: [UInt8: [UInt8]] = [:]

    var requests = 0
    var flushes = 0
    var largest = 0
    /// Operation codes of the requests in the order in which they came, by channel.
    var commands: [[UInt8]] = [[], [], [], []]
    var controls: [[UInt8]] = []
    /// Transaction ids of the requests.
    var requestIDs: [UInt64] = []
    var versions: [UInt16] = []
    var lengths: Set<Int> = []

    /// The only disk's.
    var bytes: [UInt8] {
      get { disks[0]?.bytes ?? [] }
      set { disks[0]?.bytes = newValue }
    }
    var readOnly: Bool {
      get { disks[0]?.readOnly ?? false }
      set { disks[0]?.readOnly = newValue }
    }
    /// Each of so many requests fails first, with "busy".
    var busy: Int {
      get { failures.count }
      set { failures = Array(repeating: reply(scsi: 8), count: newValue) }
    }
  }

  let control: Lock<Control>

  init(byteCount: Int) {
    control = Lock(Control(disks: [0: Disk(byteCount: byteCount)]))
  }

  var bytes: [UInt8] { control.withLock { $0.bytes } }

  func takeUnasked(_ channel: Int) -> [Packet] {
    control.withLock { control in
      guard channel == 0 else { return [] }
      defer { control.unasked = [] }
      return control.unasked
    }
  }

  func answer(_ packet: SentPacket, _ channel: Int) -> [UInt8]? {
    control.withLock { control in
      let answer = control.answer(packet, channel)
      // A host of an old version has shorter packets.
      let isShort = control.versions.last.map { $0 < 0x0501 } ?? false
      return answer.map { isShort ? Array($0.prefix(48)) : $0 }
    }
  }
}

extension FakeController.Control {
  mutating func answer(_ packet: SentPacket, _ channel: Int) -> [UInt8]? {
    let operation = packet.payload[0]
    guard operation == 3 else {
      controls.append(packet.payload)
      switch operation {
      case 4, 5, 6: return ignoresResets ? nil : reply()
      case 9:
        let version = UInt16(packet.payload[12]) | UInt16(packet.payload[13]) << 8
        versions.append(version)
        return version > newestVersion ? reply(status: 0xC000_0059) : reply()
      case 10: return propertiesReply(limit: 65536, subchannels: maximumSubchannels)
      case 13: return grantsSubchannels ? reply() : reply(status: 0xC000_000D)
      default: return reply()
      }
    }
    lengths.insert(packet.payload.count)
    let (command, lun) = (packet.command, packet.payload[19])
    if command[0] == 0xA0 { return put(reportedUnits, into: packet) }
    if let first = departures[lun], command.starts(with: first) { disks[lun] = nil }
    guard let disk = disks[lun] else { return reply(status: 0xC000_00C0, srb: 0x20) }
    if let known = disk.identify(command) {
      return known.isEmpty ? illegalRequest : put(known, into: packet)
    }
    requests += 1
    requestIDs.append(packet.id)
    commands[channel].append(command[0])
    if isSilent { return nil }
    if !failures.isEmpty { return failures.removeFirst() }
    if unknown.contains(command[0]) { return illegalRequest }
    return move(disk, lun, packet)
  }

  private var reportedUnits: [UInt8] {
    [0, 0, 0, UInt8(disks.count * 8), 0, 0, 0, 0]
      + disks.keys.sorted().flatMap { [0, $0, 0, 0, 0, 0, 0, 0] }
  }

  private func put(_ bytes: [UInt8], into packet: SentPacket) -> [UInt8] {
    let memory = unsafe packet.memory
    let count = min(bytes.count, memory.count)
    unsafe memory.copyBytes(from: bytes.prefix(count))
    return reply(moved: count)
  }

  private mutating func move(
    _ disk: FakeController.Disk, _ lun: UInt8, _ packet: SentPacket
  ) -> [UInt8] {
    let command = packet.command
    let block = command[2..<10].reduce(0) { $0 << 8 | Int($1) }
    let count = command[10..<14].reduce(0) { $0 << 8 | Int($1) } * disk.blockSize
    let range = block * disk.blockSize..<block * disk.blockSize + count
    switch command[0] {
    case 0x35:
      flushes += 1
      return reply()
    case 0x42:
      let list = unsafe Array(packet.memory)
      let first = list[8..<16].reduce(0) { $0 << 8 | Int($1) } * disk.blockSize
      let bytes = list[16..<20].reduce(0) { $0 << 8 | Int($1) } * disk.blockSize
      fill(lun, first..<first + bytes)
      return reply()
    case 0x93:
      fill(lun, range)
      return reply()
    case 0x88:
      largest = max(largest, count)
      unsafe packet.memory.copyBytes(from: disk.bytes[range])
      return reply(moved: count)
    default:
      largest = max(largest, count)
      unsafe disks[lun]?.bytes.replaceSubrange(range, with: packet.memory)
      return reply(moved: count)
    }
  }

  private mutating func fill(_ lun: UInt8, _ range: Range<Int>) {
    disks[lun]?.bytes.replaceSubrange(range, with: repeatElement(0, count: range.count))
  }
}

extension FakeController.Disk {
  /// The answers to the commands that ask what a disk is; empty for what it does not know.
  func identify(_ command: [UInt8]) -> [UInt8]? {
    func big(_ value: Int, _ count: Int) -> [UInt8] {
      (0..<count).map { UInt8(truncatingIfNeeded: value >> (8 * (count - 1 - $0))) }
    }
    switch (command[0], command[1] & 1, command[2]) {
    case (0x12, 0, _):
      return [0, 0, 6, 2, 31, 0, 0, 2] + Array("Msft    Virtual Disk    1.0 ".utf8)
    case (0x12, 1, 0x00):
      return provisioning == nil ? [0, 0, 0, 1, 0x80] : [0, 0, 0, 4, 0x80, 0xB0, 0xB1, 0xB2]
    case (0x12, 1, 0x80): return [0, 0x80, 0, UInt8(serial.utf8.count)] + Array(serial.utf8)
    case (0x12, 1, 0xB0):
      guard let provisioning else { return [] }
      return [0, 0xB0, 0, 0x3C, 0, 0, 0, 8] + big(provisioning.maximumTransfer, 4) + big(0, 8)
        + big(provisioning.maximumUnmap, 4) + big(1, 4) + big(8, 4) + big(0, 4)
        + big(provisioning.maximumFill, 8) + big(0, 20)
    case (0x12, 1, 0xB1): return [0, 0xB1, 0, 0x3C, 0, 1]
    case (0x12, 1, 0xB2): return provisioning.map { [0, 0xB2, 0, 4, 0, $0.features, 2, 0] } ?? []
    case (0x12, 1, _): return []
    case (0x9E, _, _):
      return big(bytes.count / blockSize - 1, 8) + big(blockSize, 4)
        + [0, 3, provisioning == nil ? 0 : 0xC0, 0] + big(0, 16)
    case (0x1A, _, _):
      let flags: UInt8 = (readOnly ? 0x80 : 0) | (canForce ? 0x10 : 0)
      return [23, 0, flags, 0, 0x08, 0x12, 0x04] + big(0, 17)
    default: return nil
    }
  }
}

/// CHECK CONDITION, illegal request: unknown command.
let illegalRequest = reply(
  srb: 0x84, scsi: 2, sense: [0x70, 0, 5, 0, 0, 0, 0, 10, 0, 0, 0, 0, 0x20, 0])

/// CHECK CONDITION with a key and two codes.
func check(_ key: UInt8, _ code: UInt8, _ qualifier: UInt8 = 0) -> [UInt8] {
  reply(
    srb: 0x84, scsi: 2,
    sense: [0x70, 0, key, 0, 0, 0, 0, 10, 0, 0, 0, 0, code, qualifier, 0, 0, 0, 0])
}

/// A controller that a fake host serves, with its driver.
final class Machine: Sendable {
  let transport: ScriptedTransport
  let workers: [Worker]
  let hostWorkers: [Worker]
  let shared: FakeController
  let controller: StorageController

  var worker: Worker { workers[0] }

  /// - Parameters:
  ///   - channels: workers of the driver, and so the channels that it asks for.
  ///   - offered: channels that the host offers, the primary one included.
  init(
    byteCount: Int = 1 << 20, timeout: UInt64 = 30_000_000_000,
    resetTimeout: UInt64 = 10_000_000_000, depth: Int = 8, bufferByteCount: Int = 65536,
    channels: Int = 1, offered: Int? = nil, lun: UInt8? = 0, retry: RetryPolicy = RetryPolicy(),
    ringByteCount: Int = 64 * 1024, poolByteCount: Int? = nil,
    _ change: (inout FakeController.Control) -> Void = { _ in }
  ) async throws {
    let offered = offered ?? channels
    transport = try ScriptedTransport(ringByteCount: ringByteCount, channels: offered)
    workers = try (0..<channels).map {
      try Worker(Worker.Configuration(name: "driver-\($0)", spinRounds: 10))
    }
    shared = FakeController(byteCount: byteCount)
    shared.control.withLock {
      $0.maximumSubchannels = UInt8(channels - 1)
      change(&$0)
    }
    var hostWorkers: [Worker] = []
    for (index, rings) in transport.channels.enumerated() {
      let worker = try Worker(Worker.Configuration(name: "host-\(index)", spinRounds: 10))
      let doorbell = rings.doorbell.rawValue
      worker.watch(doorbell) { EventDescriptor.drain(doorbell) }
      _ = worker.attach(FakeChannel(try ScriptedHost(rings), shared, channel: index))
      hostWorkers.append(worker)
    }
    self.hostWorkers = hostWorkers
    controller = try await StorageVSC.openController(
      Device(transport, workers: workers),
      StorageVSC.Configuration(
        lun: lun,
        controller: StorageController.Configuration(
          depth: depth, bufferByteCount: bufferByteCount, poolByteCount: poolByteCount,
          timeout: timeout, resetTimeout: resetTimeout, retry: retry)))
  }

  deinit {
    for worker in hostWorkers + workers { worker.stop() }
  }

  var disk: BlockDevice {
    get throws { try controller.disk(0) }
  }

  /// The host sends a packet of its own.
  func tell(_ bytes: [UInt8], id: UInt64 = 0, type: PacketType = .inBand) {
    shared.control.withLock {
      $0.unasked.append(FakeController.Packet(bytes: bytes, id: id, type: type))
    }
    hostWorkers[0].post {}
  }

  /// Waits until the host has seen as many requests.
  func waitForRequests(_ count: Int) async {
    while shared.control.withLock({ $0.requests }) < count { await Task.yield() }
  }
}
