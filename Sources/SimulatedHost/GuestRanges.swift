// SPDX-License-Identifier: Apache-2.0

public import VMBus

/// The guest memory that a GPA-direct packet names, piece by piece as it lies in this process.
@safe
public struct GuestRangeData: ExternalData, ~Copyable, ~Escapable {
  // The channel holds the memory, and lives longer than a packet.
  private let regions: GuestMemory.Regions
  private let view: GuestMemoryView
  private let range: GPARange
  /// Page numbers, a private copy of the packet's.
  private let pages: RawSpan

  @_lifetime(copy pages)
  init(_ range: GPARange, pages: RawSpan, memory: GuestMemory, view: GuestMemoryView) {
    self.init(range, pages: pages, regions: memory.regions, view: view)
  }

  @_lifetime(copy pages)
  init(
    _ range: GPARange, pages: RawSpan, regions: GuestMemory.Regions, view: GuestMemoryView
  ) {
    self.regions = regions
    self.view = view
    self.range = range
    self.pages = pages
  }

  public var byteCount: Int { Int(range.byteCount) }

  @_lifetime(&self)
  public mutating func segment(
    at offset: Int, maximum: Int
  ) throws(ExternalDataError) -> MutableRawSpan {
    guard offset >= 0, offset < byteCount, maximum > 0 else {
      throw .outOfRange(offset: offset, byteCount: byteCount)
    }
    let position = Int(range.byteOffset) &+ offset
    let limit = min(maximum, byteCount &- offset)
    let within = position & 4095
    let found: (start: UnsafeMutableRawPointer, pageCount: UInt64, isCounted: GuestMemoryView?)
    do throws(GuestMemoryError) {
      unsafe found = try regions.page(pageNumber(position >> 12), in: view)
    } catch {
      throw .notVisible(page: pageNumber(position >> 12))
    }
    // As far as the next pages of the packet are the next pages in memory.
    var index = position >> 12
    var pageCount: UInt64 = 1
    while within &+ limit > Int(pageCount) &* 4096, unsafe pageCount < found.pageCount,
      pageNumber(index &+ 1) == pageNumber(index) &+ 1
    {
      index &+= 1
      pageCount &+= 1
    }
    if let view = unsafe found.isCounted { regions.count(pageCount, view) }
    let count = min(limit, Int(pageCount) &* 4096 &- within)
    // Safe: within pages that the table of the guest's memory holds, which outlives the channel.
    return unsafe _overrideLifetime(
      MutableRawSpan(_unsafeStart: found.start + within, byteCount: count), mutating: &self)
  }

  /// The span has as many numbers as the range has pages (`GPARanges.next` made sure), and bounds
  /// are checked here all the same.
  private func pageNumber(_ index: Int) -> GPN {
    guard index >= 0, index &* 8 &+ 8 <= pages.byteCount else { return .max }
    return unsafe UInt64(
      littleEndian: pages.unsafeLoadUnaligned(fromByteOffset: index &* 8, as: UInt64.self))
  }
}

/// The guest memory that a GPA-direct packet names, range by range.
@safe
public struct GuestRanges: ~Copyable, ~Escapable {
  private let regions: GuestMemory.Regions
  private let view: GuestMemoryView
  private var ranges: GPARanges

  @_lifetime(copy bytes)
  init(_ bytes: RawSpan, memory: GuestMemory, view: GuestMemoryView) throws(WireError) {
    let ranges = try GPARanges(bytes)
    regions = memory.regions
    self.view = view
    self.ranges = ranges
  }

  /// Ranges that are left.
  public var count: Int { ranges.count }

  /// The next range. Whether its pages may be seen is told when they are asked for.
  @_lifetime(copy self)
  public mutating func next() throws(WireError) -> GuestRangeData {
    let pages = try ranges.next()
    return GuestRangeData(pages.range, pages: pages.pageNumbers, regions: regions, view: view)
  }
}
