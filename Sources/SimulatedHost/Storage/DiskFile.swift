// SPDX-License-Identifier: Apache-2.0

import CLinux
import Glibc
import Synchronization

/// A disk in a raw file, sparse or not, or on a block device.
public struct DiskFile: BlockBackend, ~Copyable {
  public let name: String
  public let isReadOnly: Bool
  private let descriptor: Int32
  private let size: Atomic<UInt64>

  /// As of the last look.
  public var byteCount: UInt64 { size.load(ordering: .relaxed) }

  /// Opens `path`, whose size must be a multiple of 512 bytes.
  public init(path: String, readOnly: Bool = false) throws(DiskImageError) {
    // Without O_NONBLOCK the open of a named pipe would wait for its other end.
    let flags = (readOnly ? O_RDONLY : O_RDWR) | O_CLOEXEC | O_NONBLOCK
    // Safe: the path is a terminated string for the time of the call.
    let opened = retrying { unsafe open(path, flags) }
    guard opened >= 0 else {
      throw DiskImageError(name: path, opening: errno, readOnly: readOnly)
    }
    let byteCount: UInt64
    do throws(DiskImageError) {
      byteCount = try DiskFile.size(of: opened, path)
    } catch {
      close(opened)
      throw error
    }
    size = Atomic(byteCount)
    name = path
    isReadOnly = readOnly
    descriptor = opened
  }

  deinit { close(descriptor) }

  private static func size(
    of descriptor: Int32, _ path: String
  ) throws(DiskImageError) -> UInt64 {
    var status = stat()
    guard unsafe fstat(descriptor, &status) == 0 else {
      throw DiskImageError(name: path, .system("fstat", errno))
    }
    let size: Int64
    switch status.st_mode & S_IFMT {
    case S_IFREG: size = Int64(status.st_size)
    case S_IFBLK: size = Int64(lseek(descriptor, 0, SEEK_END))
    case S_IFDIR: throw DiskImageError(name: path, .directory)
    default: throw DiskImageError(name: path, .notADisk)
    }
    guard size >= 0 else { throw DiskImageError(name: path, .system("lseek", errno)) }
    guard size > 0 else { throw DiskImageError(name: path, .empty) }
    let byteCount = UInt64(size)
    try DiskImageError.check(byteCount, multipleOf: 512, name: path)
    return byteCount
  }

  @_lifetime(target: copy target)
  public func read(at offset: UInt64, into target: inout MutableRawSpan) throws(BlockError) {
    try check(offset, target.byteCount)
    var failure: BlockError?
    // Safe: the pointer is used within the closure and within the buffer's bounds only.
    unsafe target.withUnsafeMutableBytes { buffer in
      var done = 0
      while done < buffer.count {
        let place = unsafe buffer.baseAddress.map { unsafe $0 + done }
        let position = off_t(truncatingIfNeeded: offset &+ UInt64(done))
        let moved = unsafe pread(descriptor, place, buffer.count &- done, position)
        if moved > 0 {
          done &+= moved
        } else if moved == 0 {
          failure = .ended(offset: offset &+ UInt64(done))
          return
        } else if errno != EINTR {
          failure = .system(errno)
          return
        }
      }
    }
    if let failure { throw failure }
  }

  public func write(at offset: UInt64, from source: RawSpan) throws(BlockError) {
    guard !isReadOnly else { throw .readOnly }
    try check(offset, source.byteCount)
    var failure: BlockError?
    // Safe: the pointer is used within the closure and within the buffer's bounds only.
    unsafe source.withUnsafeBytes { buffer in
      var done = 0
      while done < buffer.count {
        let place = unsafe buffer.baseAddress.map { unsafe $0 + done }
        let position = off_t(truncatingIfNeeded: offset &+ UInt64(done))
        let moved = unsafe pwrite(descriptor, place, buffer.count &- done, position)
        if moved > 0 {
          done &+= moved
        } else if moved == 0 {
          failure = .system(ENOSPC)
          return
        } else if errno != EINTR {
          failure = .system(errno)
          return
        }
      }
    }
    if let failure { throw failure }
  }

  public func flush() throws(BlockError) {
    guard !isReadOnly else { return }
    guard retrying({ fdatasync(descriptor) }) == 0 else { throw .system(errno) }
  }

  public func discard(at offset: UInt64, count: UInt64) throws(BlockError) {
    guard !isReadOnly else { throw .readOnly }
    try check(offset, count)
    guard count > 0 else { return }
    let (start, length) = (Int64(truncatingIfNeeded: offset), Int64(truncatingIfNeeded: count))
    let result = retrying { vmbus_punch_hole(descriptor, start, length) }
    if result == 0 { return }
    // Not every file system has holes.
    guard errno == EOPNOTSUPP || errno == ENOSYS else { throw .system(errno) }
    try writeZeros(at: offset, count: count)
  }

  public func allocation(at offset: UInt64) throws(BlockError) -> BlockAllocation {
    try check(offset, 1)
    let end = byteCount
    let start = Int64(truncatingIfNeeded: offset)
    let data = vmbus_seek_data(descriptor, start)
    // From there on there are only holes.
    if data < 0, errno == ENXIO {
      return BlockAllocation(isAllocated: false, byteCount: end &- offset)
    }
    // A block device, or a file system that does not tell: all of it takes room.
    guard data >= 0 else { return BlockAllocation(isAllocated: true, byteCount: end &- offset) }
    let next = data > start ? data : vmbus_seek_hole(descriptor, start)
    guard next > start else {
      return BlockAllocation(isAllocated: true, byteCount: end &- offset)
    }
    return BlockAllocation(
      isAllocated: data == start, byteCount: min(UInt64(next), end) &- offset)
  }

  public func refresh() throws(BlockError) -> Bool {
    do throws(DiskImageError) {
      let now = try DiskFile.size(of: descriptor, name)
      return size.exchange(now, ordering: .relaxed) != now
    } catch {
      guard case .system(_, let number) = error.reason else {
        // Empty, or no whole number of sectors: while it is being written, say.
        return false
      }
      throw .system(number)
    }
  }
}

/// Calls again as long as a signal came between.
private func retrying(_ call: () -> Int32) -> Int32 {
  while true {
    let result = call()
    if result >= 0 || errno != EINTR { return result }
  }
}
