// SPDX-License-Identifier: Apache-2.0

package import Platform
package import StorageProtocol

/// What one user asked for. A service cuts it into chunks.
///
/// The user's side fills it in and waits for `outcome`; everything else belongs to the worker
/// from the moment that it is handed over.
@safe
package final class Transfer: @unchecked Sendable {
  package enum Kind {
    case read
    /// `forced`: on stable storage before it completes.
    case write(forced: Bool)
    case flush
    /// Gives blocks back: whole blocks only.
    case discard
    case writeZeroes(ZeroMethod)
    /// A command of any kind with up to `byteCount` bytes of data, which is never cut.
    case command(SCSICommandBlock)
  }

  /// How zeros get to the disk.
  package enum ZeroMethod {
    case writes, fill
    /// WRITE SAME that may give the blocks back.
    case fillOrUnmap
  }

  @safe
  package enum Memory {
    case none
    /// Of a thread that waits until the outcome is there.
    case lent(UnsafeMutableRawPointer)
    /// Our own, since a cancelled task does not wait.
    case owned([UInt8])
  }

  package let kind: Kind
  /// A LUN, or the id of an NVMe namespace.
  package let number: UInt32
  package var lun: UInt8 { UInt8(truncatingIfNeeded: number) }
  /// Bytes from the start of the disk.
  package let offset: UInt64
  package let byteCount: Int
  /// What the disk was when this was asked for.
  package let geometry: DiskGeometry
  package let provisioning: DiskProvisioning
  /// Nil for what is not about a disk.
  package let unit: StorageUnit?
  private var memory: Memory
  /// Nil for success. A cancelled task keeps it early; then no chunk is begun any more.
  package let outcome = Promise<StorageError?>()

  // The unit's, under its lock.
  package var isActive = false

  // The worker's.
  /// Bytes that are dealt with or in chunks under way.
  package var begun = 0
  package var chunksUnderWay = 0
  package var failure: StorageError?
  /// A flush has to follow, since the disk can't force writes by themselves.
  package var needsFlush = false
  /// Bytes that a command moved.
  package var moved = 0
  /// A zero transfer goes on with writes: the disk does not know the command.
  package var fallsBack = false

  /// A transfer of a disk.
  package init(
    _ kind: Kind, _ unit: StorageUnit, offset: UInt64 = 0, byteCount: Int = 0, flush: Bool = false,
    memory: consuming Memory = .none
  ) {
    let disk = unit.information
    self.kind = kind
    self.unit = unit
    number = unit.number
    geometry = disk.geometry
    provisioning = disk.provisioning
    needsFlush = flush
    self.offset = offset
    self.byteCount = byteCount
    self.memory = memory
  }

  /// A command for a unit that need not be a disk.
  package init(_ kind: Kind, lun: UInt8, byteCount: Int = 0, memory: consuming Memory = .none) {
    self.kind = kind
    number = UInt32(lun)
    unit = nil
    geometry = DiskGeometry()
    provisioning = DiskProvisioning()
    offset = 0
    self.byteCount = byteCount
    self.memory = memory
  }

  /// Whether it changes blocks in the order in which writes to the same blocks must not meet.
  package var isOrdered: Bool {
    switch kind {
    case .write, .writeZeroes, .discard: true
    default: false
    }
  }

  /// It is over: its user learns it, and so does whoever waits for its blocks.
  package func settle(_ error: StorageError?) {
    outcome.keep(error)
    unit?.leave(self)
  }

  /// What was read. To be called once, after the outcome.
  package func takeBytes() -> [UInt8] {
    // The outcome's lock orders this after the worker's last write, for ThreadSanitizer too, which
    // does not see all that a resumed task is ordered by.
    guard outcome.isKept, case .owned(let bytes) = memory else { return [] }
    memory = .none
    return bytes
  }

  /// The user's bytes from `position` on, `count` of them, for `body` to copy.
  package func read(at position: Int, count: Int, _ body: (RawSpan) -> Void) {
    unsafe withBytes(at: position, count: count) { bytes in
      body(unsafe RawSpan(_unsafeBytes: UnsafeRawBufferPointer(bytes)))
    }
  }

  /// The user's bytes from `position` on, `count` of them, to be filled by `body`.
  package func fill(at position: Int, count: Int, _ body: (inout MutableRawSpan) -> Void) {
    unsafe withBytes(at: position, count: count) { bytes in
      var span = unsafe MutableRawSpan(_unsafeBytes: bytes)
      body(&span)
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
