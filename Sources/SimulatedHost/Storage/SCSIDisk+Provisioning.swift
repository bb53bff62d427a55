// SPDX-License-Identifier: Apache-2.0

import StorageProtocol
import VMBus

/// What one command may ask of a thin disk. Page 0xB0 tells them, and they bound how long a
/// command can keep its worker.
struct ProvisioningLimits {
  /// Blocks of all descriptors of one UNMAP.
  let unmapBlocks: UInt32
  /// Descriptors of one UNMAP.
  static let unmapDescriptors = 256
  /// Blocks of one WRITE SAME.
  let writeSameBlocks: UInt32
  /// Blocks that are given back together.
  let granularity: UInt32
  /// Descriptors in an answer to GET LBA STATUS.
  static let statusDescriptors = 64

  init(_ blockSize: DiskBlockSize) {
    unmapBlocks = UInt32((1 << 30) / blockSize.rawValue)
    writeSameBlocks = UInt32((32 << 20) / blockSize.rawValue)
    granularity = UInt32(4096 / blockSize.rawValue)
  }
}

extension SCSIDisk {
  func unmap<Data: ExternalData & ~Copyable & ~Escapable>(
    _ listLength: UInt32, limit: UInt32, from data: inout Data
  ) -> SCSIOutcome {
    guard !image.isReadOnly else { return .check(.writeProtected) }
    guard listLength > 0 else { return .good(0) }
    guard listLength <= limit else { return .invalidRequest }
    guard listLength >= 8 else { return .check(.listLength) }
    // All of it is looked at before any block goes, so it is copied at once.
    var list = InlineArray<4104, UInt8>(repeating: 0)
    let length = min(Int(listLength), list.count)
    do throws(ExternalDataError) {
      var span = list.mutableSpan
      var target = unsafe span.mutableBytes
      try data.read(into: &target, count: length)
    } catch {
      return .invalidRequest
    }
    let span = list.span
    // Safe: any bit pattern is a UInt8.
    let bytes = unsafe span.bytes.extracting(first: length)
    do throws(SCSIRefusal) {
      let count = try checkDescriptors(bytes, listLength: listLength)
      for index in 0..<count {
        let extent = try UnmapExtent(bytes, index)
        try give(back: extent)
      }
      return .good(listLength)
    } catch {
      return SCSIOutcome(error)
    }
  }

  /// How many descriptors the list has, each of them with blocks of this disk.
  private func checkDescriptors(
    _ bytes: RawSpan, listLength: UInt32
  ) throws(SCSIRefusal) -> Int {
    var reader = BigEndianReader(bytes)
    let total = try reader.short()
    let described = try reader.short()
    // The header's own 6 bytes behind the first field, and the descriptors it counts.
    guard UInt32(total) >= UInt32(described) &+ 6 else {
      throw .sense(.invalidParameterField, .parameter(byte: 0))
    }
    guard UInt32(described) &+ 8 <= listLength else { throw .sense(.listLength, nil) }
    // A last one that is not whole is left out.
    let count = Int(described) / 16
    guard count <= ProvisioningLimits.unmapDescriptors else {
      throw .sense(.invalidParameterField, .parameter(byte: 2))
    }
    var sum: UInt64 = 0
    for index in 0..<count {
      let extent = try UnmapExtent(bytes, index)
      let place = UInt16(truncatingIfNeeded: 8 &+ 16 &* index)
      guard isOnDisk(extent.address, UInt64(extent.count)) else {
        throw .sense(.addressOutOfRange, .parameter(byte: place))
      }
      sum &+= UInt64(extent.count)
      guard sum <= UInt64(ProvisioningLimits(blockSize).unmapBlocks) else {
        throw .sense(.invalidParameterField, .parameter(byte: place &+ 8))
      }
    }
    return count
  }

  private func give(back extent: UnmapExtent) throws(SCSIRefusal) {
    let size = UInt64(blockSize.rawValue)
    do throws(BlockError) {
      try image.discard(at: extent.address &* size, count: UInt64(extent.count) &* size)
      try flushUnlessCached()
    } catch {
      throw .sense(.writeError, .information(extent.address))
    }
  }

  func writeSame<Data: ExternalData & ~Copyable & ~Escapable>(
    _ extent: SCSIExtent, unmaps: Bool, hasData: Bool, limit: UInt32, from data: inout Data
  ) -> SCSIOutcome {
    // Zero blocks would mean the rest of the disk; page 0xB0 says that it does not (WSNZ).
    guard extent.count > 0, extent.count <= ProvisioningLimits(blockSize).writeSameBlocks else {
      return .check(.invalidField)
    }
    guard isOnDisk(extent) else { return .check(.addressOutOfRange) }
    guard !image.isReadOnly else { return .check(.writeProtected) }
    let size = blockSize.rawValue
    guard !hasData || limit >= UInt32(size) else { return .invalidRequest }
    var block = InlineArray<4096, UInt8>(repeating: 0)
    if hasData {
      do throws(ExternalDataError) {
        var span = block.mutableSpan
        var target = unsafe span.mutableBytes
        try data.read(into: &target, count: size)
      } catch {
        return .invalidRequest
      }
    }
    var isZero = true
    for index in 0..<size where block[index] != 0 { isZero = false }
    do throws(BlockError) {
      if isZero && unmaps {
        // Only blocks that read as this one afterwards may be given back.
        try image.discard(at: byteOffset(of: extent), count: UInt64(extent.count) &* UInt64(size))
      } else {
        let span = block.span
        let bytes = unsafe span.bytes.extracting(first: size)
        for index in 0..<UInt64(extent.count) {
          try image.write(at: (extent.address &+ index) &* UInt64(size), from: bytes)
        }
      }
      try flushUnlessCached()
      return .good(hasData ? UInt32(size) : 0)
    } catch {
      return failure(error, .writeError, extent)
    }
  }

  /// GET LBA STATUS: runs of blocks that take room, and of blocks that take none.
  func reportProvisioning<Data: ExternalData & ~Copyable & ~Escapable>(
    _ address: UInt64, allocationLength: UInt32, limit: UInt32, to data: inout Data
  ) -> SCSIOutcome {
    guard isOnDisk(address, 1) else { return .check(.addressOutOfRange) }
    let room = Int(min(allocationLength, limit))
    var answer = SCSIStream(room: room)
    var next = address
    var count = 0
    answer.skip(8)
    do throws(ExternalDataError) {
      while count < ProvisioningLimits.statusDescriptors, next < blockCount, answer.hasRoom,
        let run = provisioningRun(next)
      {
        var descriptor = SCSIAnswer()
        descriptor.appendLong(next)
        descriptor.appendWord(run.count)
        descriptor.append(run.isMapped ? 0 : 1)
        for _ in 0..<3 { descriptor.append(0) }
        try answer.append(descriptor, to: &data)
        next &+= UInt64(run.count)
        count &+= 1
      }
      var header = SCSIAnswer()
      header.appendWord(UInt32(4 &+ 16 &* count))
      header.appendWord(0)
      try answer.put(header, at: 0, to: &data)
    } catch {
      return .invalidRequest
    }
    return .good(answer.moved)
  }

  /// A block takes room if any byte of it does.
  private func provisioningRun(_ address: UInt64) -> (isMapped: Bool, count: UInt32)? {
    let size = UInt64(blockSize.rawValue)
    guard let run = try? image.allocation(at: address &* size) else { return nil }
    let whole = run.byteCount / size
    let blocks =
      run.isAllocated
      ? (run.byteCount &+ size &- 1) / size : whole
    guard blocks > 0 else { return (true, 1) }
    return (run.isAllocated, UInt32(clamping: min(blocks, blockCount &- min(address, blockCount))))
  }
}

/// One descriptor of an UNMAP's parameter list.
private struct UnmapExtent {
  let address: UInt64
  let count: UInt32

  init(_ bytes: RawSpan, _ index: Int) throws(SCSIRefusal) {
    var reader = BigEndianReader(bytes)
    try reader.skip(8 &+ 16 &* index)
    address = try reader.long()
    count = try reader.word()
  }
}

/// A cursor over a private copy of a parameter list: each access can throw, none can trap.
struct BigEndianReader: ~Escapable {
  private var reader: WireReader

  @_lifetime(copy bytes)
  init(_ bytes: RawSpan) { reader = WireReader(bytes, name: "SCSI parameter list") }

  var remaining: Int { reader.remaining }

  mutating func byte() throws(SCSIRefusal) -> UInt8 { try read(UInt8.self) }
  mutating func short() throws(SCSIRefusal) -> UInt16 { try read(UInt16.self).byteSwapped }
  mutating func word() throws(SCSIRefusal) -> UInt32 { try read(UInt32.self).byteSwapped }
  mutating func long() throws(SCSIRefusal) -> UInt64 { try read(UInt64.self).byteSwapped }

  mutating func skip(_ count: Int) throws(SCSIRefusal) {
    do throws(WireError) { try reader.skip(count) } catch { throw .sense(.listLength, nil) }
  }

  private mutating func read<T: FixedWidthInteger & BitwiseCopyable>(
    _ type: T.Type
  ) throws(SCSIRefusal) -> T {
    do throws(WireError) {
      return try reader.read(type)
    } catch {
      throw .sense(.listLength, nil)
    }
  }
}
