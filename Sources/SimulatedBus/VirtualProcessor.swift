// SPDX-License-Identifier: Apache-2.0

import Platform
import SimulatedLink
import SystemPackage
import VMBus

/// One virtual processor of the guest: its SynICs, and its interrupt.
@safe
final class VirtualProcessor: @unchecked Sendable {
  // Nothing changes after `init`; the pages are read atomically.
  let number: Int
  let interrupt: EventDescriptor
  /// What the host signals where a paravisor raises the interrupt.
  let hostInterrupt: EventDescriptor
  private(set) var synICs: [SynIC] = []

  /// A SynIC is one side's: the paravisor's in encrypted memory, the host's in host-visible memory.
  @safe
  final class SynIC: @unchecked Sendable {
    let origin: MessageOrigin
    let link: GuestLink
    private let allocation: PageAllocation
    let pages: SynICPages

    init(_ origin: MessageOrigin, _ link: GuestLink, _ allocation: PageAllocation) {
      self.origin = origin
      self.link = link
      self.allocation = allocation
      // Safe: this object keeps the two pages.
      pages = unsafe SynICPages(
        message: allocation.start, eventFlags: allocation.start + 4096)
    }

    var firstPage: GPN { allocation.firstPage }
  }

  init(_ number: Int) throws(Errno) {
    self.number = number
    interrupt = try EventDescriptor()
    hostInterrupt = try EventDescriptor()
  }

  /// Before the processor is used.
  func add(_ synIC: SynIC) throws(LinkError) {
    try synIC.link.setSynIC(
      processor: number, messagePage: synIC.firstPage, eventFlagsPage: synIC.firstPage + 1)
    synICs.append(synIC)
  }

  /// Takes the interrupt and clears all event flags, of all SynICs: whoever asks polls all its rings.
  func takeInterrupt() {
    interrupt.drain()
    for synIC in synICs { synIC.pages.clearEventFlags() }
  }

  /// Messages of one SynIC that are taken at a time: a host that never stops holds nobody up.
  private static let messagesAtOnce = 64

  /// Takes the messages that are there, and tells where each comes from. What is left, after many, comes with
  /// another interrupt.
  func takeMessages(_ body: (_ bytes: [UInt8], _ origin: MessageOrigin) -> Void) {
    for synIC in synICs where !takeMessages(of: synIC, body) { interrupt.signalWithoutBlocking() }
  }

  /// Returns false when there may be more.
  private func takeMessages(
    of synIC: SynIC, _ body: (_ bytes: [UInt8], _ origin: MessageOrigin) -> Void
  ) -> Bool {
    for _ in 0..<Self.messagesAtOnce {
      guard let (bytes, moreWait) = synIC.pages.takeMessage() else { return true }
      if moreWait { try? synIC.link.endOfMessage(processor: number) }
      if !bytes.isEmpty { body(bytes, synIC.origin) }
    }
    return false
  }
}
