// SPDX-License-Identifier: Apache-2.0

public import PCIFunction
public import VSC

/// The memory of a submission queue, a completion queue, and the lists of pages of the requests in them.
///
/// The function keeps it until it is closed, so that a device which still writes writes nobody else's.
@safe
public struct QueueMemory: Sendable {
  @usableFromInline let submissions: DMAPages
  @usableFromInline let completions: DMAPages
  /// Nil for a queue whose requests have at most two pages.
  @usableFromInline let lists: DMAPages?
  /// Entries of each of the two queues.
  public let entries: Int
  /// Bytes of a request's list: a power of two of at most 4096, so that none crosses a page.
  @usableFromInline let listByteCount: Int

  /// - Parameters:
  ///   - depth: requests at one time, 1 to 4095.
  ///   - pageCount: of the largest request, at most 512.
  public init(
    _ function: any PCIFunction, depth: Int, pageCount: Int
  ) throws(PCIError) {
    // A queue is full with one entry less than it has.
    entries = min(max(depth, 1), 4095) + 1
    submissions = try function.allocate(
      .hostVisible, byteCount: Self.rounded(entries * 64), .read)
    completions = try function.allocate(
      .hostVisible, byteCount: Self.rounded(entries * 16), .write)
    var byteCount = 0
    if pageCount > 2 {
      byteCount = 64
      while byteCount < 8 * (pageCount - 1), byteCount < 4096 { byteCount *= 2 }
      lists = try function.allocate(
        .hostVisible, byteCount: Self.rounded(entries * byteCount), .read)
    } else {
      lists = nil
    }
    listByteCount = byteCount
    guard submissions.isContiguous, completions.isContiguous else {
      throw .transport(.unusable(reason: "the memory of a queue is not in one stretch"))
    }
  }

  /// Pages that one request can have.
  @inlinable var maximumPageCount: Int { listByteCount == 0 ? 2 : listByteCount / 8 &+ 1 }

  private static func rounded(_ count: Int) -> Int { (count + 4095) & ~4095 }

  var submissionAddress: UInt64 { unsafe submissions.pageNumbers[0] << 12 }
  var completionAddress: UInt64 { unsafe completions.pageNumbers[0] << 12 }

  /// All entries of the completion queue are old ones. Nobody may be writing them.
  func clear() {
    unsafe _ = completions.start.initializeMemory(
      as: UInt8.self, repeating: 0, count: completions.byteCount)
    unsafe _ = submissions.start.initializeMemory(
      as: UInt8.self, repeating: 0, count: submissions.byteCount)
  }
}

extension DMAPages {
  /// Whether the device sees it in one stretch, as a queue must be.
  var isContiguous: Bool {
    let first = unsafe pageNumbers[0]
    for index in 1..<max(byteCount / 4096, 1) {
      if unsafe pageNumbers[index] != first &+ UInt64(index) { return false }
    }
    return true
  }
}
