// SPDX-License-Identifier: Apache-2.0

import Platform
import VMBus
import VSC

/// A buffer of a network device that the kernel shares with the host.
@safe
final class UIOSharedMemory: @unchecked Sendable {
  // Only the memory changes, and it is made for several threads.
  private let mapping: MappedMemory

  /// The mapping keeps the pages, whatever becomes of the device. Touching all of them now leaves nothing
  /// to be fetched later, when the device may be gone and fetching would end this process.
  init(_ mapping: consuming MappedMemory) {
    self.mapping = mapping
    // What earlier users have left is nobody's affair.
    unsafe self.mapping.start.initializeMemory(
      as: UInt8.self, repeating: 0, count: self.mapping.byteCount)
  }

  func pages(_ gpadl: GPADLID) -> SharedPages {
    // Safe: this object, which keeps the mapping, is the owner.
    unsafe SharedPages(
      start: mapping.start, byteCount: mapping.byteCount, gpadl: gpadl, owner: self)
  }
}
