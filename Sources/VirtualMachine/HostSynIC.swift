// SPDX-License-Identifier: Apache-2.0

import Platform
import SimulatedLink
import Synchronization
import SystemPackage
import VMBus

/// What the untrusted host of an isolated machine has of one processor's SynIC: pages of its own, in
/// memory that the guest does not know of.
///
/// In a VBS machine the hypervisor is trusted, and it is the only one that writes to the guest's pages,
/// which may be private: it takes what the host has put into its own, and puts it there. The guest of an
/// SNP machine looks at the host's pages itself.
final class HostSynIC: Sendable {
  /// Signalled for the processor by whoever the machine has joined: its host, or its paravisor.
  let signalled: EventDescriptor
  /// What the host signals past a paravisor, which then signals the other one.
  let signalledPastParavisor: EventDescriptor
  /// Whether the guest's messages come from the host. Those of a paravisor are put into the guest's
  /// pages by itself.
  let takesMessages: Bool
  /// Whether the guest looks at the host's pages itself.
  private let isSeenByGuest: Bool
  private let pages: SynICPages
  private let synIC: SyntheticInterrupts
  private let memory: MachineMemory
  /// Keeps the pages mapped.
  private let files: HostSynICPages
  /// Tells the host that its slot is free.
  private let endOfMessage: @Sendable () -> Void
  private let waiting = Lock<[[UInt8]]>([])

  /// What waits for a guest that takes no messages; more is lost.
  static let maximumWaiting = 8192

  init(
    _ synIC: SyntheticInterrupts, _ files: HostSynICPages, _ memory: MachineMemory,
    takesMessages: Bool, isSeenByGuest: Bool = false, endOfMessage: @escaping @Sendable () -> Void
  ) throws(Errno) {
    self.synIC = synIC
    self.files = files
    self.memory = memory
    self.takesMessages = takesMessages
    self.isSeenByGuest = isSeenByGuest
    self.endOfMessage = endOfMessage
    pages = files.pages(ofProcessor: synIC.processor)
    signalled = try EventDescriptor()
    signalledPastParavisor = try EventDescriptor()
  }

  /// Whoever the machine has joined has signalled.
  func interrupted() {
    signalled.drain()
    if !isSeenByGuest { deliver() }
    // A paravisor's own flags and messages lie in the guest's pages already.
    if !takesMessages { synIC.interrupt.signalWithoutBlocking() }
  }

  /// Moves flags and messages to the guest's pages, as far as the guest has pages and room, and
  /// interrupts it.
  func deliver() {
    var isNew = false
    if let page = synIC.eventFlagsPage {
      let flags = page &* 4096 &+ UInt64(SynIC.eventFlagsOffset(sint: SynIC.vmbusSINT))
      pages.takeEventFlags { word, bits in
        isNew = memory.setBits(flags &+ UInt64(4 * word), bits) || isNew
      }
    }
    if takesMessages {
      waiting.withLock { waiting in
        while let (bytes, moreWait) = pages.takeMessage() {
          if waiting.count < Self.maximumWaiting, !bytes.isEmpty { waiting.append(bytes) }
          if moreWait { endOfMessage() }
        }
        guard let message = waiting.first,
          put(message, hasMore: waiting.count > 1)
        else { return }
        waiting.removeFirst()
        isNew = true
      }
    }
    if isNew { synIC.interrupt.signalWithoutBlocking() }
  }

  /// Puts a message into the guest's slot; false when that is full.
  private func put(_ message: [UInt8], hasMore: Bool) -> Bool {
    guard let page = synIC.messagePage else { return false }
    let slot = page &* 4096 &+ UInt64(SynIC.messageSlotOffset(sint: SynIC.vmbusSINT))
    if memory.word(slot) != SynIC.noMessage {
      // The guest is to tell when it has taken that one. Then a second look, behind the first (law 6).
      memory.setBits(slot &+ 4, UInt32(SynICMessageHeader.messagePending) << 8)
      guard memory.word(slot) == SynIC.noMessage else { return false }
    }
    let flags = hasMore ? SynICMessageHeader.messagePending : 0
    let header =
      [UInt8(truncatingIfNeeded: message.count), flags] + [UInt8](repeating: 0, count: 10)
    guard memory.write(slot &+ 4, header + message) else { return false }
    // The type last: with it the slot is full.
    return memory.setBits(slot, SynIC.vmbusMessage)
  }
}

/// The pages of an isolated machine that are the hypervisor's: a host's SynIC pages, two for each
/// processor, and behind them each processor's GHCB, which is no business of the host.
@safe
final class HostSynICPages: Sendable {
  let file: MemoryFile
  private let mapping: MappedMemory
  private let processorCount: Int
  let byteCount: Int

  init(processorCount: Int) throws(Errno) {
    byteCount = 3 * 4096 * processorCount
    file = try MemoryFile(name: "vmbus-vm-synic", byteCount: byteCount)
    mapping = try file.map()
    self.processorCount = processorCount
  }

  /// What the host is told.
  func region(file number: Int) -> LinkRegion {
    var region = LinkRegion()
    region.firstPage = MachineLayout.hostSynICs / 4096
    region.pageCount = UInt64(2 * processorCount)
    region.file = UInt16(number)
    return region
  }

  static func messagePage(ofProcessor number: Int) -> GPN {
    MachineLayout.hostSynICs / 4096 + GPN(2 * number)
  }

  static func eventFlagsPage(ofProcessor number: Int) -> GPN {
    messagePage(ofProcessor: number) + 1
  }

  /// Where the guest has them.
  static let guestAddress = MachineLayout.hostSynICs | MachineLayout.boundary

  /// For KVM, and for a GHCB.
  @unsafe
  var start: UnsafeMutableRawPointer { unsafe mapping.start }

  /// Where in the file a processor's GHCB lies.
  func offset(ofGHCB number: Int) -> Int {
    precondition(number < processorCount)
    return 4096 * (2 * processorCount + number)
  }

  fileprivate func pages(ofProcessor number: Int) -> SynICPages {
    precondition(number < processorCount)
    // Safe: within the mapping, which lives as long as whoever holds this object.
    let start = unsafe mapping.start + 2 * 4096 * number
    return unsafe SynICPages(message: start, eventFlags: start + 4096)
  }
}
