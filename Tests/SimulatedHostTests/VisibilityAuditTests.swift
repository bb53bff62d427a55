// SPDX-License-Identifier: Apache-2.0

import CLinux
import SimulatedLink
import Testing
import VMBus

@testable import Platform
@testable import SimulatedHost

/// What is counted of a guest that hides pages.
@Suite struct VisibilityAuditTests {
  static let boundary: GPN = 1 << 26

  /// A guest of 16 pages, as its paravisor sees it: the private ones begin with a 1, the others with a 2.
  static func makeMemory(hides: Bool = true) throws -> GuestMemory {
    var regions: [LinkRegion] = []
    var descriptors: [Int32] = []
    for number in 0..<2 {
      let file = try MemoryFile(name: "test", byteCount: 16 * 4096)
      let pages = try file.map()
      for page in 0..<16 {
        unsafe pages.start.storeBytes(
          of: UInt8(1 + number), toByteOffset: page * 4096, as: UInt8.self)
      }
      var region = LinkRegion()
      region.pageCount = 16
      region.file = UInt16(number)
      region.isEncrypted = number == 0 ? 1 : 0
      region.startsPrivate = hides ? 1 : 0
      regions.append(region)
      descriptors.append(vmbus_duplicate(file.owned.rawValue))
    }
    return try GuestMemory(
      regions, boundaryBit: 38, fileCount: 2,
      from: SocketMessage(bytes: [], descriptors: descriptors))
  }

  static func change(_ pages: Range<GPN>, _ isVisible: Bool) -> LinkVisibility {
    var change = LinkVisibility()
    (change.firstPage, change.pageCount) = (pages.lowerBound, UInt64(pages.count))
    change.isHostVisible = isVisible ? 1 : 0
    return change
  }

  /// The first byte of each page of a range of data, or nil when a page is not to be seen.
  static func data(_ memory: GuestMemory, _ pages: [GPN], _ view: GuestMemoryView) -> [UInt8]? {
    // Reserved, one range: its length and offset, and the pages.
    var bytes: [UInt8] = [0, 0, 0, 0, 1, 0, 0, 0]
    bytes += [0, UInt8(16 * pages.count), 0, 0, 0, 0, 0, 0]
    for page in pages {
      bytes += (0..<8).map { UInt8(truncatingIfNeeded: page >> (8 * UInt64($0))) }
    }
    do {
      let span = bytes.span
      var ranges = try unsafe GuestRanges(span.bytes, memory: memory, view: view)
      var range = try ranges.next()
      var found: [UInt8] = []
      for index in pages.indices {
        let piece = try range.segment(at: 4096 * index, maximum: 4096)
        found.append(unsafe piece.bytes.unsafeLoad(as: UInt8.self))
      }
      return found
    } catch {
      return nil
    }
  }

  @Test func dataIsCountedByItsKind() throws {
    let memory = try Self.makeMemory()
    try memory.setVisibility(Self.change(4..<8, true))
    #expect(Self.data(memory, [1, 2], .encrypted) == [1, 1])
    #expect(Self.data(memory, [4, Self.boundary | 5, 7], .hostVisible) == [2, 2, 2])
    #expect(
      memory.audit.summary == "visibility: 0 violations; data pages: 3 shared, 2 encrypted")
  }

  @Test func whoeverTakesEitherGetsWhatTheGuestHas() throws {
    let memory = try Self.makeMemory()
    try memory.setVisibility(Self.change(4..<8, true))
    #expect(Self.data(memory, [3, 4, 8], .either) == [1, 2, 1])
    #expect(Self.data(memory, [16], .either) == nil)
    #expect(memory.audit.violationCount == 1)
    #expect(memory.audit.summary.hasSuffix("data pages: 1 shared, 2 encrypted"))
  }

  @Test func pagesOfTheOtherKindAreRefusedAndNamed() throws {
    let memory = try Self.makeMemory()
    try memory.setVisibility(Self.change(4..<8, true))
    #expect(Self.data(memory, [4], .encrypted) == nil)
    #expect(Self.data(memory, [0xA], .hostVisible) == nil)
    #expect(throws: GuestMemoryError.notVisible(page: 3)) {
      _ = try memory.map([4, 3], in: .hostVisible)
    }
    #expect(memory.read(0xA000, count: 8) == nil)
    #expect(memory.audit.violationCount == 4)
    #expect(
      memory.audit.summary
        == "visibility: 4 violations (page 0x4 was wanted; page 0xa was wanted; page 0x3 was wanted; page 0xa was wanted); data pages: 0 shared, 0 encrypted"
    )
    // A question is no access.
    #expect(!memory.contains(4, in: .encrypted) && memory.audit.violationCount == 4)
  }

  @Test func aFewAreNamedAndAllCounted() throws {
    let memory = try Self.makeMemory()
    for _ in 0..<100 { #expect(memory.read(0, count: 1) == nil) }
    #expect(memory.audit.violationCount == 100)
    #expect(memory.audit.summary.split(separator: ";").count == 9)
  }

  @Test func aGuestThatHidesNothingHasNoCounts() throws {
    let memory = try Self.makeMemory(hides: false)
    #expect(!memory.hidesPages)
    #expect(Self.data(memory, [1, 2], .hostVisible) == [2, 2])
    #expect(memory.audit.summary == "visibility: 0 violations; data pages: 0 shared, 0 encrypted")
  }

  @Test func aPageThatChangesInUseIsFound() throws {
    let range = GPADLRange(byteCount: 3 * 4096, byteOffset: 0, gpns: [1, Self.boundary | 9, 3])
    let entry = GPADLEntry(1, [range])
    #expect(entry.page(in: 8..<10, boundary: Self.boundary) == Self.boundary | 9)
    #expect(entry.page(in: 4..<9, boundary: Self.boundary) == nil)
    let audit = VisibilityAudit(boundary: Self.boundary)
    #expect(audit.pages(Self.change(Self.boundary | 4..<Self.boundary | 6, true)) == 4..<6)
    var endless = LinkVisibility()
    (endless.firstPage, endless.pageCount) = (4, .max)
    #expect(audit.pages(endless) == 4 ..< .max)
    audit.changedInUse(9, of: "GPADL 0x1")
    #expect(audit.violationCount == 1)
  }
}
