// SPDX-License-Identifier: Apache-2.0

import Platform
import Synchronization
import VMBus

/// The host's side of one virtual processor's synthetic interrupt controller: it writes messages
/// and event flags into the guest's pages, and raises the interrupt.
@safe
final class GuestSynIC: @unchecked Sendable {
  private let memory: GuestMemory
  private let interrupt: EventDescriptor
  /// The pages as they are mapped here, 0 when the guest has not set them. Device threads read
  /// the second one at every signal.
  private let messagePage = Atomic<UInt>(0)
  private let eventFlagsPage = Atomic<UInt>(0)
  /// Messages that wait until the guest has taken the one in the slot.
  private let waiting = Lock<[OutgoingMessage]>([])

  /// A guest that takes no messages for so long loses them; real hosts have a limit too.
  static let maximumWaiting = 8192

  init(_ memory: GuestMemory, interrupt: consuming OwnedDescriptor) {
    self.memory = memory
    self.interrupt = EventDescriptor(interrupt)
  }

  /// The guest wrote SIMP and SIEFP; nil for a page that it has not enabled. What waited for a
  /// message page is delivered.
  func setPages(
    message: GPN?, eventFlags: GPN?, in view: GuestMemoryView
  ) throws(GuestMemoryError) {
    // Safe: the addresses are of pages that stay mapped as long as `memory` lives.
    let message = try unsafe address(of: message, in: view)
    let eventFlags = try unsafe address(of: eventFlags, in: view)
    eventFlagsPage.store(eventFlags, ordering: .releasing)
    waiting.withLock { queue in
      messagePage.store(message, ordering: .releasing)
      deliver(&queue)
    }
  }

  @unsafe
  private func address(
    of page: GPN?, in view: GuestMemoryView
  ) throws(GuestMemoryError) -> UInt {
    guard let page else { return 0 }
    return UInt(bitPattern: try unsafe memory.page(page, in: view).start)
  }

  /// Posts a VMBus message. Returns false when the guest is hopelessly behind.
  func post(_ message: OutgoingMessage) -> Bool {
    waiting.withLock { queue in
      guard queue.count < Self.maximumWaiting else { return false }
      queue.append(message)
      deliver(&queue)
      return true
    }
  }

  /// The guest wrote EOM: the slot is free again.
  func endOfMessage() { waiting.withLock { deliver(&$0) } }

  private func deliver(_ queue: inout [OutgoingMessage]) {
    let address = messagePage.load(ordering: .acquiring)
    guard let message = queue.first, let page = unsafe UnsafeMutableRawPointer(bitPattern: address)
    else {
      return
    }
    // Safe: a page of the guest, 4096 bytes, and the slot lies within it.
    let slot = unsafe page + SynIC.messageSlotOffset(sint: SynIC.vmbusSINT)
    let type = unsafe slot.assumingMemoryBound(to: Atomic<UInt32>.self)
    if unsafe type.pointee.load(ordering: .sequentiallyConsistent) != SynIC.noMessage {
      // The guest has not taken the last one. Ask it to tell, then look once more: an atomic
      // read-modify-write, so that the look does not come first (law 6). The flags are the second
      // byte of the word.
      let flags = unsafe (slot + 4).assumingMemoryBound(to: Atomic<UInt32>.self)
      unsafe flags.pointee.bitwiseOr(
        UInt32(SynICMessageHeader.messagePending) << 8, ordering: .sequentiallyConsistent)
      guard unsafe type.pointee.load(ordering: .sequentiallyConsistent) == SynIC.noMessage else {
        return
      }
    }
    queue.removeFirst()
    var header = SynICMessageHeader()
    header.payloadByteCount = UInt8(truncatingIfNeeded: message.count)
    header.flags = queue.isEmpty ? 0 : SynICMessageHeader.messagePending
    var span = unsafe MutableRawSpan(_unsafeStart: slot, byteCount: SynIC.messageSlotByteCount)
    header.write(into: &span)
    for (index, byte) in message.array.enumerated() {
      span.storeBytes(of: byte, toByteOffset: 16 + index, as: UInt8.self)
    }
    // The type last: with it the slot is full.
    unsafe type.pointee.store(SynIC.vmbusMessage, ordering: .sequentiallyConsistent)
    interrupt.signalWithoutBlocking()
  }

  /// Raises the interrupt: the untrusted host has written into pages of its own.
  func raise() { interrupt.signalWithoutBlocking() }

  /// Sets a channel's event flag, and raises the interrupt unless it was set already.
  func setEventFlag(_ flag: UInt16) {
    let address = eventFlagsPage.load(ordering: .acquiring)
    guard flag < SynIC.eventFlagsPerSINT,
      let page = unsafe UnsafeMutableRawPointer(bitPattern: address)
    else { return }
    // Safe: a page of the guest, and the flag's word lies within it.
    let offset = SynIC.eventFlagsOffset(sint: SynIC.vmbusSINT) + Int(flag / 64) * 8
    let word = unsafe (page + offset).assumingMemoryBound(to: Atomic<UInt64>.self)
    let bit = UInt64(1) << UInt64(flag % 64)
    let before = unsafe word.pointee.bitwiseOr(bit, ordering: .sequentiallyConsistent).oldValue
    if before & bit == 0 { interrupt.signalWithoutBlocking() }
  }
}
