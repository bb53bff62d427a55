// SPDX-License-Identifier: Apache-2.0

import NetworkProtocol
import Synchronization
import VSC

/// A message that the host has not completed.
@usableFromInline
struct SendRequest<Memory: Visibility>: ~Copyable {
  @usableFromInline
  enum Kind {
    /// Frames in a section of the send buffer.
    case section
    /// A frame in a buffer of its own.
    case frame
    /// A control message, in a buffer of its own.
    case control
    /// A NVSP message of the start-up.
    case startup
    case dataPath
  }

  @usableFromInline let kind: Kind
  @usableFromInline var section: UInt32
  /// Bytes of the section that the host was told of.
  @usableFromInline var byteCount: UInt32
  @usableFromInline var packets: UInt32
  @usableFromInline var frame: FrameBuffer<Memory>?

  @inlinable
  init(
    _ kind: Kind, section: UInt32 = 0, byteCount: Int = 0, packets: UInt32 = 0,
    frame: consuming FrameBuffer<Memory>?
  ) {
    self.kind = kind
    self.section = section
    self.byteCount = UInt32(truncatingIfNeeded: byteCount)
    self.packets = packets
    self.frame = frame
  }
}

/// A queue's part of the send buffer, and the section that is being filled. No other queue touches these
/// sections, so that they need no lock.
@safe
@usableFromInline
struct SendSections: ~Copyable {
  @usableFromInline let base: UnsafeMutableRawPointer
  /// Keeps the send buffer.
  private let owner: (any AnyObject & Sendable)?
  @usableFromInline let free: UnsafeMutablePointer<UInt32>
  @usableFromInline var freeCount: Int
  let count: Int
  @usableFromInline let byteCount: Int
  /// Bytes that one message may have, beside what a section holds.
  @usableFromInline let limit: Int

  // The section that is being filled.
  @usableFromInline var current: UInt32?
  @usableFromInline var used = 0
  @usableFromInline var packets: UInt32 = 0

  /// None.
  init() {
    unsafe free = .allocate(capacity: 1)
    unsafe base = UnsafeMutableRawPointer(free)
    owner = nil
    freeCount = 0
    count = 0
    byteCount = 0
    limit = 0
  }

  /// - Parameters:
  ///   - base: the send buffer, in which the sections lie.
  ///   - first: the first section that is this queue's.
  init(
    _ base: UnsafeMutableRawPointer, owner: (any AnyObject & Sendable)?, first: Int, count: Int,
    byteCount: Int, limit: Int
  ) {
    unsafe self.base = base
    self.owner = owner
    self.count = count
    self.byteCount = byteCount
    self.limit = min(limit, byteCount)
    unsafe free = .allocate(capacity: max(count, 1))
    for index in 0..<count {
      unsafe (free + index).initialize(to: UInt32(first + count - 1 - index))
    }
    freeCount = count
  }

  @usableFromInline
  deinit { unsafe free.deallocate() }

  /// Begins to fill a free section. Returns false when there is none.
  @inlinable
  mutating func open() -> Bool {
    guard freeCount > 0 else { return false }
    freeCount &-= 1
    current = unsafe free[freeCount]
    used = 0
    packets = 0
    return true
  }

  /// The host is done with a section: one of this queue's, that was sent.
  @inlinable
  mutating func push(_ section: UInt32) {
    unsafe free[freeCount] = section
    freeCount &+= 1
  }

  /// Where a section of this queue's lies.
  @inlinable
  func start(of section: UInt32) -> UnsafeMutableRawPointer {
    unsafe base + Int(section) &* byteCount
  }

  /// Bytes of the current section behind those that are used.
  @inlinable
  @_lifetime(&self)
  mutating func rest(_ section: UInt32) -> MutableRawSpan {
    // Safe: a section lies within the buffer, which is kept.
    unsafe _overrideLifetime(
      MutableRawSpan(
        _unsafeStart: start(of: section) + used, byteCount: byteCount &- used),
      mutating: &self)
  }
}

/// The queue for each value of a hash modulo 16, as the host wants it; for all queues of a device.
@safe
@usableFromInline
final class SendTable: @unchecked Sendable {
  // All accesses are atomic.
  @usableFromInline let entries: UnsafeMutablePointer<Atomic<UInt32>>

  init() {
    unsafe entries = .allocate(capacity: 16)
    for index in 0..<16 { unsafe (entries + index).initialize(to: Atomic(0)) }
  }

  deinit { unsafe entries.deallocate() }

  func set(_ table: SendIndirectionTable) {
    for index in 0..<16 {
      unsafe entries[index].store(table.entries[index], ordering: .relaxed)
    }
  }

  @inlinable
  func queue(_ hash: UInt32) -> Int {
    Int(unsafe entries[Int(hash & 15)].load(ordering: .relaxed))
  }
}
