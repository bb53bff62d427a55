// SPDX-License-Identifier: Apache-2.0

import BlockStorage
import StorageProtocol
import VSC

extension Chunk {
  /// The command for this step.
  var command: SCSICommandBlock {
    let count = UInt32(truncatingIfNeeded: blockCount)
    switch step {
    case .read, .fetchForWrite:
      return SCSICommandBlock(.read(SCSIExtent(address: block, count: count)))
    case .write:
      var forced = false
      if case .write(true) = transfer.kind { forced = true }
      return SCSICommandBlock(
        .write(SCSIExtent(address: block, count: count, options: forced ? 0x08 : 0)))
    case .unmap: return .unmap(parameterByteCount: UInt16(UnmapParameterList.byteCount))
    case .fill:
      var unmap = true
      if case .writeZeroes(.fill) = transfer.kind { unmap = false }
      return .writeSame(address: block, count: count, unmap: unmap)
    case .command:
      if case .command(let block) = transfer.kind { return block }
      return SCSICommandBlock(.testUnitReady)
    case .flush:
      return SCSICommandBlock(.synchronizeCache(SCSIExtent(address: 0, count: 0)))
    }
  }
}

extension StorageService {
  /// Puts what the device is to read into a buffer.
  func prepare(_ chunk: Chunk, _ buffer: inout DMABuffer<External>) {
    switch chunk.step {
    case .write where chunk.transfer.isZeroing:
      buffer.clear(from: chunk.offsetInBlocks, count: chunk.byteCount)
    case .write:
      chunk.transfer.read(at: chunk.offsetInTransfer, count: chunk.byteCount) { bytes in
        buffer.copyIn(bytes, at: chunk.offsetInBlocks)
      }
    case .fill: buffer.clear(from: 0, count: chunk.dataByteCount)
    case .unmap:
      buffer.withMutableBytes(UnmapParameterList.byteCount) { target in
        UnmapParameterList(
          address: chunk.block, count: UInt32(truncatingIfNeeded: chunk.blockCount)
        ).write(into: &target)
      }
    case .command:
      guard case .command(let block) = chunk.transfer.kind, block.direction == .out else { return }
      chunk.transfer.read(at: 0, count: chunk.byteCount) { buffer.copyIn($0) }
    case .read, .fetchForWrite, .flush: break
    }
  }

  /// Takes what the device has written.
  func copyOut(_ chunk: Chunk, _ moved: Int, _ buffer: inout DMABuffer<External>) {
    let count = chunk.step == .command ? moved : chunk.byteCount
    guard count > 0, chunk.offsetInBlocks &+ count <= buffer.byteCount else { return }
    if case .command(let block) = chunk.transfer.kind, block.direction == .out { return }
    chunk.transfer.fill(at: chunk.offsetInTransfer, count: count) { target in
      buffer.moveOut(from: chunk.offsetInBlocks, into: &target)
    }
  }
}
