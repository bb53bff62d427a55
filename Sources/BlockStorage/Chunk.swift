// SPDX-License-Identifier: Apache-2.0

/// One request of a transfer, or two after each other on the same blocks.
package struct Chunk {
  package enum Step {
    case read, write, flush, fetchForWrite, unmap, fill, command
  }

  package var transfer: Transfer
  package var step: Step
  package var block: UInt64 = 0
  package var blockCount = 0
  /// The part that the user asked for: bytes into the blocks, and into the transfer.
  package var offsetInBlocks = 0
  package var offsetInTransfer = 0
  package var byteCount = 0
  /// Repetitions.
  package var attempts = 0
  /// Blocks of which the user writes a part.
  package var isPartial = false

  /// Bytes that the device is given.
  package var dataByteCount: Int {
    switch step {
    case .read, .write, .fetchForWrite: blockCount &* transfer.geometry.blockByteCount
    case .unmap: 24
    case .fill: transfer.geometry.blockByteCount
    case .command: byteCount
    case .flush: 0
    }
  }

  /// Whether doing it twice does the same as doing it once.
  package var isIdempotent: Bool {
    switch step {
    case .read, .write, .flush, .fetchForWrite, .unmap, .fill: true
    case .command: false
    }
  }

  /// Blocks that one command gives back or fills, where the disk names no limit: a command that
  /// takes longer than its time-out helps nobody.
  private static let provisioningByteCount = 256 << 20

  /// The next piece of a transfer, which is not begun completely.
  ///
  /// - Parameter bufferByteCount: bytes of one buffer.
  package init(of transfer: Transfer, bufferByteCount: Int) {
    self.init(transfer: transfer, step: .read)
    switch transfer.kind {
    case .flush: step = .flush
    case .command:
      step = .command
      byteCount = transfer.byteCount
    case .read, .write, .discard, .writeZeroes: cut(bufferByteCount)
    }
  }

  private init(transfer: Transfer, step: Step) {
    self.transfer = transfer
    self.step = step
  }

  /// A flush that follows a transfer.
  package static func flush(_ transfer: Transfer) -> Chunk {
    Chunk(transfer: transfer, step: .flush)
  }

  private mutating func cut(_ bufferByteCount: Int) {
    let size = transfer.geometry.blockByteCount
    // The face has checked that the range lies on the disk.
    let start = transfer.offset &+ UInt64(transfer.begun)
    let left = transfer.byteCount &- transfer.begun
    let offset = Int(start & UInt64(size &- 1))
    let most =
      min(bufferByteCount, transfer.geometry.maximumTransferByteCount) & ~(size &- 1)
    block = start / UInt64(size)
    offsetInBlocks = offset
    offsetInTransfer = transfer.begun
    switch transfer.kind {
    case .discard:
      step = .unmap
      byteCount = provisioned(left, UInt64(transfer.provisioning.maximumUnmapBlockCount))
      if !transfer.provisioning.canUnmap {
        step = .fill
        byteCount = provisioned(left, transfer.provisioning.maximumFillBlockCount)
      }
    case .read:
      byteCount = min(left, most &- offset)
    default:
      if offset != 0 || left < size {
        isPartial = true
        step = .fetchForWrite
        byteCount = min(size &- offset, left)
      } else if case .writeZeroes(.fill) = transfer.kind, !transfer.fallsBack {
        step = .fill
        byteCount = provisioned(left, transfer.provisioning.maximumFillBlockCount)
      } else if case .writeZeroes(.fillOrUnmap) = transfer.kind, !transfer.fallsBack {
        step = .fill
        byteCount = provisioned(left, transfer.provisioning.maximumFillBlockCount)
      } else {
        step = .write
        byteCount = min(left & ~(size &- 1), most)
      }
    }
    blockCount = (offset &+ byteCount &+ size &- 1) / size
  }

  /// Bytes, whole blocks, of one command that moves none.
  private func provisioned(_ left: Int, _ limit: UInt64) -> Int {
    let size = transfer.geometry.blockByteCount
    var blocks = UInt64(min(left, Chunk.provisioningByteCount) / size)
    if limit > 0 { blocks = min(blocks, limit) }
    return Int(blocks) &* size
  }

  /// Whether success means that all of the data was moved.
  package var isCounted: Bool {
    switch step {
    case .read, .write, .fetchForWrite: true
    case .flush, .unmap, .fill, .command: false
    }
  }
}

extension Transfer {
  package var isZeroing: Bool {
    if case .writeZeroes = kind { return true }
    return false
  }
}
