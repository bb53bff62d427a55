// SPDX-License-Identifier: Apache-2.0

import StorageProtocol

extension SCSIDisk {
  /// VERIFY. Without data to compare there is nothing more to look at than a file system has
  /// looked at already.
  func verify<Data: ExternalData & ~Copyable & ~Escapable>(
    _ extent: SCSIExtent, _ comparison: DiskComparison, limit: UInt32, maximumTransfer: UInt32,
    data: inout Data
  ) -> SCSIOutcome {
    guard isOnDisk(extent) else { return .check(.addressOutOfRange) }
    let size = UInt64(blockSize.rawValue)
    let compared = UInt64(extent.count) &* size
    switch comparison {
    case .nothing: return .good(0)
    case .data, .oneBlock:
      guard compared <= UInt64(maximumTransfer) else { return .check(.invalidField) }
      guard extent.count > 0 else { return .good(0) }
      let needed = comparison == .data ? compared : size
      guard needed <= UInt64(limit) else { return .invalidRequest }
    }
    return compare(extent, with: comparison, limit: limit, data: &data)
  }

  /// Compares blocks with the data, of which there is enough. The outcome has the bytes of data
  /// that were looked at.
  func compare<Data: ExternalData & ~Copyable & ~Escapable>(
    _ extent: SCSIExtent, with comparison: DiskComparison, limit: UInt32, data: inout Data
  ) -> SCSIOutcome {
    let total = Int(extent.count) &* blockSize.rawValue
    let repeats = comparison == .oneBlock ? blockSize.rawValue : total
    var disk = InlineArray<512, UInt8>(repeating: 0)
    var guest = InlineArray<512, UInt8>(repeating: 0)
    var done = 0
    while done < total {
      do throws(BlockError) {
        var span = disk.mutableSpan
        var target = unsafe span.mutableBytes
        try image.read(at: byteOffset(of: extent) &+ UInt64(done), into: &target)
      } catch {
        return failure(error, .unrecoveredRead, extent)
      }
      do throws(ExternalDataError) {
        var span = guest.mutableSpan
        var target = unsafe span.mutableBytes
        try data.read(into: &target, count: 512, at: done % repeats)
      } catch {
        return .invalidRequest
      }
      for index in 0..<512 where disk[index] != guest[index] {
        return .check(.miscompare, .information(UInt64((done &+ index) % repeats)))
      }
      done &+= 512
    }
    return .good(UInt32(truncatingIfNeeded: repeats))
  }
}
