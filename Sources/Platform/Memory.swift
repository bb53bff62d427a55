// SPDX-License-Identifier: Apache-2.0

import CLinux
public import SystemPackage

/// Shared memory mapped into this process for as long as the value lives.
@safe
public struct MappedMemory: ~Copyable, @unchecked Sendable {
  public let start: UnsafeMutableRawPointer
  public let byteCount: Int

  /// Maps `byteCount` bytes of a file from `offset`, both multiples of 4096, for both sides to
  /// write.
  public init(_ descriptor: Int32, offset: Int = 0, byteCount: Int) throws(Errno) {
    unsafe start = try mapped(nil, byteCount, descriptor, offset)
    self.byteCount = byteCount
  }

  /// Maps pages from all over a file behind each other, so that they are one stretch of memory
  /// here: a ring whose pages lie apart in the guest.
  ///
  /// - Parameter runs: file offsets and lengths, multiples of 4096.
  public static func joining(
    _ runs: [(offset: Int, byteCount: Int)], of descriptor: Int32
  ) throws(Errno) -> MappedMemory {
    let memory = try MappedMemory(reserving: runs.reduce(0) { $0 + $1.byteCount })
    var position = 0
    for run in runs {
      unsafe _ = try mapped(memory.start + position, run.byteCount, descriptor, run.offset)
      position += run.byteCount
    }
    return memory
  }

  private init(reserving byteCount: Int) throws(Errno) {
    unsafe start = try mapped(nil, byteCount, -1, 0)
    self.byteCount = byteCount
  }

  deinit { unsafe _ = munmap(start, byteCount) }

  /// Puts the same stretch of another file, of the same size, at a place of this mapping; with nil
  /// nothing, so that an access faults. Nobody may be using the place.
  ///
  /// - Parameters:
  ///   - offset: bytes into mapping and file, a multiple of 4096.
  ///   - byteCount: a multiple of 4096.
  public func remap(at offset: Int, byteCount: Int, to file: Int32?) throws(Errno) {
    guard offset >= 0, byteCount > 0, offset <= self.byteCount - byteCount else {
      throw .invalidArgument
    }
    // Safe: within the mapping, which stays this value's.
    unsafe _ = try mapped(start + offset, byteCount, file ?? -1, file == nil ? 0 : offset)
  }

  public var bytes: UnsafeMutableRawBufferPointer {
    unsafe UnsafeMutableRawBufferPointer(start: start, count: byteCount)
  }
}

private func mapped(
  _ place: UnsafeMutableRawPointer?, _ byteCount: Int, _ descriptor: Int32, _ offset: Int
) throws(Errno) -> UnsafeMutableRawPointer {
  var error: Int32 = 0
  guard let start = unsafe vmbus_map(place, byteCount, descriptor, UInt64(offset), &error) else {
    throw Errno(rawValue: error)
  }
  return unsafe start
}

/// Memory that can be passed to another process: a memfd that can neither shrink nor grow.
public struct MemoryFile: ~Copyable, Sendable {
  public let owned: OwnedDescriptor
  public let byteCount: Int

  /// New memory, all zero.
  ///
  /// - Parameters:
  ///   - name: as `/proc/PID/maps` shows it.
  ///   - byteCount: a multiple of 4096.
  public init(name: String, byteCount: Int) throws(Errno) {
    owned = try OwnedDescriptor(
      owning: checked(unsafe vmbus_memory_file(name, UInt64(byteCount))))
    self.byteCount = byteCount
  }

  /// Memory that a peer passed. It is refused unless it is sealed against shrinking: or the peer
  /// could kill this process by cutting it off.
  public init(received owned: consuming OwnedDescriptor) throws(Errno) {
    let size = vmbus_file_size(owned.rawValue)
    guard size > 0, size & 4095 == 0, vmbus_is_sealed(owned.rawValue) == 1 else {
      throw .invalidArgument
    }
    byteCount = Int(size)
    self.owned = owned
  }

  public func map() throws(Errno) -> MappedMemory {
    try MappedMemory(owned.rawValue, byteCount: byteCount)
  }
}

/// Huge pages of 2 MiB: the kernel neither swaps them out nor moves them when it makes room. It may move
/// them when memory is taken offline, or a larger contiguous area is made: see `PinnedPages`.
public struct HugePageFile: ~Copyable, Sendable {
  public static let pageByteCount = 2 << 20

  public let owned: OwnedDescriptor
  public let byteCount: Int

  /// Takes free huge pages, all zero.
  ///
  /// - Parameters:
  ///   - byteCount: a multiple of `pageByteCount`.
  ///   - limit: the descriptor is below it.
  /// - Throws: `noMemory` or `noSpace` when the machine has not that many.
  public init(name: String, byteCount: Int, below limit: Int32) throws(Errno) {
    owned = try OwnedDescriptor(
      owning: checked(unsafe vmbus_huge_page_file(name, UInt64(byteCount), limit)))
    self.byteCount = byteCount
  }

  public func map() throws(Errno) -> MappedMemory {
    try MappedMemory(owned.rawValue, byteCount: byteCount)
  }
}

/// Keeps the pages of a mapping where they are, whatever the kernel would do with them, by registering
/// them with an io_uring that is never used.
public struct PinnedPages: ~Copyable, Sendable {
  private let ring: OwnedDescriptor

  /// - Parameters:
  ///   - unitByteCount: what is pinned at once; at most 16384 of them.
  /// - Returns: nil when this process may not (`kernel.io_uring_disabled`, RLIMIT_MEMLOCK).
  public init?(_ memory: borrowing MappedMemory, unitByteCount: Int) {
    guard let ring = Self.ring(memory, unitByteCount) else { return nil }
    self.ring = ring
  }

  private static func ring(
    _ memory: borrowing MappedMemory, _ unitByteCount: Int
  ) -> OwnedDescriptor? {
    let descriptor = vmbus_pin_ring()
    guard descriptor >= 0 else { return nil }
    let ring = OwnedDescriptor(owning: descriptor)
    for slot in 0..<memory.byteCount / unitByteCount {
      // Safe: within the mapping; and closing the ring, which ends the pin, needs no mapping.
      let start = unsafe memory.start + slot * unitByteCount
      guard unsafe vmbus_pin(ring.rawValue, UInt32(clamping: slot), start, unitByteCount) == 0
      else {
        return nil
      }
    }
    return ring
  }
}

/// Tells where this process's pages lie in physical memory.
public final class PageMap: Sendable {
  let owned: OwnedDescriptor

  /// Open it while the process has its privileges: what counts is who opened it.
  public init() throws(Errno) {
    owned = try OwnedDescriptor(owning: checked(vmbus_open_pagemap()))
  }

  /// The numbers of `count` physical pages of the system's size, from an address on: 0 for a page
  /// that is not in memory, or whose number the kernel does not tell.
  @unsafe
  public func frames(at address: UnsafeRawPointer, count: Int) throws(Errno) -> [UInt64] {
    var words = [UInt64](repeating: 0, count: count)
    try checked(unsafe vmbus_read_pagemap(owned.rawValue, address, &words, count))
    // Bit 63: present. Bits 0 to 54: the number.
    return words.map { $0 >> 63 == 1 ? $0 & (1 << 55 - 1) : 0 }
  }
}

/// The size of the pages that this system maps: 4096 bytes on x86, more on some Arm kernels.
public enum SystemPage {
  public static let byteCount = Int(getpagesize())
}
