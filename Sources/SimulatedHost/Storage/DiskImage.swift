// SPDX-License-Identifier: Apache-2.0

import Glibc

/// A disk's bytes, wherever they are: an enum, so that no call on the way to a file or to memory is
/// dynamic.
public enum DiskImage: BlockBackend, ~Copyable {
  case file(DiskFile)
  case memory(DiskMemory)
  /// Of somebody else.
  case other(any BlockBackend)

  /// Opens a raw file or a block device.
  public static func open(
    path: String, readOnly: Bool = false
  ) throws(DiskImageError) -> DiskImage {
    .file(try DiskFile(path: path, readOnly: readOnly))
  }

  /// A disk of zeros in memory.
  public static func inMemory(
    byteCount: UInt64, readOnly: Bool = false
  ) throws(DiskImageError) -> DiskImage {
    .memory(try DiskMemory(byteCount: byteCount, readOnly: readOnly))
  }

  public var name: String {
    switch self {
    case .file(let file): file.name
    case .memory(let memory): memory.name
    case .other(let other): other.name
    }
  }

  public var byteCount: UInt64 {
    switch self {
    case .file(let file): file.byteCount
    case .memory(let memory): memory.byteCount
    case .other(let other): other.byteCount
    }
  }

  public var isReadOnly: Bool {
    switch self {
    case .file(let file): file.isReadOnly
    case .memory(let memory): memory.isReadOnly
    case .other(let other): other.isReadOnly
    }
  }

  @_lifetime(target: copy target)
  public func read(at offset: UInt64, into target: inout MutableRawSpan) throws(BlockError) {
    switch self {
    case .file(let file): try file.read(at: offset, into: &target)
    case .memory(let memory): try memory.read(at: offset, into: &target)
    case .other(let other): try other.read(at: offset, into: &target)
    }
  }

  public func write(at offset: UInt64, from source: RawSpan) throws(BlockError) {
    switch self {
    case .file(let file): try file.write(at: offset, from: source)
    case .memory(let memory): try memory.write(at: offset, from: source)
    case .other(let other): try other.write(at: offset, from: source)
    }
  }

  public func flush() throws(BlockError) {
    switch self {
    case .file(let file): try file.flush()
    case .memory(let memory): try memory.flush()
    case .other(let other): try other.flush()
    }
  }

  public func discard(at offset: UInt64, count: UInt64) throws(BlockError) {
    switch self {
    case .file(let file): try file.discard(at: offset, count: count)
    case .memory(let memory): try memory.discard(at: offset, count: count)
    case .other(let other): try other.discard(at: offset, count: count)
    }
  }

  public func allocation(at offset: UInt64) throws(BlockError) -> BlockAllocation {
    switch self {
    case .file(let file): try file.allocation(at: offset)
    case .memory(let memory): try memory.allocation(at: offset)
    case .other(let other): try other.allocation(at: offset)
    }
  }

  public func refresh() throws(BlockError) -> Bool {
    switch self {
    case .file(let file): try file.refresh()
    case .memory(let memory): try memory.refresh()
    case .other(let other): try other.refresh()
    }
  }
}

/// Why an image can't serve as a disk, in one line for the operator.
public struct DiskImageError: Error, Equatable, Sendable {
  public enum Reason: Equatable, Sendable {
    case missing
    case noPermission(readOnly: Bool)
    /// The file system itself is read-only.
    case readOnlyFileSystem
    case directory
    case notADisk
    case empty
    case notAMultiple(byteCount: UInt64, blockSize: Int)
    /// A system call and its `errno`.
    case system(String, Int32)
  }

  /// The image's path.
  public let name: String
  public let reason: Reason

  init(name: String, _ reason: Reason) {
    self.name = name
    self.reason = reason
  }

  /// - Parameter error: the `errno` of the open.
  package init(name: String, opening error: Int32, readOnly: Bool) {
    self.name = name
    reason =
      switch error {
      case ENOENT, ENOTDIR: .missing
      case EACCES, EPERM: .noPermission(readOnly: readOnly)
      case EROFS: .readOnlyFileSystem
      case EISDIR: .directory
      default: .system("open", error)
      }
  }

  static func check(
    _ byteCount: UInt64, multipleOf blockSize: Int, name: String
  ) throws(DiskImageError) {
    guard byteCount % UInt64(blockSize) == 0 else {
      throw DiskImageError(name: name, .notAMultiple(byteCount: byteCount, blockSize: blockSize))
    }
  }
}

extension DiskImageError: CustomStringConvertible {
  public var description: String {
    let text =
      switch reason {
      case .missing: "no such file"
      case .noPermission(readOnly: true): "no permission to read it"
      case .noPermission(readOnly: false):
        "no permission to read and write it (a read-only disk needs less)"
      case .readOnlyFileSystem: "lies on a read-only file system (serve it as a read-only disk)"
      case .directory: "is a directory"
      case .notADisk: "is neither a file nor a block device"
      case .empty: "is empty"
      case .notAMultiple(let byteCount, let blockSize):
        "has \(byteCount) bytes, which is not a multiple of \(blockSize)"
      case .system(let call, let error): "\(call): \(systemErrorText(error))"
      }
    return "\(name): \(text)"
  }
}

private func systemErrorText(_ error: Int32) -> String {
  // Safe: the C library returns a terminated string that lives until this thread's next call.
  unsafe strerror(error).map { unsafe String(cString: $0) } ?? "error \(error)"
}
