// SPDX-License-Identifier: Apache-2.0

import CRevocation
import PCIFunction
import Platform
import Synchronization
import SystemPackage
import VSC

/// The registers of a BAR, as long as somebody has them. When the function goes, they become memory that
/// reads as all ones: a mapping that is left would keep the function from being given back.
@safe
final class MappedBAR: @unchecked Sendable {
  // Only the atomic changes.
  private let mapping: MappedMemory
  private let word: UnsafeMutablePointer<Atomic<UInt32>>

  /// - Parameter reason: what `end` is once an access has failed.
  init(
    _ descriptor: Int32, offset: Int, byteCount: Int, reason: ChannelEnd
  ) throws(Errno) {
    let mapping = try MappedMemory(descriptor, offset: offset, byteCount: byteCount)
    let word = UnsafeMutablePointer<Atomic<UInt32>>.allocate(capacity: 1)
    unsafe word.initialize(to: Atomic(0))
    // Safe: both stay until the range is unguarded.
    let result = unsafe vmbus_guard_registers(
      mapping.start, byteCount,
      UnsafeMutableRawPointer(word).assumingMemoryBound(to: UInt32.self), reason.rawValue)
    guard result == 0 else {
      unsafe word.deallocate()
      throw Errno(rawValue: -result)
    }
    self.mapping = mapping
    unsafe self.word = word
  }

  deinit {
    unsafe vmbus_unguard(mapping.start)
    unsafe word.deallocate()
  }

  /// Why the registers are gone, or nil while they are there.
  var end: ChannelEnd? { ChannelEnd(rawValue: unsafe word.pointee.load(ordering: .acquiring)) }

  /// Takes the registers away.
  func revoke() { unsafe vmbus_revoke(mapping.start) }

  var registers: PCIRegisters {
    // Safe: this object, which keeps the mapping and guards it, is the owner.
    unsafe PCIRegisters(start: mapping.start, byteCount: mapping.byteCount, owner: self)
  }
}
