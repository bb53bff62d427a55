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

/// Huge pages of 2 MiB: the kernel neither swaps them out nor moves them when it makes room, so their
/// physical addresses can be given to a device.
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

/// Tells where this process's pages lie in physical memory.
public final class PageMap: Sendable {
  let owned: OwnedDescriptor

  /// Open it while the process has its privileges: what counts is who opened it.
  public init() throws(Errno) {
    owned = try OwnedDescriptor(owning: checked(vmbus_open_pagemap()))
  }

  /// The number of the physical page of the system's size at an address, or nil when the kernel
  /// does not tell.
  @unsafe
  public func frame(at address: UnsafeRawPointer) throws(Errno) -> UInt64? {
    var frame: UInt64 = 0
    try checked(unsafe vmbus_page_frame(owned.rawValue, address, &frame))
    return frame == 0 ? nil : frame
  }

  /// The numbers of the physical pages of 4096 bytes behind each other from an address, 0 where the
  /// kernel does not tell. For a system whose pages have that size.
  @unsafe
  public func frames(at start: UnsafeRawPointer, count: Int) throws(Errno) -> [UInt64] {
    var frames = [UInt64](repeating: 0, count: count)
    let got = try checked(
      unsafe vmbus_page_frames(owned.rawValue, start, &frames, UInt32(count)))
    guard got == count else { throw .ioError }
    return frames
  }
}

/// The size of the pages that this system maps: 4096 bytes on x86, more on some Arm kernels.
public enum SystemPage {
  public static let byteCount = Int(getpagesize())
}
