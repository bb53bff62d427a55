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
    // Safe: the range was checked just above; both pointers end with the closure.
    unsafe source.withUnsafeBytes { buffer in
      unsafe UnsafeMutableRawBufferPointer(rebasing: memory[start..<(start &+ buffer.count)])
        .copyMemory(from: buffer)
    }
  }

  public func flush() throws(BlockError) {}
}
