// SPDX-License-Identifier: Apache-2.0

import BalloonProtocol
import CLinux
import Platform
import SystemPackage
import VMBus

/// Memory that is taken from the system, page by page known to the host, and neither moved, nor
/// swapped, nor merged, nor reused for as long as it is held.
///
/// What the host is told are physical page numbers, so a page that moves would be a page that the
/// host has taken from somebody else. Locking memory (`mlock`) keeps pages from the disk, but the
/// kernel still moves them. Pages of hugetlb stay where they are for compaction, but not when
/// memory is taken offline or a large contiguous area is made; and a pool of them has to be
/// raised first. Registering memory with io_uring pins it (FOLL_LONGTERM): the kernel faults it in,
/// moves it out of areas that must stay movable, and never again. So memory is registered first,
/// and its page numbers are read after that.
///
/// Huge pages come first (2 MiB, transparent ones): hosts take memory in these units. A huge page
/// can't be given back in parts: pages of it that the host returns are held until it has returned
/// all 512. When the system has no huge page left, 4 KiB pages are pinned one by one, so that each
/// can be given back alone.
///
/// The pages are never read or written after the host knows of them, and not in a child or a core
/// dump either.
@safe
struct PinnedMemory: ~Copyable, @unchecked Sendable {
  static let blockPageCount: UInt64 = 512
  private static let blockByteCount = 512 * 4096

  /// A huge page, or a small one: what is pinned at once.
  private struct Unit {
    var start: GPN
    /// Where it is mapped: a block of 2 MiB of the address space, and for a small page which of
    /// the block's pages.
    var block: Int
    var page: Int?
    /// Which buffer of which ring.
    var slot: Int

    var end: GPN { start + (page == nil ? PinnedMemory.blockPageCount : 1) }
  }

  private let space: UnsafeMutableRawPointer
  private let spaceByteCount: Int
  private let firstBlock: UnsafeMutableRawPointer
  private let blockCount: Int
  private let pageMap: PageMap
  private var rings: [Int32] = []
  private var freeSlots: [Int] = []
  private var freshBlocks = 0
  private var freeBlocks: [Int] = []
  /// How many small pages of a block are still held.
  private var smallPages: [Int: Int] = [:]
  /// Pages of a huge page that the host has given back.
  private var returned: [Int: InlineArray<8, UInt64>] = [:]
  /// Sorted by page number.
  private var units: [Unit] = []

  /// Pages that the host has.
  private(set) var pageCount: UInt64 = 0
  /// Pages that the host has given back and the system does not have yet.
  private(set) var heldPageCount: UInt64 = 0
  private(set) var hugePageCount = 0

  /// Opens what is needed, and tries it with one page.
  ///
  /// - Parameter maximumPageCount: what will be held at most.
  static func open(maximumPageCount: UInt64) throws(BalloonMemoryError) -> PinnedMemory {
    guard SystemPage.byteCount == 4096 else { throw .pageSize(SystemPage.byteCount) }
    let pageMap: PageMap
    do throws(Errno) { pageMap = try PageMap() } catch { throw .noPagemap(error) }
    // Blocks of small pages may be held for the sake of a few: twice the room is enough for all
    // but odd cases, and those get less memory.
    let blocks = Int(clamping: min(maximumPageCount, 1 << 32) / blockPageCount) * 2 + 64
    guard let space = unsafe vmbus_reserve((blocks + 1) * blockByteCount) else {
      throw .noAddressSpace
    }
    var memory = unsafe PinnedMemory(space, blocks, pageMap)
    var ranges: [PageRange] = []
    _ = try memory.takeSmall(1, &ranges)
    for range in ranges { _ = memory.release(range, maximumUnits: 1) }
    return memory
  }

  /// - Parameter space: address space for one more than so many blocks, which this value owns from
  ///   here on.
  @unsafe
  private init(
    _ space: UnsafeMutableRawPointer, _ blockCount: Int, _ pageMap: PageMap
  ) {
    unsafe self.space = space
    spaceByteCount = (blockCount + 1) * Self.blockByteCount
    let mask = UInt(Self.blockByteCount - 1)
    unsafe firstBlock = space + Int((0 &- UInt(bitPattern: space)) & mask)
    self.blockCount = blockCount
    self.pageMap = pageMap
  }

  deinit {
    // Closing a ring lets go of its buffers too, but some time later.
    for unit in units { _ = vmbus_pin(ring(unit.slot), slotInRing(unit.slot), nil, 0) }
    for ring in rings { _ = close(ring) }
    unsafe _ = munmap(space, spaceByteCount)
  }

  /// Where all of it is mapped.
  var addresses: Range<UInt> {
    unsafe UInt(bitPattern: space)..<UInt(bitPattern: space) + UInt(spaceByteCount)
  }

  // MARK: - Taking

  /// Takes one huge page, or with `small` up to 512 small ones.
  ///
  /// - Parameters:
  ///   - limit: pages at most.
  ///   - ranges: what was taken is appended.
  /// - Returns: pages taken; 0 when there was no huge page.
  mutating func take(
    _ limit: UInt64, small: Bool, _ ranges: inout [PageRange]
  ) throws(BalloonMemoryError) -> UInt64 {
    if small { return try takeSmall(min(limit, Self.blockPageCount), &ranges) }
    guard limit >= Self.blockPageCount else { return 0 }
    return try takeHuge(&ranges)
  }

  private mutating func takeHuge(_ ranges: inout [PageRange]) throws(BalloonMemoryError) -> UInt64 {
    let block = try backBlock(huge: true)
    let start = unsafe address(block, 0)
    let slot: Int
    do throws(BalloonMemoryError) {
      slot = try unsafe pin(start, Self.blockByteCount)
    } catch {
      freeBlock(block)
      throw error
    }
    do throws(BalloonMemoryError) {
      let numbers = try pageNumbers(block, Int(Self.blockPageCount))
      let first = numbers[0]
      // The kernel gives small pages where it has no huge one: those are pinned one by one.
      let isHuge =
        first % Self.blockPageCount == 0
        && numbers.indices.allSatisfy { numbers[$0] == first + UInt64($0) }
      guard isHuge, let range = PageRange(start: first, count: Self.blockPageCount) else {
        unpin(slot)
        freeBlock(block)
        return 0
      }
      insert([Unit(start: first, block: block, page: nil, slot: slot)])
      ranges.append(range)
    } catch {
      unpin(slot)
      freeBlock(block)
      throw error
    }
    hugePageCount += 1
    pageCount += Self.blockPageCount
    return Self.blockPageCount
  }

  private mutating func takeSmall(
    _ count: UInt64, _ ranges: inout [PageRange]
  ) throws(BalloonMemoryError) -> UInt64 {
    guard count > 0 else { return 0 }
    let block = try backBlock(huge: false)
    var slots: [Int] = []
    var refusal: BalloonMemoryError?
    for page in 0..<Int(count) {
      do throws(BalloonMemoryError) {
        slots.append(try unsafe pin(address(block, page), 4096))
      } catch {
        refusal = error
        break
      }
    }
    do throws(BalloonMemoryError) {
      // Some are better than none; the next call meets the refusal again.
      if slots.isEmpty, let refusal { throw refusal }
      let numbers = try pageNumbers(block, slots.count)
      var added: [Unit] = []
      for (page, slot) in slots.enumerated() {
        guard let range = PageRange(start: numbers[page], count: 1) else {
          throw .pageNumbersHidden
        }
        ranges.append(range)
        added.append(Unit(start: numbers[page], block: block, page: page, slot: slot))
      }
      insert(added)
    } catch {
      for slot in slots { unpin(slot) }
      freeBlock(block)
      throw error
    }
    smallPages[block] = slots.count
    pageCount += UInt64(slots.count)
    return UInt64(slots.count)
  }

  // MARK: - Giving back

  /// Gives back those pages of a range that are the balloon's.
  ///
  /// - Parameter maximumUnits: huge or small pages at one time.
  /// - Returns: how many pages were the balloon's, how many units that took, and the part of the
  ///   range that is left to do.
  mutating func release(
    _ range: PageRange, maximumUnits: Int
  ) -> (pages: UInt64, units: Int, rest: PageRange?) {
    let (start, end) = (range.start, range.end)
    let first = firstUnit(endingAfter: start)
    var index = first
    var kept: [Unit] = []
    var pages: UInt64 = 0
    var rest: PageRange?
    while index < units.count, units[index].start < end {
      let unit = units[index]
      if index - first >= maximumUnits {
        rest = PageRange(start: unit.start, count: end - unit.start)
        break
      }
      index += 1
      if let page = unit.page {
        pages += 1
        unpin(unit.slot)
        unsafe vmbus_drop(address(unit.block, page), 4096)
        let left = (smallPages[unit.block] ?? 1) - 1
        smallPages[unit.block] = left > 0 ? left : nil
        if left == 0 { freeBlock(unit.block) }
        continue
      }
      let added = mark(unit, from: max(start, unit.start), to: min(end, unit.end))
      pages += added.pages
      if added.isWhole {
        unpin(unit.slot)
        freeBlock(unit.block)
        hugePageCount -= 1
      } else {
        kept.append(unit)
      }
    }
    units.replaceSubrange(first..<index, with: kept)
    pageCount -= pages
    return (pages, index - first, rest)
  }

  /// Notes that the host has given back a part of a huge page.
  private mutating func mark(
    _ unit: Unit, from start: GPN, to end: GPN
  ) -> (pages: UInt64, isWhole: Bool) {
    var bits = returned[unit.block] ?? InlineArray(repeating: 0)
    var pages: UInt64 = 0
    for page in start..<end {
      let offset = Int(page - unit.start)
      let bit: UInt64 = 1 << UInt64(offset & 63)
      if bits[offset >> 6] & bit == 0 {
        bits[offset >> 6] |= bit
        pages += 1
      }
    }
    let isWhole = bits.indices.allSatisfy { bits[$0] == .max }
    heldPageCount += pages
    if isWhole { heldPageCount -= Self.blockPageCount }
    returned[unit.block] = isWhole ? nil : bits
    return (pages, isWhole)
  }

  private func firstUnit(endingAfter page: GPN) -> Int {
    var (low, high) = (0, units.count)
    while low < high {
      let middle = (low + high) / 2
      if units[middle].end > page { high = middle } else { low = middle + 1 }
    }
    return low
  }

  private mutating func insert(_ added: [Unit]) {
    if let only = added.first, added.count == 1 {
      return units.insert(only, at: firstUnit(endingAfter: only.start))
    }
    units.append(contentsOf: added)
    // Two sorted runs: this is a merge, or nothing.
    units.sort { $0.start < $1.start }
  }

  // MARK: - The kernel's part

  private mutating func backBlock(huge: Bool) throws(BalloonMemoryError) -> Int {
    let block: Int
    if let free = freeBlocks.popLast() {
      block = free
    } else if freshBlocks < blockCount {
      block = freshBlocks
      freshBlocks += 1
    } else {
      throw .noAddressSpace
    }
    let result = unsafe vmbus_back(address(block, 0), Self.blockByteCount, huge)
    guard result == 0 else {
      freeBlocks.append(block)
      throw .memoryRefused(Errno(rawValue: -result))
    }
    return block
  }

  private mutating func freeBlock(_ block: Int) {
    unsafe vmbus_unback(address(block, 0), Self.blockByteCount)
    freeBlocks.append(block)
  }

  /// Safe: blocks come from the free list or below `blockCount`, so the address lies in the space.
  private func address(_ block: Int, _ page: Int) -> UnsafeMutableRawPointer {
    unsafe firstBlock + block * Self.blockByteCount + page * 4096
  }

  @unsafe
  private mutating func pin(
    _ start: UnsafeMutableRawPointer, _ byteCount: Int
  ) throws(BalloonMemoryError) -> Int {
    if freeSlots.isEmpty {
      let ring = vmbus_pin_ring()
      guard ring >= 0 else { throw .pinningRefused(Errno(rawValue: -ring)) }
      let slotCount = Int(VMBUS_PIN_SLOTS)
      let first = rings.count * slotCount
      rings.append(ring)
      freeSlots = Array((first..<first + slotCount).reversed())
    }
    guard let slot = freeSlots.popLast() else { throw .noAddressSpace }
    let result = unsafe vmbus_pin(ring(slot), slotInRing(slot), start, byteCount)
    guard result == 0 else {
      freeSlots.append(slot)
      throw .memoryRefused(Errno(rawValue: -result))
    }
    return slot
  }

  private mutating func unpin(_ slot: Int) {
    _ = vmbus_pin(ring(slot), slotInRing(slot), nil, 0)
    freeSlots.append(slot)
  }

  private func ring(_ slot: Int) -> Int32 { rings[slot / Int(VMBUS_PIN_SLOTS)] }
  private func slotInRing(_ slot: Int) -> UInt32 { UInt32(slot % Int(VMBUS_PIN_SLOTS)) }

  /// The physical page numbers of a block's first pages, which are pinned.
  private func pageNumbers(_ block: Int, _ count: Int) throws(BalloonMemoryError) -> [GPN] {
    let numbers: [GPN]
    do throws(Errno) {
      numbers = try unsafe pageMap.frames(at: address(block, 0), count: count)
    } catch {
      throw .noPagemap(error)
    }
    // They are in memory, so what is not told is hidden.
    guard numbers.allSatisfy({ 1...PageRange.maximumStart ~= $0 }) else {
      throw .pageNumbersHidden
    }
    return numbers
  }
}
