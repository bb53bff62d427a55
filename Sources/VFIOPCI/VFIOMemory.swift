// SPDX-License-Identifier: Apache-2.0

import LinuxDevices
import Platform
import Synchronization
import SystemPackage
import VMBus
import VSC

/// Memory that a function reaches: it owns the pages and knows at which addresses the function finds them.
///
/// In all cases that memory is a file's, and the kernel keeps its pages while the function can reach them,
/// also after this process was killed (law 3): what an IOMMU maps, and what iommufd keeps for a function
/// without one, is pinned until it is unmapped; other physical memory is a file whose descriptor lies below
/// the function's, and descriptors are released from the highest one down, which turns bus mastering off.
@safe
final class VFIOMemory: @unchecked Sendable {
  // Nothing changes after `init`.
  /// Of the first byte, as the address space knows it.
  let address: UInt64
  let byteCount: Int
  let mappedByteCount: Int
  private let keeper: Keeper
  private let start: UnsafeMutableRawPointer
  private let numbers: UnsafeMutablePointer<GPN>

  private enum Keeper {
    case pages(Pages)
    case physical(PhysicalMemory)
  }

  /// A file and where it is mapped here.
  final class Pages: Sendable {
    let mapping: MappedMemory
    let byteCount: Int

    /// - Parameter byteCount: a multiple of 4096.
    init(byteCount: Int) throws(TransportError) {
      self.byteCount = byteCount
      do throws(Errno) {
        mapping = try MemoryFile(name: "vfio-dma", byteCount: byteCount).map()
      } catch {
        throw .system("memory for DMA", code: error.rawValue, text: "\(error)")
      }
    }

    /// Whole huge pages, each of which is one stretch of physical memory.
    init(hugeByteCount byteCount: Int) throws(TransportError) {
      self.byteCount = byteCount
      let size = HugePageFile.pageByteCount
      let (padded, overflow) = byteCount.addingReportingOverflow(size - 1)
      guard !overflow else { throw .outOfMemory(.hostVisible, byteCount: byteCount) }
      do throws(Errno) {
        mapping = try HugePageFile(
          name: "vfio-dma", byteCount: padded & ~(size - 1), below: DeviceFile.lowestDescriptor
        ).map()
      } catch .noMemory, .noSpace {
        throw .noHugePages(count: padded / size)
      } catch {
        throw .system("huge pages", code: error.rawValue, text: "\(error)")
      }
    }
  }

  /// Memory that was mapped for the function.
  ///
  /// - Parameter physical: where each huge page lies, when there is no IOMMU.
  init(_ pages: Pages, at address: UInt64, physical: [UInt64]? = nil) {
    self.address = address
    byteCount = pages.byteCount
    mappedByteCount = pages.mapping.byteCount
    unsafe start = pages.mapping.start
    let count = pages.byteCount / 4096
    unsafe numbers = .allocate(capacity: count)
    let perHugePage = HugePageFile.pageByteCount / 4096
    for page in 0..<count {
      let number =
        if let physical {
          physical[page / perHugePage] >> 12 + UInt64(page % perHugePage)
        } else {
          address >> 12 + UInt64(page)
        }
      unsafe (numbers + page).initialize(to: GPN(number))
    }
    keeper = .pages(pages)
  }

  /// Memory that is known by where it lies, and is mapped for nobody.
  init(_ memory: PhysicalMemory, byteCount: Int) {
    let pages = memory.pages(isScrubbed: false)
    address = 0
    self.byteCount = byteCount
    mappedByteCount = byteCount
    unsafe start = pages.start
    let count = pages.byteCount / 4096
    unsafe numbers = .allocate(capacity: count)
    unsafe numbers.initialize(from: pages.pageNumbers, count: count)
    keeper = .physical(memory)
  }

  deinit { unsafe numbers.deallocate() }

  /// For the framework.
  func pages(isScrubbed: Bool) -> DMAPages {
    // Safe: this object, which keeps both, is the owner.
    unsafe DMAPages(
      start: start, byteCount: byteCount, pageNumbers: numbers, isScrubbed: isScrubbed, owner: self)
  }

  /// Memory that a function may write to for as long as this process lives.
  private static let kept = Lock<[any AnyObject & Sendable]>([])

  /// - Parameter space: keeps it in its place, perhaps.
  static func keepForEver(_ memory: [any AnyObject & Sendable], of space: any VFIOAddressSpace) {
    kept.withLock { $0 += memory + [space] }
  }
}
