// SPDX-License-Identifier: Apache-2.0

import CLinux
import Platform
import SimulatedLink
import Synchronization
import SystemPackage
import VMBus
import VSC

/// All of the guest's memory of one kind, given out in stretches of pages.
@safe
final class PageArena: @unchecked Sendable {
  let name: StaticString
  let firstPage: GPN
  let file: MemoryFile
  private let mapping: MappedMemory
  let isScrubbed: Bool
  /// Free stretches by page index, sorted, no two of them adjacent.
  private let free: Lock<[Range<Int>]>

  init(
    _ name: StaticString, firstPage: GPN, byteCount: Int, isScrubbed: Bool
  ) throws(Errno) {
    self.name = name
    self.firstPage = firstPage
    self.isScrubbed = isScrubbed
    let file = try MemoryFile(name: "vmbus-\(name)", byteCount: byteCount)
    mapping = try file.map()
    self.file = file
    free = Lock([0..<byteCount / 4096])
  }

  func region(file index: UInt16, isEncrypted: Bool) -> LinkRegion {
    var region = LinkRegion()
    region.firstPage = firstPage
    region.pageCount = UInt64(file.byteCount / 4096)
    region.file = index
    region.isEncrypted = isEncrypted ? 1 : 0
    return region
  }

  /// Pages behind each other, all zero.
  func allocate(byteCount: Int) throws(TransportError) -> PageAllocation {
    let count = max((byteCount + 4095) / 4096, 1)
    let found = free.withLock { free -> Range<Int>? in
      guard let index = free.firstIndex(where: { $0.count >= count }) else { return nil }
      let start = free[index].lowerBound
      free[index] = start + count..<free[index].upperBound
      if free[index].isEmpty { free.remove(at: index) }
      return start..<start + count
    }
    guard let found else {
      throw .outOfMemory(
        name.description == "encrypted" ? .encrypted : .hostVisible, byteCount: byteCount)
    }
    return unsafe PageAllocation(
      self, found, start: mapping.start + found.lowerBound * 4096)
  }

  /// Zeroes pages and gives them back to the system: free host-visible memory is always zero.
  fileprivate func release(_ pages: Range<Int>) {
    // Safe: these pages were given out once and nobody has them any more.
    unsafe vmbus_zero_shared(
      mapping.start + pages.lowerBound * 4096, pages.count * 4096)
    free.withLock { free in
      let index = free.firstIndex { $0.lowerBound > pages.lowerBound } ?? free.count
      free.insert(pages, at: index)
      if index + 1 < free.count, free[index].upperBound == free[index + 1].lowerBound {
        free[index] = free[index].lowerBound..<free[index + 1].upperBound
        free.remove(at: index + 1)
      }
      if index > 0, free[index - 1].upperBound == free[index].lowerBound {
        free[index - 1] = free[index - 1].lowerBound..<free[index].upperBound
        free.remove(at: index)
      }
    }
  }
}

/// Pages that are in use for as long as this object lives.
@safe
final class PageAllocation: @unchecked Sendable {
  private let arena: PageArena
  private let pages: Range<Int>
  let start: UnsafeMutableRawPointer
  /// One number for each page.
  let pageNumbers: UnsafeMutablePointer<GPN>

  fileprivate init(_ arena: PageArena, _ pages: Range<Int>, start: UnsafeMutableRawPointer) {
    self.arena = arena
    self.pages = pages
    unsafe self.start = start
    unsafe pageNumbers = .allocate(capacity: pages.count)
    for index in 0..<pages.count {
      unsafe (pageNumbers + index).initialize(
        to: arena.firstPage + GPN(pages.lowerBound + index))
    }
  }

  deinit {
    unsafe pageNumbers.deallocate()
    arena.release(pages)
  }

  var byteCount: Int { pages.count * 4096 }
  var firstPage: GPN { arena.firstPage + GPN(pages.lowerBound) }
  var gpns: [GPN] { pages.map { arena.firstPage + GPN($0) } }

  /// For the framework.
  var dmaPages: DMAPages {
    unsafe DMAPages(
      start: start, byteCount: byteCount, pageNumbers: pageNumbers,
      isScrubbed: arena.isScrubbed, owner: self)
  }
}
