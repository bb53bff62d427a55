// SPDX-License-Identifier: Apache-2.0

import Synchronization
import VMBus

/// The guest's side of a virtual processor's two SynIC pages: what it takes out of them.
@safe
public struct SynICPages: @unchecked Sendable {
  // All accesses that the other side could see are atomic.
  private let message: UnsafeMutableRawPointer
  private let eventFlags: UnsafeMutableRawPointer

  /// - Parameters:
  ///   - message: the message page. The caller keeps both mapped as long as this value is used.
  ///   - eventFlags: the event flags page.
  @unsafe
  public init(message: UnsafeMutableRawPointer, eventFlags: UnsafeMutableRawPointer) {
    unsafe self.message = message
    unsafe self.eventFlags = eventFlags
  }

  /// Clears all event flags: for a guest that polls all its rings at each interrupt.
  public func clearEventFlags() {
    let start = unsafe eventFlags + SynIC.eventFlagsOffset(sint: SynIC.vmbusSINT)
    let flags = unsafe start.assumingMemoryBound(to: Atomic<UInt64>.self)
    for word in 0..<SynIC.eventFlagsPerSINT / 64 {
      if unsafe flags[word].load(ordering: .relaxed) != 0 {
        unsafe flags[word].store(0, ordering: .sequentiallyConsistent)
      }
    }
  }

  /// Takes all event flags that are set: the number of each word of 32 flags, and what is set there.
  public func takeEventFlags(_ body: (_ word: Int, _ bits: UInt32) -> Void) {
    let start = unsafe eventFlags + SynIC.eventFlagsOffset(sint: SynIC.vmbusSINT)
    let flags = unsafe start.assumingMemoryBound(to: Atomic<UInt32>.self)
    for word in 0..<SynIC.eventFlagsPerSINT / 32 {
      guard unsafe flags[word].load(ordering: .relaxed) != 0 else { continue }
      body(word, unsafe flags[word].exchange(0, ordering: .sequentiallyConsistent))
    }
  }

  /// The message in the slot, copied out once; nil when there is none.
  ///
  /// - Returns: `moreWait` when the end of message must be signalled.
  public func takeMessage() -> (bytes: [UInt8], moreWait: Bool)? {
    let slot = unsafe message + SynIC.messageSlotOffset(sint: SynIC.vmbusSINT)
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
    // A whole word, atomic, since the other side asks in the same order: or a message would wait
    // that nobody asks for (law 6; Models/synic-messages.pml). The flags are its second byte.
    let word = unsafe (slot + 4).assumingMemoryBound(to: Atomic<UInt32>.self)
    let flags = unsafe UInt8(
      truncatingIfNeeded: word.pointee.load(ordering: .sequentiallyConsistent) >> 8)
    return (bytes, flags & SynICMessageHeader.messagePending != 0)
  }
}
