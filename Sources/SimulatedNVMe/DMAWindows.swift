// SPDX-License-Identifier: Apache-2.0

import Platform
import SystemPackage

/// The memory that a device may reach, by its own addresses. Anything else is refused and counted.
@safe
struct DMAWindows {
  private final class Window: Sendable {
    let address: UInt64
    let byteCount: Int
    let mayRead: Bool
    let mayWrite: Bool
    let memory: MappedMemory

    init(
      address: UInt64, byteCount: Int, access: UInt32, _ memory: consuming MappedMemory
    ) {
      self.address = address
      self.byteCount = byteCount
      mayRead = access & 1 != 0
      mayWrite = access & 2 != 0
      self.memory = memory
    }
  }

  enum Access { case read, write }

  /// By address; they do not overlap.
  private var windows: [Window] = []
  /// Accesses that were refused.
  private(set) var refused: UInt64 = 0

  var count: Int { windows.count }

  /// - Throws: `invalidArgument` for what is no window, `addressInUse` for one that overlaps another.
  mutating func map(
    address: UInt64, byteCount: UInt64, access: UInt32, _ file: borrowing MemoryFile
  ) throws(Errno) {
    guard address & 4095 == 0, byteCount & 4095 == 0, byteCount > 0, byteCount <= 1 << 40,
      byteCount <= UInt64(file.byteCount), address <= UInt64.max - byteCount
    else { throw .invalidArgument }
    let place = windows.firstIndex { $0.address >= address } ?? windows.count
    if place < windows.count, windows[place].address < address + byteCount { throw .addressInUse }
    if place > 0, windows[place - 1].address + UInt64(windows[place - 1].byteCount) > address {
      throw .addressInUse
    }
    let memory = try MappedMemory(file.owned.rawValue, byteCount: Int(byteCount))
    windows.insert(
      Window(address: address, byteCount: Int(byteCount), access: access, memory), at: place)
  }

  mutating func unmap(address: UInt64, byteCount: UInt64) throws(Errno) {
    guard
      let place = windows.firstIndex(where: {
        $0.address == address && UInt64($0.byteCount) == byteCount
      })
    else { throw .invalidArgument }
    windows.remove(at: place)
  }

  mutating func removeAll() { windows = [] }

  /// Calls `body` with the memory at an address: all of `count` bytes, which must lie in one window.
  @discardableResult
  mutating func with<Result>(
    _ address: UInt64, _ count: Int, _ access: Access,
    _ body: (UnsafeMutableRawBufferPointer) throws -> Result
  ) rethrows -> Result? {
    var (low, high) = (0, windows.count)
    while low < high {
      let middle = (low + high) / 2
      if windows[middle].address <= address { low = middle + 1 } else { high = middle }
    }
    guard low > 0 else { return refuse() }
    let window = windows[low - 1]
    let offset = address - window.address
    guard count >= 0, offset <= UInt64(window.byteCount),
      count <= window.byteCount - Int(offset), access == .read ? window.mayRead : window.mayWrite
    else { return refuse() }
    // Safe: within the window, which this keeps.
    return try unsafe body(
      UnsafeMutableRawBufferPointer(
        rebasing: window.memory.bytes[Int(offset)..<Int(offset) + count]))
  }

  private mutating func refuse<Result>() -> Result? {
    refused &+= 1
    return nil
  }

  /// A word of 64 bits, little-endian.
  mutating func word(_ address: UInt64) -> UInt64? {
    unsafe with(address, 8, .read) {
      unsafe UInt64(littleEndian: $0.loadUnaligned(as: UInt64.self))
    }
  }

  mutating func bytes(_ address: UInt64, _ count: Int) -> [UInt8]? {
    unsafe with(address, count, .read) { unsafe [UInt8]($0) }
  }

  /// The address and length of the nth window that the device may write; nil when there is none.
  func writable(_ index: UInt64) -> (address: UInt64, byteCount: Int)? {
    let all = windows.filter(\.mayWrite)
    guard !all.isEmpty else { return nil }
    let window = all[Int(index % UInt64(all.count))]
    return (window.address, window.byteCount)
  }
}
