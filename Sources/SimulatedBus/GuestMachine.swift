// SPDX-License-Identifier: Apache-2.0

import CLinux
import Platform
import SimulatedLink
import Synchronization
import SystemPackage
import VMBus
import VSC

/// What kind of machine this process plays.
public enum Machine: String, Sendable, CaseIterable {
  /// Not isolated: the host sees all memory.
  case plain
  /// Isolated: the host sees host-visible memory only; encrypted memory never leaves this process.
  case isolated
  /// Isolated, joined to its paravisor, which is trusted and sees encrypted memory too.
  case confidential
}

/// The machine that a driver's process is to the simulated host: memory, virtual processors with
/// their SynICs, and the calls that leave it.
@safe
final class GuestMachine: @unchecked Sendable {
  // Shared state is in mutexes; the mappings and descriptors stay as they are.
  let kind: Machine
  private let socket: Lock<PacketSocket>
  let socketDescriptor: Int32
  private let hostVisible: PageArena
  /// Nil in a machine without isolation, where there is no such memory.
  private let encrypted: PageArena?
  let processors: [VirtualProcessor]

  /// One virtual processor: its two pages, and its interrupt.
  @safe
  final class VirtualProcessor: @unchecked Sendable {
    let number: Int
    let interrupt: EventDescriptor
    let pages: PageAllocation

    init(_ number: Int, _ pages: PageAllocation) throws(Errno) {
      self.number = number
      self.pages = pages
      interrupt = try EventDescriptor()
    }

    /// Takes the interrupt and clears all event flags: whoever asks polls all its rings.
    func takeInterrupt() {
      interrupt.drain()
      // Safe: our own page. Atomic, since the host sets bits meanwhile.
      let start = unsafe pages.start + 4096 + SynIC.eventFlagsOffset(sint: SynIC.vmbusSINT)
      let flags = unsafe start.assumingMemoryBound(to: Atomic<UInt64>.self)
      for word in 0..<SynIC.eventFlagsPerSINT / 64 {
        if unsafe flags[word].load(ordering: .relaxed) != 0 {
          unsafe flags[word].store(0, ordering: .sequentiallyConsistent)
        }
      }
    }

    /// The message in the slot, copied out once; nil when there is none.
    func takeMessage() -> (bytes: [UInt8], moreWait: Bool)? {
      let slot = unsafe pages.start + SynIC.messageSlotOffset(sint: SynIC.vmbusSINT)
      let type = unsafe slot.assumingMemoryBound(to: Atomic<UInt32>.self)
      let kind = unsafe type.pointee.load(ordering: .acquiring)
      guard kind != SynIC.noMessage else { return nil }
      let count = min(
        Int(unsafe slot.load(fromByteOffset: 4, as: UInt8.self)), SynIC.maximumPayloadByteCount)
      let payload = unsafe UnsafeRawBufferPointer(start: slot + 16, count: count)
      // Other types are no affair of VMBus.
      let bytes = kind == SynIC.vmbusMessage ? unsafe [UInt8](payload) : []
      // The slot is free from here on; only then look whether another message waits.
      unsafe type.pointee.store(SynIC.noMessage, ordering: .sequentiallyConsistent)
      let flags = unsafe slot.load(
        fromByteOffset: SynICMessageHeader.flagsOffset, as: UInt8.self)
      return (bytes, flags & SynICMessageHeader.messagePending != 0)
    }
  }

  /// Where the guest's memory starts, in pages: apart, so that a wrong one is noticed.
  private static let encryptedFirstPage: GPN = 0x1_0000
  private static let hostVisibleFirstPage: GPN = 0x10_0000

  init(
    path: String, kind: Machine, processorCount: Int, memoryByteCount: Int
  ) throws(TransportError) {
    self.kind = kind
    let memoryByteCount = (memoryByteCount + 4095) & ~4095
    do throws(Errno) {
      let connected = try PacketSocket(connectingTo: path)
      _ = vmbus_set_receive_timeout(connected.rawValue, 30)
      socketDescriptor = connected.rawValue
      socket = Lock(connected)
    } catch {
      throw .system("simulated host", code: error.rawValue, text: "\(path): \(error)")
    }
    do throws(Errno) {
      hostVisible = try PageArena(
        kind == .plain ? "plain" : "host-visible", firstPage: Self.hostVisibleFirstPage,
        byteCount: memoryByteCount, isScrubbed: kind != .plain)
      encrypted =
        kind == .plain
        ? nil
        : try PageArena(
          "encrypted", firstPage: Self.encryptedFirstPage, byteCount: memoryByteCount,
          isScrubbed: false)
    } catch {
      throw .system("guest memory", code: error.rawValue, text: "\(error)")
    }
    // The paravisor's SynIC lies in encrypted memory, a host's cannot.
    let arena = kind == .confidential ? encrypted ?? hostVisible : hostVisible
    var processors: [VirtualProcessor] = []
    for number in 0..<processorCount {
      let pages = try arena.allocate(byteCount: 2 * 4096)
      do throws(Errno) {
        processors.append(try VirtualProcessor(number, pages))
      } catch {
        throw .system("eventfd", code: error.rawValue, text: "\(error)")
      }
    }
    self.processors = processors
    try join()
  }

  private func join() throws(TransportError) {
    var join = LinkJoin()
    switch kind {
    case .plain: join.isolation = .none
    case .isolated: join.isolation = .host
    case .confidential: join.isolation = .paravisor
    }
    var regions = [hostVisible.region(file: 0, isEncrypted: false)]
    var descriptors = [hostVisible.file.owned.rawValue]
    // Encrypted memory goes to the paravisor only: here is the one place that could leak it.
    if kind == .confidential, let encrypted {
      regions.append(encrypted.region(file: 1, isEncrypted: true))
      descriptors.append(encrypted.file.owned.rawValue)
    }
    join.processorCount = UInt16(processors.count)
    join.regionCount = UInt16(regions.count)
    join.fileCount = UInt16(descriptors.count)
    descriptors += processors.map { $0.interrupt.rawValue }
    let status = try call(
      .join, join.wireBytes + regions.flatMap(\.wireBytes), descriptors: descriptors
    ).status
    guard status == .success else {
      throw .system("simulated host", code: 0, text: "refused this machine (\(status))")
    }
    for processor in processors {
      var registers = LinkSynIC()
      registers.processor = UInt32(processor.number)
      registers.messagePage = processor.pages.firstPage
      registers.eventFlagsPage = processor.pages.firstPage + 1
      let status = try call(.setSynIC, registers.wireBytes).status
      guard status == .success else {
        throw .system("simulated host", code: 0, text: "refused a SynIC (\(status))")
      }
    }
  }

  // MARK: - Calls

  func postMessage(_ message: OutgoingMessage, connectionID: UInt32) throws(TransportError)
    -> HypercallStatus
  {
    var post = LinkPost()
    post.connectionID = connectionID
    post.messageType = SynIC.vmbusMessage
    post.payloadByteCount = UInt32(message.count)
    return try call(.postMessage, post.wireBytes + message.array).status
  }

  func endOfMessage(_ processor: VirtualProcessor) throws(TransportError) {
    _ = try call(.endOfMessage, LinkNumber(UInt32(processor.number)).wireBytes)
  }

  /// The doorbell of a channel.
  func bindEvent(_ connectionID: UInt32) throws(TransportError) -> EventDescriptor {
    let answer = try call(.bindEvent, LinkNumber(connectionID).wireBytes)
    guard answer.status == .success, let descriptor = answer.message.takeDescriptor(0) else {
      throw .system("doorbell", code: 0, text: "the host gave none (\(answer.status))")
    }
    return EventDescriptor(descriptor)
  }

  /// One call and its answer.
  private func call(
    _ call: LinkCall, _ body: [UInt8], descriptors: [Int32] = []
  ) throws(TransportError) -> (status: HypercallStatus, message: SocketMessage) {
    let bytes = LinkHeader(call).wireBytes + body
    let received = socket.withLock { socket -> SocketMessage? in
      do throws(Errno) {
        try socket.send(bytes, descriptors: descriptors)
        return try socket.receive()
      } catch {
        // A late answer would be taken for the next call's: this connection is over.
        socket.shutDown()
        return nil
      }
    }
    guard let message = received, let answer = try? LinkAnswer(parsing: message.bytes) else {
      throw .hostGone
    }
    return (answer.status, message)
  }

  /// Memory of one kind; host-visible memory of a machine without isolation is all it has.
  func allocate(_ memory: MemoryVisibility, byteCount: Int) throws(TransportError)
    -> PageAllocation
  {
    switch memory {
    case .hostVisible: return try hostVisible.allocate(byteCount: byteCount)
    case .encrypted:
      guard let encrypted else { throw .noSuchMemory(.encrypted) }
      return try encrypted.allocate(byteCount: byteCount)
    }
  }

  /// Whether this machine's messages come from somebody whom the host can't impersonate.
  var origin: MessageOrigin { kind == .confidential ? .trusted : .untrusted }
}
