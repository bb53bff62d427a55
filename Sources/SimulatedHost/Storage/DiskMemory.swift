// SPDX-License-Identifier: Apache-2.0

import Glibc

/// A disk in memory, all zero at first; it is gone with the host.
///
/// `@safe`: the mapping lives as long as the value, and every access is checked against it.
/// `@unchecked`: workers share raw bytes without a lock. Guests that race for the same blocks get
/// some mixture of both, as from a real disk, and nothing else reads the memory.
@safe
public struct DiskMemory: BlockBackend, ~Copyable, @unchecked Sendable {
  public let name = "memory"
  public let byteCount: UInt64
  public let isReadOnly: Bool
  private let memory: UnsafeMutableRawBufferPointer

  /// Takes address space at once, and memory only for what is written.
  public init(byteCount: UInt64, readOnly: Bool = false) throws(DiskImageError) {
    guard byteCount > 0 else { throw DiskImageError(name: "memory", .empty) }
    try DiskImageError.check(byteCount, multipleOf: 512, name: "memory")
    guard let count = Int(exactly: byteCount) else {
      throw DiskImageError(name: "memory", .system("mmap", ENOMEM))
    }
    let start = unsafe mmap(
      nil, count, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0)
    guard unsafe start != MAP_FAILED else {
      throw DiskImageError(name: "memory", .system("mmap", errno))
    }
    self.byteCount = byteCount
    isReadOnly = readOnly
    unsafe memory = UnsafeMutableRawBufferPointer(start: start, count: count)
  }

  deinit { unsafe munmap(memory.baseAddress, memory.count) }

  @_lifetime(target: copy target)
  public func read(at offset: UInt64, into target: inout MutableRawSpan) throws(BlockError) {
    try check(offset, target.byteCount)
    let start = Int(truncatingIfNeeded: offset)
    // Safe: the range was checked just above; both pointers end with the closure.
    unsafe target.withUnsafeMutableBytes { buffer in
      unsafe buffer.copyMemory(
        from: UnsafeRawBufferPointer(rebasing: memory[start..<(start &+ buffer.count)]))
    }
  }

  public func write(at offset: UInt64, from source: RawSpan) throws(BlockError) {
    guard !isReadOnly else { throw .readOnly }
    try check(offset, source.byteCount)
    let start = Int(truncatingIfNeeded: offset)
    // The closure must not capture the disk: that would be an allocation for each write.
    let memory = unsafe memory
    // Safe: the range was checked just above; both pointers end with the closure.
    unsafe source.withUnsafeBytes { buffer in
      unsafe UnsafeMutableRawBufferPointer(rebasing: memory[start..<(start &+ buffer.count)])
        .copyMemory(from: buffer)
    }
  }

  public func flush() throws(BlockError) {}

  public func discard(at offset: UInt64, count: UInt64) throws(BlockError) {
    guard !isReadOnly else { throw .readOnly }
    try check(offset, count)
    let start = Int(truncatingIfNeeded: offset)
    let end = start &+ Int(truncatingIfNeeded: count)
    // Whole pages are given back to the system, which has zeros for the next look.
    let firstPage = (start &+ 4095) & ~4095
    let lastPage = end & ~4095
    guard firstPage < lastPage else { return try writeZeros(at: offset, count: count) }
    try writeZeros(at: offset, count: UInt64(firstPage &- start))
    try writeZeros(at: UInt64(lastPage), count: UInt64(end &- lastPage))
    guard let base = unsafe memory.baseAddress else { return }
    // Safe: the range was checked, and private anonymous pages read as zeros after this.
    guard unsafe madvise(base + firstPage, lastPage &- firstPage, MADV_DONTNEED) == 0 else {
      throw .system(errno)
    }
  }

  /// What takes room is not known.
  public func allocation(at offset: UInt64) throws(BlockError) -> BlockAllocation {
    try check(offset, 1)
    return BlockAllocation(isAllocated: true, byteCount: byteCount &- offset)
  }

  public func refresh() throws(BlockError) -> Bool { false }
}
