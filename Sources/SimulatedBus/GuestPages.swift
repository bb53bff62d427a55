// SPDX-License-Identifier: Apache-2.0

import CLinux
import Platform
import SimulatedLink
import Synchronization
import SystemPackage
import VMBus
import VSC

/// All of the guest's memory. In an isolated machine each page is encrypted, or host-visible, and
/// the two kinds are two memory files: a page that changes its kind is other memory afterwards.
@safe
final class GuestPages: @unchecked Sendable {
  // The mapping changes page by page, under the lock, where nobody uses the pages.
  private let mapping: MappedMemory
  private let hostVisibleFile: MemoryFile
  /// Nil in a machine without isolation, where there is no such memory.
  private let encryptedFile: File?
  private let state: Lock<State>
  private let pageCount: Int

  /// A box, since an optional of a noncopyable value can't be a constant of a class.
  private final class File: Sendable {
    let file: MemoryFile

    init(_ file: consuming MemoryFile) { self.file = file }
  }

  /// Asks for pages to be made host-visible, or private again.
  typealias Change =
    @Sendable (_ firstPage: GPN, _ pageCount: Int, _ isHostVisible: Bool) throws(TransportError)
    -> Void

  private struct State {
    var encrypted = FreePages()
    var hostVisible = FreePages()
    /// Host-visible pages that are in use, and for what.
    var uses: [Int: (pages: Range<Int>, use: StaticString)] = [:]
    var change: Change?
  }

  /// Where the memory starts, in pages: not at 0, so that a wrong number is noticed.
  static let firstPage: GPN = 0x10_0000
  /// The address bit of a host-visible page (vTOM).
  static let boundaryBit: UInt8 = 46
  static let boundary: GPN = 1 << (GPN(boundaryBit) - 12)
  /// So many pages change their kind together.
  private static let changeUnit = 512

  var isIsolated: Bool { encryptedFile != nil }

  /// - Parameter byteCount: of all memory, a multiple of 4096.
  init(byteCount: Int, isIsolated: Bool) throws(Errno) {
    pageCount = byteCount / 4096
    let hostVisibleFile = try MemoryFile(
      name: isIsolated ? "vmbus-host-visible" : "vmbus-plain", byteCount: byteCount)
    let all = FreePages([0..<byteCount / 4096])
    if isIsolated {
      let encrypted = try MemoryFile(name: "vmbus-encrypted", byteCount: byteCount)
      mapping = try encrypted.map()
      encryptedFile = File(encrypted)
      state = Lock(State(encrypted: all))
    } else {
      mapping = try hostVisibleFile.map()
      encryptedFile = nil
      state = Lock(State(hostVisible: all))
    }
    self.hostVisibleFile = hostVisibleFile
  }

  /// What whoever is joined is told.
  ///
  /// - Parameter isTrusted: it gets encrypted memory too: here is the one place that could leak it.
  func join(_ joining: inout GuestLink.Joining, isTrusted: Bool) {
    var region = LinkRegion()
    region.firstPage = Self.firstPage
    region.pageCount = UInt64(pageCount)
    region.startsPrivate = isIsolated ? 1 : 0
    joining.regions = [region]
    joining.files = [hostVisibleFile.owned.rawValue]
    guard let encryptedFile else { return }
    joining.boundaryBit = Self.boundaryBit
    guard isTrusted else { return }
    region.isEncrypted = 1
    region.file = 1
    joining.regions.append(region)
    joining.files.append(encryptedFile.file.owned.rawValue)
  }

  /// From now on pages can change.
  func joined(_ change: @escaping Change) { state.withLock { $0.change = change } }

  /// Host-visible pages in use by the number of their first page, with what they are used for.
  var hostVisibleUses: [(pages: Range<GPN>, use: StaticString)] {
    state.withLock { $0.uses.values.map { $0 } }.map { entry in
      (
        number(
          entry.pages.lowerBound, .hostVisible)..<number(
            entry.pages.upperBound, .hostVisible), entry.use
      )
    }.sorted { $0.pages.lowerBound < $1.pages.lowerBound }
  }

  // MARK: - Allocation

  /// Pages behind each other, all zero.
  ///
  /// - Parameter use: what they are for, for people.
  func allocate(
    _ memory: MemoryVisibility, byteCount: Int, use: StaticString
  ) throws(TransportError) -> PageAllocation {
    guard memory == .hostVisible || isIsolated else { throw .noSuchMemory(.encrypted) }
    let count = max((byteCount + 4095) / 4096, 1)
    let found = state.withLock { state -> Result<Range<Int>?, TransportError> in
      do throws(TransportError) {
        let pages = try take(count, memory, &state)
        if memory == .hostVisible, let pages { state.uses[pages.lowerBound] = (pages, use) }
        return .success(pages)
      } catch {
        return .failure(error)
      }
    }
    guard let pages = try found.get() else { throw .outOfMemory(memory, byteCount: byteCount) }
    return unsafe PageAllocation(
      self, pages, memory, start: mapping.start + pages.lowerBound * 4096)
  }

  private func take(
    _ count: Int, _ memory: MemoryVisibility, _ state: inout State
  ) throws(TransportError) -> Range<Int>? {
    switch memory {
    case .hostVisible:
      if let pages = state.hostVisible.take(count) { return pages }
      let unit = max(count, Self.changeUnit)
      guard let pages = state.encrypted.take(unit) ?? state.encrypted.take(count) else {
        return nil
      }
      try change(pages, to: .hostVisible, &state)
      state.hostVisible.insert(pages)
      return state.hostVisible.take(count)
    case .encrypted:
      if let pages = state.encrypted.take(count) { return pages }
      // What is host-visible and free becomes private again.
      for pages in state.hostVisible.stretches {
        try change(pages, to: .encrypted, &state)
        state.encrypted.insert(pages)
      }
      state.hostVisible = FreePages()
      return state.encrypted.take(count)
    }
  }

  /// Changes the kind of pages that nobody uses, in this order: they are unmapped, so that a stray
  /// access faults; changed; emptied; and mapped as what they are then.
  private func change(
    _ pages: Range<Int>, to memory: MemoryVisibility, _ state: inout State
  ) throws(TransportError) {
    guard let encryptedFile, let change = state.change else { throw .noSuchMemory(memory) }
    let (offset, byteCount) = (pages.lowerBound * 4096, pages.count * 4096)
    let (encrypted, hostVisible) = (
      encryptedFile.file.owned.rawValue, hostVisibleFile.owned.rawValue
    )
    let (before, after) =
      memory == .hostVisible ? (encrypted, hostVisible) : (hostVisible, encrypted)
    do throws(Errno) {
      try mapping.remap(at: offset, byteCount: byteCount, to: nil)
      do throws(TransportError) {
        try change(
          number(pages.lowerBound, .hostVisible), pages.count, memory == .hostVisible)
      } catch {
        // The other side has refused: as they were.
        try mapping.remap(at: offset, byteCount: byteCount, to: before)
        throw Errno.permissionDenied
      }
      for file in [encrypted, hostVisible] {
        try checked(vmbus_punch_hole(file, Int64(offset), Int64(byteCount)))
      }
      try mapping.remap(at: offset, byteCount: byteCount, to: after)
    } catch {
      throw .system("page visibility", code: error.rawValue, text: "\(error)")
    }
  }

  /// Zeroes pages and gives them back to the system: free host-visible memory is always zero.
  fileprivate func release(_ pages: Range<Int>, _ memory: MemoryVisibility) {
    // Safe: these pages were given out once and nobody has them any more.
    unsafe vmbus_zero_shared(mapping.start + pages.lowerBound * 4096, pages.count * 4096)
    state.withLock { state in
      switch memory {
      case .encrypted: state.encrypted.insert(pages)
      case .hostVisible:
        state.uses[pages.lowerBound] = nil
        state.hostVisible.insert(pages)
      }
    }
  }

  fileprivate func number(_ page: Int, _ memory: MemoryVisibility) -> GPN {
    let number = Self.firstPage + GPN(page)
    return memory == .hostVisible && isIsolated ? number | Self.boundary : number
  }
}

/// Pages that are in use for as long as this object lives.
@safe
final class PageAllocation: @unchecked Sendable {
  private let memory: GuestPages
  private let pages: Range<Int>
  private let visibility: MemoryVisibility
  let start: UnsafeMutableRawPointer
  /// One number for each page.
  let pageNumbers: UnsafeMutablePointer<GPN>

  fileprivate init(
    _ memory: GuestPages, _ pages: Range<Int>, _ visibility: MemoryVisibility,
    start: UnsafeMutableRawPointer
  ) {
    self.memory = memory
    self.pages = pages
    self.visibility = visibility
    unsafe self.start = start
    unsafe pageNumbers = .allocate(capacity: pages.count)
    for (index, page) in pages.enumerated() {
      unsafe (pageNumbers + index).initialize(to: memory.number(page, visibility))
    }
  }

  deinit {
    unsafe pageNumbers.deallocate()
    memory.release(pages, visibility)
  }

  var byteCount: Int { pages.count * 4096 }
  var firstPage: GPN { memory.number(pages.lowerBound, visibility) }
  var gpns: [GPN] { pages.map { memory.number($0, visibility) } }

  /// For the framework.
  var dmaPages: DMAPages {
    unsafe DMAPages(
      start: start, byteCount: byteCount, pageNumbers: pageNumbers,
      isScrubbed: memory.isIsolated && visibility == .hostVisible, owner: self)
  }
}
