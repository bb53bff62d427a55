// SPDX-License-Identifier: Apache-2.0

import Dispatch
import VSC

/// A device whose host is in the same process, in the hands of the path that is measured: its
/// rings and its memory lie on the heap.
final class HeapDevice: DeviceTransport {
  let identity: DeviceIdentity
  let outgoing = HeapRingMemory(dataByteCount: 64 * 1024)
  let incoming = HeapRingMemory(dataByteCount: 64 * 1024)
  private let state = ChannelState()
  private let event: EventDescriptor
  private let file: DeviceFile
  private let monitorPage = HeapRingMemory(dataByteCount: 4096)
  private let doorbell: Doorbell
  private let confidentiality: Confidentiality
  private let isIsolated: Bool
  private let receiveBuffer = HeapPages(byteCount: 1 << 20)
  private let sendBuffer = HeapPages(byteCount: 1 << 20)

  /// How the host is signalled: as a simulated host is, or as on a real machine.
  enum Signal {
    case event
    /// By the device file's `write`.
    case deviceFile
    case monitor
    /// By a call on the module's file.
    case moduleFile
  }

  /// - Parameters:
  ///   - confidentiality: which memory is encrypted.
  ///   - isIsolated: host-visible memory is scrubbed before it is free again.
  init(
    _ signal: Signal = .event, _ confidentiality: Confidentiality = .hostVisible,
    isIsolated: Bool = true
  ) throws {
    identity = DeviceIdentity(
      deviceClass: .scsi, instance: GUID(), channel: 1, confidentiality: confidentiality,
      transport: "heap")
    self.confidentiality = confidentiality
    self.isIsolated = isIsolated
    let event = try EventDescriptor()
    // It takes what is written as uio_hv_generic does.
    let file = try DeviceFile(path: "/dev/null")
    switch signal {
    case .event: doorbell = .event(descriptor: event.rawValue)
    case .deviceFile: doorbell = .deviceFile(descriptor: file.rawValue)
    case .monitor:
      guard let page = unsafe monitorPage.bytes.baseAddress, let monitor = MonitorID(33) else {
        throw WrongPacket()
      }
      doorbell = unsafe .monitor(MonitorTrigger(page: page, monitor: monitor))
    case .moduleFile:
      guard let page = unsafe monitorPage.bytes.baseAddress else { throw WrongPacket() }
      doorbell = unsafe .moduleFile(
        ModuleSignal(descriptor: file.rawValue, channel: 0, status: page))
    }
    self.event = event
    self.file = file
  }

  var properties: [DeviceProperty] { [] }

  func openChannel(
    _ parameters: ChannelParameters, worker: Worker
  ) async throws(TransportError) -> RawChannel {
    // Safe: the device outlives its channel in each path.
    unsafe RawChannel(
      confidentiality: confidentiality, outgoing: outgoing.end(), incoming: incoming.end(),
      doorbell: doorbell, state: state)
  }

  func allocate(_ memory: MemoryVisibility, byteCount: Int) throws(TransportError) -> DMAPages {
    let owner = HeapPages(byteCount: byteCount)
    return unsafe DMAPages(
      start: owner.start, byteCount: byteCount, pageNumbers: owner.numbers,
      isScrubbed: isIsolated && memory == .hostVisible,
      owner: owner)
  }

  func share(
    _ use: SharedMemoryUse, _ memory: MemoryVisibility, byteCount: Int
  ) async throws(TransportError) -> SharedPages {
    guard byteCount == 1 << 20, let start = unsafe sharedMemory(use) else {
      throw .outOfMemory(memory, byteCount: byteCount)
    }
    return unsafe SharedPages(start: start, byteCount: byteCount, gpadl: 1, owner: self)
  }

  /// Where a buffer lies that both ends know; this device keeps it.
  func sharedMemory(_ use: SharedMemoryUse) -> UnsafeMutableRawPointer? {
    unsafe use == .receive ? receiveBuffer.start : sendBuffer.start
  }

  func ended() async -> ChannelEnd { .closed }

  func close() async {}
}

/// Pages whose numbers are addresses in this process.
@safe
final class HeapPages: @unchecked Sendable {
  let start: UnsafeMutableRawPointer
  let byteCount: Int
  let numbers: UnsafeMutablePointer<GPN>

  init(byteCount: Int) {
    self.byteCount = byteCount
    unsafe start = .allocate(byteCount: byteCount, alignment: 4096)
    unsafe start.initializeMemory(as: UInt8.self, repeating: 0, count: byteCount)
    unsafe numbers = .allocate(capacity: byteCount / 4096)
    for page in 0..<byteCount / 4096 {
      unsafe (numbers + page).initialize(to: UInt64(UInt(bitPattern: start)) >> 12 + UInt64(page))
    }
  }

  deinit {
    unsafe start.deallocate()
    unsafe numbers.deallocate()
  }
}

/// The host's end: answers each packet with the same bytes.
struct HeapHost: ~Copyable {
  private var consumer: RingConsumer<BorrowedRingMemory>
  private var producer: RingProducer<BorrowedRingMemory>
  private var buffer = PacketBuffer(capacity: 16384)
  private let device: HeapDevice

  init(_ device: HeapDevice) throws(RingError) {
    // Safe: `device` keeps the rings.
    let consumer = try unsafe RingConsumer(device.outgoing.end())
    let producer = try unsafe RingProducer(device.incoming.end())
    self.consumer = consumer
    self.producer = producer
    self.device = device
  }

  /// Takes all requests and sends a completion with these bytes for each. Never inlined, so that its
  /// instructions can be told from the driver's.
  @inline(never)
  mutating func answerAll(_ bytes: RawSpan) throws(RingError) -> Int {
    var count = 0
    while let packet = try consumer.receive(into: &buffer) {
      try producer.write(.completion, transactionID: packet.transactionID, payload: bytes)
      count &+= 1
    }
    _ = consumer.commit()
    _ = producer.commit()
    return count
  }

  /// Answers the storage driver's start-up as a disk of 1 GiB would: offsets are those of a storage
  /// packet (operation @0, status @8, SRB status @14, limit or length @24, command @28).
  mutating func answerStartUp() throws(RingError) {
    while let packet = try consumer.receive(into: &buffer) {
      _ = consumer.commit()
      let payload = bytes(buffer.payload(of: packet))
      let ranges = bytes(buffer.ranges(of: packet))
      let (operation, command) = (payload[0], payload[28])
      var answer: [UInt8] = []
      switch (operation, command) {
      case (3, 0x12): answer = [0, 0, 6, 2, 31, 0, 0, 2] + Array(repeating: 0x20, count: 28)
      case (3, 0x9E):
        answer = [0, 0, 0, 0, 0, 0x1F, 0xFF, 0xFF, 0, 0, 2, 0] + Array(repeating: 0, count: 20)
      case (3, 0x1A): answer = [3, 0, 0x10, 0]
      default: break
      }
      if packet.type == .gpaDirect {
        // Reserved word and count, length and offset, then the first page, which is an address.
        let page = (0..<8).reversed().reduce(UInt(0)) { $0 << 8 | UInt(ranges[16 + $1]) }
        if let memory = unsafe UnsafeMutablePointer<UInt8>(bitPattern: page << 12) {
          for (index, byte) in answer.enumerated() { unsafe memory[index] = byte }
        }
      }
      var reply = [UInt8](repeating: 0, count: 64)
      reply[0] = 1
      reply[12] = 52
      reply[14] = 1
      reply[24] = UInt8(answer.count)
      if operation == 10 { (reply[24], reply[26]) = (0, 4) }
      try producer.write(
        .completion, transactionID: packet.transactionID, payload: unsafe reply.span.bytes)
      _ = producer.commit()
    }
  }
}

private func bytes(_ span: RawSpan) -> [UInt8] {
  unsafe span.withUnsafeBytes { unsafe [UInt8]($0) }
}

/// Runs `body` on another thread, and returns when it has signalled. Top-level `await` would end
/// the main thread, which valgrind 3.19 does not survive.
func blocking(_ body: @escaping @Sendable (DispatchSemaphore) async throws -> Void) throws {
  let done = DispatchSemaphore(value: 0)
  let task = Task {
    do {
      try await body(done)
    } catch {
      fail("\(error)")
    }
  }
  done.wait()
  withExtendedLifetime(task) {}
}
