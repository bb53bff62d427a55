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
