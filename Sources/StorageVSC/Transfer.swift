// SPDX-License-Identifier: Apache-2.0

import Platform

/// What one user asked for. The service cuts it into chunks.
///
/// The user's side fills it in and waits for `outcome`; everything else belongs to the worker
/// from the moment that it is handed over.
@safe
final class Transfer: @unchecked Sendable {
  enum Kind {
    case read
    /// `forced`: on stable storage before it completes.
    case write(forced: Bool)
    case flush
  }

  @safe
  enum Memory {
    case none
    /// Of a thread that waits until the outcome is there.
    case lent(UnsafeMutableRawPointer)
    /// Our own, since a cancelled task does not wait.
    case owned([UInt8])
  }

  let kind: Kind
  /// Bytes from the start of the disk.
  let offset: UInt64
  let byteCount: Int
  private var memory: Memory
  /// Nil for success. A cancelled task keeps it early; then no chunk is begun any more.
  let outcome = Promise<StorageError?>()

  // The worker's.
  /// Bytes that are dealt with or in chunks under way.
  var begun = 0
  var chunksUnderWay = 0
  var failure: StorageError?

  init(_ kind: Kind, offset: UInt64 = 0, byteCount: Int = 0, memory: consuming Memory = .none) {
    self.kind = kind
    self.offset = offset
    self.byteCount = byteCount
    self.memory = memory
  }

  var isWrite: Bool {
    if case .write = kind { return true }
    return false
  }

  /// What was read. To be called once, after the outcome.
  func takeBytes() -> [UInt8] {
    guard case .owned(let bytes) = memory else { return [] }
    memory = .none
    return bytes
  }

  /// Copies the user's bytes from `position` on to the end of `target`, `count` of them.
  func copyOut(at position: Int, count: Int, toEndOf target: inout MutableRawSpan) {
    unsafe target.withUnsafeMutableBytes { target in
      guard count <= target.count else { return }
      unsafe withBytes(at: position, count: count) { bytes in
        unsafe UnsafeMutableRawBufferPointer(rebasing: target[(target.count - count)...])
          .copyMemory(from: UnsafeRawBufferPointer(bytes))
      }
    }
  }

  /// Copies `source` to the user's bytes from `position` on.
  func copyIn(at position: Int, _ source: RawSpan) {
    unsafe source.withUnsafeBytes { source in
      unsafe withBytes(at: position, count: source.count) { bytes in
        unsafe bytes.copyMemory(from: source)
      }
    }
  }

  /// The user's bytes from `position` on, `count` of them.
  ///
  /// Safe: the user gave `byteCount` bytes, and no others are touched.
  private func withBytes(
    at position: Int, count: Int, _ body: (UnsafeMutableRawBufferPointer) -> Void
  ) {
    guard position >= 0, count > 0, count <= byteCount - position else { return }
    switch memory {
    case .none: break
    case .lent(let start):
      unsafe body(UnsafeMutableRawBufferPointer(start: start + position, count: count))
    case .owned(var bytes):
      // Taken out, so that the array stays the only one and is changed in place.
      memory = .none
      unsafe bytes.withUnsafeMutableBytes { all in
        unsafe body(UnsafeMutableRawBufferPointer(rebasing: all[position..<position + count]))
      }
      memory = .owned(bytes)
    }
  }
}
