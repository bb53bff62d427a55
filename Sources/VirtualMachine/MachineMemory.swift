// SPDX-License-Identifier: Apache-2.0

import Platform
import SimulatedLink
import Synchronization
import SystemPackage
import VMBus

/// The machine's memory: a memory file, which the host maps too. It lies from 0 up, and what has no
/// room below the devices' addresses lies from 4 GiB on.
///
/// In an isolated machine that file is the private memory, and what the guest has made host-visible lies
/// in another one: which of them an address without the boundary bit means, the page's visibility says,
/// since Linux leaves the bit out in what it tells the host.
@safe
final class MachineMemory: Sendable {
  let file: MemoryFile
  private let mapping: MappedMemory
  let lowByteCount: UInt64
  let highByteCount: UInt64
  /// Of an isolated machine.
  let hostVisible: HostVisibleMemory?

  static let byteCounts: ClosedRange<Int> = 64 << 20...64 << 30

  init(byteCount: Int, isIsolated: Bool = false) throws(MachineError) {
    guard Self.byteCounts.contains(byteCount), byteCount & 4095 == 0 else {
      throw .badMemorySize(byteCount)
    }
    lowByteCount = min(UInt64(byteCount), MachineLayout.deviceHole)
    highByteCount = UInt64(byteCount) - lowByteCount
    do throws(Errno) {
      file = try MemoryFile(name: "vmbus-vm", byteCount: byteCount)
      mapping = try file.map()
      hostVisible = isIsolated ? try HostVisibleMemory(byteCount: byteCount) : nil
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
    guard let offset = offset(of: address, count) else { return nil }
    guard let hostVisible else { return unsafe mapping.start + Int(offset) }
    return switch hostVisible.isVisible(offset, count) {
    case true?: unsafe hostVisible.start(at: offset)
    case false?: unsafe mapping.start + Int(offset)
    // Some of it is, and some is not.
    case nil: nil
    }
  }

  /// Where in its file a stretch of the guest's memory lies, whatever its address says of visibility.
  private func offset(of address: UInt64, _ count: Int) -> UInt64? {
    let address = hostVisible == nil ? address : address & ~MachineLayout.boundary
    for part in parts where address >= part.address {
      let within = address - part.address
      guard within < part.byteCount, UInt64(count) <= part.byteCount - within else { continue }
      return part.offset + within
    }
    return nil
  }

  /// Whether the page is host-visible; nil when it is no memory.
  func isVisible(_ page: GPN) -> Bool? {
    guard let offset = offset(ofPage: page) else { return nil }
    return hostVisible?.isVisible(offset, 4096)
  }

  /// Makes a page of an isolated machine host-visible, or private. Either way what it held is gone, and
  /// what it was before is zero as well: nothing that was exposed stays there.
  func setVisible(_ page: GPN, _ isVisible: Bool) {
    guard let hostVisible, let offset = offset(ofPage: page) else { return }
    hostVisible.set(offset, isVisible)
    // Safe: a page of each.
    unsafe (mapping.start + Int(offset)).initializeMemory(
      as: UInt8.self, repeating: 0, count: 4096)
    unsafe hostVisible.start(at: offset).initializeMemory(
      as: UInt8.self, repeating: 0, count: 4096)
  }

  private func offset(ofPage page: GPN) -> UInt64? {
    let (address, overflow) = page.multipliedReportingOverflow(by: 4096)
    return overflow ? nil : offset(of: address, 4096)
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

  /// Sets bits of a 32-bit word of the guest's memory at once. Returns false where there is none.
  @discardableResult
  func setBits(_ address: UInt64, _ bits: UInt32) -> Bool {
    guard address & 3 == 0, let place = unsafe place(address, 4) else { return false }
    // Safe: as in `word`.
    unsafe place.assumingMemoryBound(to: Atomic<UInt32>.self).pointee
      .bitwiseOr(bits, ordering: .sequentiallyConsistent)
    return true
  }
}
