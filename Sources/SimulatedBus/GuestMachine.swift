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
  let link: GuestLink
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
      // The slot is free from here on; only then look whether another message waits: the host asks
      // to be told, then looks at the type (law 6). The flags are the second byte of the word.
      unsafe type.pointee.store(SynIC.noMessage, ordering: .sequentiallyConsistent)
      let word = unsafe (slot + 4).assumingMemoryBound(to: Atomic<UInt32>.self)
      let flags = unsafe word.pointee.load(ordering: .sequentiallyConsistent)
      return (bytes, flags & UInt32(SynICMessageHeader.messagePending) << 8 != 0)
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
      link = try GuestLink(path: path)
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
    let isolation: MachineIsolation =
      switch kind {
      case .plain: .none
      case .isolated: .host
      case .confidential: .paravisor
      }
    var regions = [hostVisible.region(file: 0, isEncrypted: false)]
    var files = [hostVisible.file.owned.rawValue]
    // Encrypted memory goes to the paravisor only: here is the one place that could leak it.
    if kind == .confidential, let encrypted {
      regions.append(encrypted.region(file: 1, isEncrypted: true))
      files.append(encrypted.file.owned.rawValue)
    }
    do throws(LinkError) {
      try link.join(
        isolation, regions, files: files, interrupts: processors.map { $0.interrupt.rawValue })
      for processor in processors {
        let page = processor.pages.firstPage
        try link.setSynIC(
          processor: processor.number, messagePage: page, eventFlagsPage: page + 1)
      }
    } catch {
      throw TransportError(error, "simulated host")
    }
  }

  // MARK: - Calls

  func postMessage(_ message: OutgoingMessage, connectionID: UInt32) throws(TransportError)
    -> HypercallStatus
  {
    do throws(LinkError) {
      return try link.postMessage(
        connectionID: connectionID, messageType: SynIC.vmbusMessage, message.array)
    } catch {
      throw TransportError(error, "message")
    }
  }

  func endOfMessage(_ processor: VirtualProcessor) throws(TransportError) {
    do throws(LinkError) { try link.endOfMessage(processor: processor.number) } catch {
      throw TransportError(error, "end of message")
    }
  }

  /// The doorbell of a channel.
  func bindEvent(_ connectionID: UInt32) throws(TransportError) -> EventDescriptor {
    do throws(LinkError) {
      return EventDescriptor(try link.bindEvent(connectionID))
    } catch {
      throw TransportError(error, "doorbell")
    }
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

extension TransportError {
  fileprivate init(_ error: LinkError, _ what: WireName) {
    switch error {
    case .hostGone: self = .hostGone
    case .refused(let status):
      self = .system(what, code: 0, text: "the host refused this machine's call (\(status))")
    }
  }
}
