// SPDX-License-Identifier: Apache-2.0

import Platform
import SystemPackage
import VMBus
import VSC

/// Memory of the module's for DMA: its pages do not move, and are free when the host cannot reach them any
/// more, whatever becomes of this process.
@safe
final class KernelMemory: @unchecked Sendable {
  // Nothing changes after `init`.
  private let mapping: MappedMemory
  private let numbers: UnsafeMutablePointer<GPN>
  private let isScrubbed: Bool

  init(
    _ session: KernelSession, _ memory: MemoryVisibility, byteCount wanted: Int
  ) throws(TransportError) {
    try session.check(memory)
    let page = SystemPage.byteCount
    let byteCount = (max(wanted, 1) + page - 1) / page * page
    // As many regions behind each other as it takes.
    let most = max(session.facts.regionLimit / page * page, page)
    unsafe numbers = .allocate(capacity: byteCount / 4096)
    unsafe numbers.initialize(repeating: 0, count: byteCount / 4096)
    isScrubbed = session.facts.external == .shared
    var regions: [(offset: Int, byteCount: Int)] = []
    do throws(Errno) {
      var done = 0
      while done < byteCount {
        let count = min(byteCount - done, most)
        let region = unsafe try session.file.allocate(
          byteCount: count, withGPADL: false, session.facts.external,
          pages: numbers + done / 4096)
        regions.append((region.offset, count))
        done += count
      }
      mapping = try MappedMemory.joining(regions, of: session.file.rawValue)
    } catch {
      for region in regions { try? session.file.free(region.offset) }
      unsafe numbers.deallocate()
      throw session.memoryFailure(error, memory, byteCount: byteCount)
    }
  }

  deinit { unsafe numbers.deallocate() }

  /// For the framework.
  var pages: DMAPages {
    // Safe: this object, which keeps both, is the owner.
    unsafe DMAPages(
      start: mapping.start, byteCount: mapping.byteCount, pageNumbers: numbers,
      isScrubbed: isScrubbed, owner: self)
  }
}

/// The same with a GPADL. After that is torn down the mapping shows other memory.
@safe
final class KernelSharedMemory: @unchecked Sendable {
  // Only the memory changes, and it is made for several threads.
  private let mapping: MappedMemory
  private let gpadl: GPADLID

  /// Waits for the host.
  init(
    _ session: KernelSession, _ memory: MemoryVisibility, byteCount wanted: Int
  ) throws(TransportError) {
    try session.check(memory)
    let page = SystemPage.byteCount
    let byteCount = (max(wanted, 1) + page - 1) / page * page
    guard byteCount <= session.facts.gpadlLimit else {
      throw .unusable(
        reason:
          "\(byteCount) bytes are to be shared, and the module shares \(session.facts.gpadlLimit) bytes at most"
      )
    }
    do throws(Errno) {
      // Nobody needs the numbers of its pages, and it is free sooner without them.
      let region = unsafe try session.file.allocate(
        byteCount: byteCount, withGPADL: true, session.facts.external, pages: nil)
      do throws(Errno) {
        mapping = try MappedMemory(
          session.file.rawValue, offset: region.offset, byteCount: byteCount)
      } catch {
        try? session.file.free(region.offset)
        throw error
      }
      gpadl = region.gpadl
      guard session.keepShared(region.offset) else {
        try? session.file.free(region.offset)
        throw Errno.operationNotSupportedByDevice
      }
    } catch {
      throw session.memoryFailure(error, memory, byteCount: byteCount)
    }
  }

  var pages: SharedPages {
    // Safe: this object, which keeps the mapping, is the owner.
    unsafe SharedPages(
      start: mapping.start, byteCount: mapping.byteCount, gpadl: gpadl, owner: self)
  }
}

extension KernelSession {
  /// A device has memory for DMA of one kind.
  fileprivate func check(_ memory: MemoryVisibility) throws(TransportError) {
    guard facts.external.memory == memory else { throw .noSuchMemory(memory) }
  }

  fileprivate func memoryFailure(
    _ error: Errno, _ memory: MemoryVisibility, byteCount: Int
  ) -> TransportError {
    switch error {
    case .noMemory:
      .unusable(
        reason:
          "\(byteCount) bytes of \(memory) memory are not to be had: the machine has no more, or this user may not lock that much (ulimit -l), or the device has its \(facts.limit) bytes (a parameter of the module)"
      )
    case .ioError: .unusable(reason: "the host refused memory of \(byteCount) bytes (see dmesg)")
    default: failure(error)
    }
  }
}
