// SPDX-License-Identifier: Apache-2.0

import CLinux
import NVMeProtocol
import PCIFunction
import Synchronization
import VSC

/// A submission queue with a completion queue of its own: entries in, entries out, doorbells.
///
/// Its owner keeps fewer requests under way than there are entries. Then the controller has always read
/// an entry before it is written again: it reads them in their order, and one that is not read yet is a
/// request under way. So how far it says to have read need not be believed.
@safe
@usableFromInline
struct QueuePair: ~Copyable {
  @usableFromInline let number: UInt16
  @usableFromInline let memory: QueueMemory
  @usableFromInline let submissions: UnsafeMutableRawPointer
  @usableFromInline let completions: UnsafeMutableRawPointer
  @usableFromInline let entries: UInt32
  @usableFromInline let tailDoorbell: PCIDoorbell
  @usableFromInline let headDoorbell: PCIDoorbell
  @usableFromInline var tail: UInt32 = 0
  @usableFromInline var head: UInt32 = 0
  /// The tag that an entry has when it is new: it changes with each round.
  @usableFromInline var phase: UInt64 = 1
  @usableFromInline var shownTail: UInt32 = 0
  @usableFromInline var shownHead: UInt32 = 0

  init(
    _ number: UInt16, _ memory: QueueMemory, _ registers: PCIRegisters, stride: Int
  ) throws(PCIError) {
    let tail = try registers.doorbell(at: NVMeRegister.tail(number, stride: stride))
    let head = try registers.doorbell(at: NVMeRegister.head(number, stride: stride))
    self.number = number
    self.memory = memory
    unsafe submissions = memory.submissions.start
    unsafe completions = memory.completions.start
    entries = UInt32(memory.entries)
    tailDoorbell = tail
    headDoorbell = head
  }

  /// Begins anew, as the controller does when the queue is created. It must not know the queue now.
  mutating func restart() {
    memory.clear()
    (tail, head, shownTail, shownHead, phase) = (0, 0, 0, 0, 1)
  }

  /// Puts a command into the next entry; `publish` shows it to the controller.
  @inlinable
  mutating func push(_ command: NVMeCommand) {
    // Safe: the entry lies within the queue, and the controller has read what was there.
    let entry = unsafe submissions + Int(tail) &* NVMeCommand.byteCount
    let words = command.words
    for index in words.indices {
      unsafe entry.storeBytes(
        of: words[index].littleEndian, toByteOffset: index &* 8, as: UInt64.self)
    }
    tail = tail &+ 1 == entries ? 0 : tail &+ 1
  }

  /// The next completion, copied out, or nil when there is none.
  @inlinable
  mutating func pop() -> NVMeCompletion? {
    // Safe: the entry lies within the queue. The word with the phase tag is read once, before the rest:
    // the controller writes it last.
    let entry = unsafe completions + Int(head) &* NVMeCompletion.byteCount
    let word = unsafe UInt64(
      littleEndian: (entry + 8).assumingMemoryBound(to: Atomic<UInt64>.self).pointee
        .load(ordering: .acquiring))
    guard word >> 48 & 1 == phase else { return nil }
    vmbus_after_register()
    var completion = NVMeCompletion()
    completion.result = unsafe UInt32(
      littleEndian: entry.assumingMemoryBound(to: Atomic<UInt32>.self).pointee
        .load(ordering: .relaxed))
    completion.head = UInt16(truncatingIfNeeded: word)
    completion.queue = UInt16(truncatingIfNeeded: word >> 16)
    completion.identifier = UInt16(truncatingIfNeeded: word >> 32)
    completion.status = UInt16(truncatingIfNeeded: word >> 48)
    head &+= 1
    if head == entries {
      head = 0
      phase ^= 1
    }
    return completion
  }

  /// Whether `pop` would find something.
  var hasCompletion: Bool {
    let entry = unsafe completions + Int(head) &* NVMeCompletion.byteCount
    let word = unsafe UInt64(
      littleEndian: (entry + 8).assumingMemoryBound(to: Atomic<UInt64>.self).pointee
        .load(ordering: .acquiring))
    return word >> 48 & 1 == phase
  }

  /// Shows the controller what was put in and what was taken out.
  ///
  /// - Returns: how many doorbells were rung.
  @inlinable
  mutating func publish() -> Int {
    var rung = 0
    if shownHead != head {
      shownHead = head
      headDoorbell.ring(head)
      rung = 1
    }
    if shownTail != tail {
      shownTail = tail
      tailDoorbell.ring(tail)
      rung &+= 1
    }
    return rung
  }
}
