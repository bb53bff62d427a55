// SPDX-License-Identifier: Apache-2.0

import Dispatch
import StorageVSC
import VSC

/// Reads of 4 KiB through the storage driver's burst face, on a worker.
func runStorage(_ packets: Int) throws { try runStorage(packets, .event) }

/// The same on the channel of a UIO device, without a monitor and with one.
func runStorageUIO(_ packets: Int) throws { try runStorage(packets, .deviceFile) }
func runStorageMonitor(_ packets: Int) throws { try runStorage(packets, .monitor) }

/// The same on the channel of a device of the kernel module's.
func runStorageModule(_ packets: Int) throws { try runStorage(packets, .moduleFile) }

/// Depths and numbers of channels, as `scripts/bench` counts instructions for them: in encrypted
/// memory, so that what is counted is no scrubbing.
func runStorage1x1(_ packets: Int) throws { try runDirect(packets, 1, 1) }
func runStorage32x1(_ packets: Int) throws { try runDirect(packets, 32, 1) }
func runStorage256x1(_ packets: Int) throws { try runDirect(packets, 256, 1) }
func runStorage1x4(_ packets: Int) throws { try runDirect(packets, 1, 4) }
func runStorage32x4(_ packets: Int) throws { try runDirect(packets, 32, 4) }
func runStorage256x4(_ packets: Int) throws { try runDirect(packets, 256, 4) }

private func runDirect(_ packets: Int, _ depth: Int, _ channels: Int) throws {
  try runStorage(
    packets, confidentiality: .ringAndExternalMemory, depth: depth, channels: channels)
}

/// - Parameters:
///   - packets: of all channels together.
///   - depth: requests under way on each channel.
///   - channels: all on one worker.
private func runStorage(
  _ packets: Int, _ signal: HeapDevice.Signal = .event,
  confidentiality: Confidentiality = .hostVisible, depth: Int = 32, channels: Int = 1
) throws {
  let worker = try Worker(.init(name: "datapath", spinRounds: 0))
  let devices = try (0..<channels).map { _ in try HeapDevice(signal, confidentiality) }
  let owners = devices.map { Device($0, workers: [worker]) }
  let ends = DispatchSemaphore(value: 0)
  try blocking { started in
    for (device, owner) in zip(devices, owners) {
      let driver = ReadVSC(host: device, packets: packets / channels, depth: depth, done: ends)
      try await driver.start(owner)
    }
    started.signal()
  }
  for _ in devices { ends.wait() }
  worker.stop()
}

/// A driver as authors write them: it does not know its pair of memories.
private struct ReadVSC: VSC {
  static var deviceClass: DeviceClass { .scsi }
  let host: HeapDevice
  let packets: Int
  let depth: Int
  let done: DispatchSemaphore

  func start<Ring: Visibility, External: Visibility>(
    _ channel: consuming sending Channel<Ring, External>, of device: Device, on worker: Worker
  ) async throws {
    var pool: DMAPool<External> = try device.makePool(count: depth + 1, byteCount: 4096)
    guard let answer = pool.take() else { throw WrongPacket() }
    let queue = StorageQueue(
      channel, StorageQueue<Ring, External>.Configuration(depth: depth), answer: answer)
    _ = worker.attach(
      ReadPath(queue: queue, pool: pool, host: try HeapHost(host), packets: packets)
    ) { done.signal() }
  }
}

private struct ReadPath<Ring: Visibility, External: Visibility>: Pollable, ~Copyable {
  var queue: StorageQueue<Ring, External>
  var pool: DMAPool<External>
  var host: HeapHost
  let packets: Int
  var sent = 0
  var received = 0

  init(
    queue: consuming StorageQueue<Ring, External>, pool: consuming DMAPool<External>,
    host: consuming HeapHost, packets: Int
  ) {
    self.queue = queue
    self.pool = pool
    self.host = host
    self.packets = packets
  }

  @_specialize(where Ring == HostVisible, External == HostVisible)
  @_specialize(where Ring == Encrypted, External == HostVisible)
  @_specialize(where Ring == Encrypted, External == Encrypted)
  mutating func poll(budget: Int) -> Int? {
    do {
      guard queue.isReady else { return try startUp() }
      while sent < packets, !queue.isFull, let taken = pool.take() {
        var buffer = Optional(taken)
        try queue.read(
          at: UInt64(sent & 0xFFFF) &* 8, blockCount: 8, into: &buffer, tag: UInt64(sent))
        sent &+= 1
      }
      queue.publish()
      _ = try host.answerAll(unsafe Self.success.span.bytes)
      var work = 0
      while let completion = queue.next() {
        guard case .success(4096) = completion.result else { throw WrongPacket() }
        received &+= 1
        work &+= 1
      }
      queue.publish()
      return received == packets ? nil : work
    } catch {
      fail("\(error)")
    }
  }

  private mutating func startUp() throws -> Int {
    _ = queue.next()
    queue.publish()
    try host.answerStartUp()
    if let failure = queue.failure { throw failure }
    return 1
  }

  mutating func arm() -> Bool {
    _ = queue.arm()
    return true
  }

  mutating func disarm() { queue.disarm() }

  /// A packet of 64 bytes: COMPLETE_IO, SRB status success, 4096 bytes moved (@24).
  static var success: InlineArray<64, UInt8> {
    var bytes = InlineArray<64, UInt8>(repeating: 0)
    bytes[0] = 1
    bytes[12] = 52
    bytes[14] = 1
    bytes[25] = 0x10
    return bytes
  }
}
