// SPDX-License-Identifier: Apache-2.0

package import Platform
import SystemPackage
import VMBus
package import VSC

/// Memory for DMA on a real machine: huge pages of a memory file, known to the device by their
/// physical addresses.
///
/// The file's descriptor lies below those of device files: a killed process's channels are closed
/// before its memory is free (law 3).
@safe
package final class PhysicalMemory: @unchecked Sendable {
  // Nothing changes after `init`.
  private let file: HugePageFile
  private let mapping: MappedMemory
  /// Nil where the system does not let us: the pages stay where they are all the same, but for memory
  /// that is taken offline.
  private let pins: PinnedPages?
  private let numbers: UnsafeMutablePointer<GPN>
  private let byteCount: Int

  package init(byteCount wanted: Int, _ pageMap: PageMap) throws(TransportError) {
    let (padded, overflow) = wanted.addingReportingOverflow(HugePageFile.pageByteCount - 1)
    let count = padded / HugePageFile.pageByteCount
    guard !overflow, count > 0 else { throw .outOfMemory(.hostVisible, byteCount: wanted) }
    let file = try Self.takePages(count)
    let mapping = try Self.map(file)
    // Before the addresses are read: pinning may move a page.
    let pins = PinnedPages(mapping, unitByteCount: HugePageFile.pageByteCount)
    let frames = try Self.frames(of: mapping, count: count, pageMap)
    self.file = file
    self.mapping = mapping
    self.pins = pins
    byteCount = wanted
    let pagesPerFrame = HugePageFile.pageByteCount / 4096
    unsafe numbers = .allocate(capacity: count * pagesPerFrame)
    for (index, frame) in frames.enumerated() {
      for page in 0..<pagesPerFrame {
        unsafe (numbers + index * pagesPerFrame + page).initialize(to: frame + GPN(page))
      }
    }
  }

  deinit { unsafe numbers.deallocate() }

  private static func takePages(_ count: Int) throws(TransportError) -> HugePageFile {
    do throws(Errno) {
      return try HugePageFile(
        name: "vmbus-dma", byteCount: count * HugePageFile.pageByteCount,
        below: DeviceFile.lowestDescriptor)
    } catch .noMemory, .noSpace {
      throw .noHugePages(count: count)
    } catch {
      throw .system("huge pages", code: error.rawValue, text: "\(error)")
    }
  }

  private static func map(_ file: borrowing HugePageFile) throws(TransportError) -> MappedMemory {
    do throws(Errno) {
      return try file.map()
    } catch {
      throw .system("huge pages", code: error.rawValue, text: "\(error)")
    }
  }

  /// The number of the first page of 4096 bytes of each huge page.
  private static func frames(
    of mapping: borrowing MappedMemory, count: Int, _ pageMap: PageMap
  ) throws(TransportError) -> [GPN] {
    var frames: [GPN] = []
    for index in 0..<count {
      let start = unsafe mapping.start + index * HugePageFile.pageByteCount
      // A page has a place in memory once it was touched.
      unsafe start.storeBytes(of: 0, as: UInt64.self)
      let frame: UInt64
      do throws(Errno) {
        frame = unsafe try pageMap.frames(at: start, count: 1)[0]
      } catch {
        throw .system("/proc/self/pagemap", code: error.rawValue, text: "\(error)")
      }
      guard frame != 0 else {
        throw .notPermitted(
          path: "/proc/self/pagemap",
          need: "physical addresses are told to a process that starts with CAP_SYS_ADMIN")
      }
      frames.append(frame * GPN(SystemPage.byteCount / 4096))
    }
    return frames
  }

  /// For the framework.
  ///
  /// - Parameter isScrubbed: whether the host sees this memory and not all the rest.
  package func pages(isScrubbed: Bool) -> DMAPages {
    // Safe: this object, which keeps both, is the owner.
    unsafe DMAPages(
      start: mapping.start, byteCount: (byteCount + 4095) & ~4095, pageNumbers: numbers,
      isScrubbed: isScrubbed, owner: self)
  }
}
