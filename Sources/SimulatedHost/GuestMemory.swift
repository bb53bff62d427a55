// SPDX-License-Identifier: Apache-2.0

import Platform
import SimulatedLink
public import SystemPackage
public import VMBus

/// Which of a guest's memory an access may touch.
public enum GuestMemoryView: Sendable, Hashable {
  /// A channel without the flag: host-visible memory only. In a machine without isolation that is
  /// all of it.
  case hostVisible
  /// A channel with the flag: encrypted memory only, so that a guest which passes a shared page
  /// where a private one is required fails, rather than leak.
  case encrypted
  /// Whichever the guest has the page in: for a channel with the flag in the hands of a paravisor that
  /// takes data which its guest bounces all the same, as Linux's storage driver does.
  case either
}

/// What is wrong with a guest's memory, or with a page of it.
public enum GuestMemoryError: Error, Equatable, Sendable {
  /// The page is not there, or not of the kind that may be touched here.
  case notVisible(page: GPN)
  /// A region that the guest handed over is empty, too large, or outside of its file.
  case badRegion(index: Int)
  /// A memory file could be cut off behind our back, or is no memory file.
  case notSealed(file: Int)
  /// The memory files are larger together than a guest's memory may be: all of them are mapped
  /// here, and the room for that is shared with other guests.
  case tooLarge(maximumByteCount: Int)
  /// Pages that lie in so many places that they are more than can still be mapped.
  case tooFragmented(pieces: Int)
  case system(Errno)
}

extension GuestMemoryError: CustomStringConvertible {
  public var description: String {
    switch self {
    case .notVisible(let page):
      "guest page 0x\(String(page, radix: 16)) may not be seen here"
    case .badRegion(let index): "region \(index) of the guest's memory lies outside of its file"
    case .notSealed(let file): "memory file \(file) of the guest is not sealed against shrinking"
    case .tooLarge(let maximum): "the guest's memory files are larger than \(maximum) bytes"
    case .tooFragmented(let pieces):
      "the pages lie in \(pieces) places, more than can still be mapped"
    case .system(let error): "guest memory: \(error)"
    }
  }
}

/// The memory of one guest, as far as this side may see it. It is known only by guest page number,
/// through the table that the guest handed over when it joined.
///
/// Nothing here changes after `init` but which pages are host-visible. The guest's bytes change all
/// the time: whoever reads them copies first.
@safe
public final class GuestMemory: @unchecked Sendable {
  @safe
  struct Region {
    let firstPage: GPN
    let pageCount: UInt64
    let start: UnsafeMutableRawPointer
    let file: Int32
    let fileOffset: Int
    let view: GuestMemoryView
    /// Nil when all its pages are of the region's kind, always.
    let map: VisibilityMap?
  }

  private final class File {
    let file: MemoryFile
    let mapping: MappedMemory

    /// - Parameter room: bytes that the guest's memory may still have.
    init(_ descriptor: consuming OwnedDescriptor, room: inout Int) throws(Errno) {
      file = try MemoryFile(received: descriptor)
      guard file.byteCount <= room else { throw .fileTooLarge }
      room -= file.byteCount
      mapping = try file.map()
    }
  }

  private let table: [LinkRegion]
  private let files: [File]
  private let maps: [VisibilityMap]
  let audit: VisibilityAudit
  let regions: Regions
  private let mappedPieces: MappedPieces

  /// The table without its owner: what a packet's ranges are looked up in, without counting
  /// references.
  @safe
  struct Regions {
    private let start: UnsafeMutablePointer<Region>
    private let count: Int
    /// Takes the bit away that tells a host-visible page from a private one: the view tells it here.
    let mask: GPN
    /// Lives as long as the guest's memory.
    private let audit: Unmanaged<VisibilityAudit>

    init(_ regions: [Region], boundary: GPN, _ audit: VisibilityAudit) {
      unsafe self.audit = Unmanaged.passUnretained(audit)
      unsafe start = .allocate(capacity: max(regions.count, 1))
      count = regions.count
      mask = ~boundary
      for (index, region) in regions.enumerated() { unsafe (start + index).initialize(to: region) }
    }

    func deallocate() { unsafe start.deallocate() }

    /// Those of one view.
    func regions(in view: GuestMemoryView) -> [Region] {
      (0..<count).map { unsafe start[$0] }.filter { $0.view == view }
    }

    /// Finds a page: its region, its place there, and how many pages from there on are alike. The
    /// number is the guest's word.
    func place(
      of page: GPN, in view: GuestMemoryView
    ) -> (region: Region, index: UInt64, pageCount: UInt64)? {
      for number in 0..<count {
        let region = unsafe start[number]
        // Wraps for a page before the region, and is then larger than any count.
        let index = page & mask &- region.firstPage
        guard index < region.pageCount && (region.view == view || view == .either) else {
          continue
        }
        let left = region.pageCount &- index
        guard let map = region.map else { return (region, index, left) }
        let run = map.run(from: index, visible: region.view == .hostVisible)
        if run > 0 { return (region, index, min(run, left)) }
        if view != .either { return nil }
      }
      return nil
    }

    /// The map of the region that has all of these pages, and their places there.
    func map(of page: GPN, count pages: UInt64) -> (map: VisibilityMap, pages: Range<UInt64>)? {
      for number in 0..<count {
        let region = unsafe start[number]
        let index = page & mask &- region.firstPage
        guard let map = region.map, index < region.pageCount, pages <= region.pageCount &- index
        else { continue }
        return (map, index..<(index &+ pages))
      }
      return nil
    }

    /// The memory of a page and how many pages lie behind each other from there on.
    @unsafe
    func page(
      _ page: GPN, in view: GuestMemoryView
    ) throws(GuestMemoryError) -> (
      start: UnsafeMutableRawPointer, pageCount: UInt64, isCounted: GuestMemoryView?
    ) {
      guard let place = place(of: page, in: view) else {
        unsafe audit._withUnsafeGuaranteedRef { $0.refused(page) }
        throw .notVisible(page: page)
      }
      return unsafe (
        place.region.start + Int(place.index) * 4096, place.pageCount,
        place.region.map == nil ? nil : place.region.view
      )
    }

    /// Data moves to or from pages of a guest that hides others.
    func count(_ pages: UInt64, _ view: GuestMemoryView) {
      unsafe audit._withUnsafeGuaranteedRef { $0.countData(pages, view) }
    }
  }

  /// Maps what a guest handed over, after a look at every number of it.
  ///
  /// - Parameters:
  ///   - boundaryBit: the address bit that page numbers of host-visible memory may have, or 0.
  ///   - message: the join message, whose first descriptors are the memory files.
  ///   - mappedPieces: what counts the mappings of rings and buffers.
  init(
    _ table: [LinkRegion], boundaryBit: UInt8 = 0, fileCount: Int, from message: SocketMessage,
    mappedPieces: MappedPieces = MappedPieces()
  ) throws(GuestMemoryError) {
    let boundary: GPN = 12...63 ~= boundaryBit ? 1 << (GPN(boundaryBit) - 12) : 0
    var files: [File] = []
    var room = Self.maximumByteCount
    for index in 0..<fileCount {
      guard let descriptor = message.takeDescriptor(index) else { throw .notSealed(file: index) }
      do throws(Errno) {
        files.append(try File(descriptor, room: &room))
      } catch .invalidArgument {
        throw .notSealed(file: index)
      } catch .fileTooLarge {
        throw .tooLarge(maximumByteCount: Self.maximumByteCount)
      } catch {
        throw .system(error)
      }
    }
    var checked: [Region] = []
    // Private and host-visible memory of the same page numbers share one map.
    var maps: [(pages: Range<GPN>, map: VisibilityMap)] = []
    for (index, entry) in table.enumerated() {
      guard files.indices.contains(Int(entry.file)) else { throw .badRegion(index: index) }
      let file = files[Int(entry.file)]
      let (bytes, tooLarge) = entry.pageCount.multipliedReportingOverflow(by: 4096)
      let (end, pastEnd) = bytes.addingReportingOverflow(entry.fileOffset)
      let (_, wraps) = entry.firstPage.addingReportingOverflow(entry.pageCount)
      guard !tooLarge, !pastEnd, !wraps, entry.pageCount > 0, entry.fileOffset & 4095 == 0,
        end <= UInt64(file.file.byteCount)
      else { throw .badRegion(index: index) }
      let firstPage = entry.firstPage & ~boundary
      let pages = firstPage..<(firstPage + entry.pageCount)
      var map = maps.first { $0.pages == pages }?.map
      if map == nil, entry.startsPrivate != 0 {
        map = VisibilityMap(pageCount: entry.pageCount)
        if let map { maps.append((pages, map)) }
      }
      unsafe checked.append(
        Region(
          firstPage: firstPage, pageCount: entry.pageCount,
          start: file.mapping.start + Int(entry.fileOffset), file: file.file.owned.rawValue,
          fileOffset: Int(entry.fileOffset),
          view: entry.isEncrypted != 0 ? .encrypted : .hostVisible, map: map))
    }
    self.table = table
    self.files = files
    self.mappedPieces = mappedPieces
    self.maps = maps.map(\.map)
    let audit = VisibilityAudit(boundary: boundary)
    self.audit = audit
    regions = Regions(checked, boundary: boundary, audit)
  }

  /// 256 GiB: of the 128 TiB that a process has, 256 guests can take half.
  static let maximumByteCount = 1 << 38

  deinit {
    regions.deallocate()
    for map in maps { map.deallocate() }
  }

  /// In page numbers: the bit that those of host-visible pages may have.
  var boundary: GPN { ~regions.mask }

  /// Whether the guest says page by page what is visible.
  var hidesPages: Bool { !maps.isEmpty }

  var visibleRegions: [Region] { regions.regions(in: .hostVisible) }

  func contains(_ page: GPN, in view: GuestMemoryView) -> Bool {
    regions.place(of: page, in: view) != nil
  }

  /// The guest makes pages host-visible, or private again.
  func setVisibility(_ change: LinkVisibility) throws(GuestMemoryError) {
    guard let (map, pages) = regions.map(of: change.firstPage, count: change.pageCount) else {
      throw .notVisible(page: change.firstPage)
    }
    map.set(pages, visible: change.isHostVisible != 0)
  }

  /// The memory of a page and how many pages lie behind each other from there on.
  @unsafe
  func page(
    _ page: GPN, in view: GuestMemoryView
  ) throws(GuestMemoryError) -> (start: UnsafeMutableRawPointer, pageCount: UInt64) {
    let found = try unsafe regions.page(page, in: view)
    return unsafe (found.start, found.pageCount)
  }

  /// Copies host-visible bytes of one page out; nil when they may not be seen, or lie in two pages.
  func read(_ address: UInt64, count: Int) -> [UInt8]? {
    guard Int(address & 4095) + count <= 4096,
      let page = try? unsafe page(address / 4096, in: .hostVisible).start
    else { return nil }
    return unsafe [UInt8](
      UnsafeRawBufferPointer(start: page + Int(address & 4095), count: count))
  }

  /// Writes host-visible bytes of one page, where they may be seen.
  func write(_ address: UInt64, _ bytes: [UInt8]) {
    guard Int(address & 4095) + bytes.count <= 4096,
      let page = try? unsafe page(address / 4096, in: .hostVisible).start
    else { return }
    unsafe UnsafeMutableRawBufferPointer(start: page + Int(address & 4095), count: bytes.count)
      .copyBytes(from: bytes)
  }

  /// What of it the untrusted host may have: regions, and the files that they lie in. A file in
  /// which anything encrypted lies is not among them.
  var hostVisible: (regions: [LinkRegion], files: [Int32]) {
    var (regions, kept): ([LinkRegion], [UInt16]) = ([], [])
    for var entry in table where entry.isEncrypted == 0 {
      guard !table.contains(where: { $0.isEncrypted != 0 && $0.file == entry.file }) else {
        continue
      }
      if !kept.contains(entry.file) { kept.append(entry.file) }
      entry.file = UInt16(kept.firstIndex(of: entry.file) ?? 0)
      regions.append(entry)
    }
    return (regions, kept.map { files[Int($0)].file.owned.rawValue })
  }

  /// Maps pages from all over the guest behind each other: a ring, or a buffer.
  func map(
    _ pages: some Collection<GPN>, in view: GuestMemoryView
  ) throws(GuestMemoryError) -> GuestMapping {
    var runs: [(offset: Int, byteCount: Int)] = []
    var file: Int32 = -1
    for page in pages {
      guard let place = regions.place(of: page, in: view) else {
        audit.refused(page)
        throw .notVisible(page: page)
      }
      // A view's memory is one file; pages of two can't be one ring.
      guard file == -1 || file == place.region.file else { throw .notVisible(page: page) }
      file = place.region.file
      let offset = place.region.fileOffset + Int(place.index) * 4096
      if let last = runs.last, last.offset + last.byteCount == offset {
        runs[runs.count - 1].byteCount += 4096
      } else {
        // Each is a mapping of its own.
        runs.append((offset, 4096))
      }
    }
    guard mappedPieces.take(runs.count) else { throw .tooFragmented(pieces: runs.count) }
    do throws(Errno) {
      return GuestMapping(
        try MappedMemory.joining(runs, of: file), runs.count, of: mappedPieces)
    } catch {
      mappedPieces.giveBack(runs.count)
      throw .system(error)
    }
  }
}
