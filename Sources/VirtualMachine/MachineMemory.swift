// SPDX-License-Identifier: Apache-2.0

import Platform
import SimulatedLink
import Synchronization
import SystemPackage
import VMBus

/// The machine's memory: a memory file, which the host maps too. It lies from 0 up, and what has no
/// room below the devices' addresses lies from 4 GiB on.
@safe
final class MachineMemory: Sendable {
  let file: MemoryFile
  private let mapping: MappedMemory
  let lowByteCount: UInt64
  let highByteCount: UInt64

  static let byteCounts: ClosedRange<Int> = 64 << 20...64 << 30

  init(byteCount: Int) throws(MachineError) {
    guard Self.byteCounts.contains(byteCount), byteCount & 4095 == 0 else {
      throw .badMemorySize(byteCount)
    }
    lowByteCount = min(UInt64(byteCount), MachineLayout.deviceHole)
    highByteCount = UInt64(byteCount) - lowByteCount
    do throws(Errno) {
      file = try MemoryFile(name: "vmbus-vm", byteCount: byteCount)
      mapping = try file.map()
    } catch {
      throw .memory(error)
    }
  }

  /// The stretches of it: where the guest has them, where they lie in the file, and how long.
  var parts: [(address: UInt64, offset: UInt64, byteCount: UInt64)] {
    let low = (UInt64(0), UInt64(0), lowByteCount)
    return highByteCount == 0
      ? [low] : [low, (MachineLayout.deviceHoleEnd, lowByteCount, highByteCount)]
  }

  /// What the host is told.
  var regions: [LinkRegion] {
    parts.map { part in
      var region = LinkRegion()
      region.firstPage = part.address / 4096
      region.pageCount = part.byteCount / 4096
      region.fileOffset = part.offset
      return region
    }
  }

  /// For KVM: where a part lies in this process.
  @unsafe
  func start(ofPartAt offset: UInt64) -> UnsafeMutableRawPointer {
    unsafe mapping.start + Int(offset)
  }

  /// Where a stretch of the guest's memory lies, or nil when not all of it is memory.
  @unsafe
  private func place(_ address: UInt64, _ count: Int) -> UnsafeMutableRawPointer? {
    for part in parts where address >= part.address {
      let within = address - part.address
      guard within < part.byteCount, UInt64(count) <= part.byteCount - within else { continue }
      return unsafe mapping.start + Int(part.offset + within)
    }
    return nil
  }

  /// Copies out what the guest may be writing at the same time.
  func read(_ address: UInt64, count: Int) -> [UInt8]? {
    guard count >= 0, let place = unsafe place(address, count) else { return nil }
    return unsafe [UInt8](UnsafeRawBufferPointer(start: place, count: count))
  }

  /// Returns false when not all of it would lie in memory.
  func write(_ address: UInt64, _ bytes: some Collection<UInt8>) -> Bool {
    guard let place = unsafe place(address, bytes.count) else { return false }
    unsafe UnsafeMutableRawBufferPointer(start: place, count: bytes.count).copyBytes(from: bytes)
    return true
  }

  /// A 32-bit word of the guest's memory, read at once.
  func word(_ address: UInt64) -> UInt32? {
    guard address & 3 == 0, let place = unsafe place(address, 4) else { return nil }
    // Safe: within the mapping, aligned, and atomic, since others write it.
    return unsafe place.assumingMemoryBound(to: Atomic<UInt32>.self).pointee
      .load(ordering: .sequentiallyConsistent)
  }
}
