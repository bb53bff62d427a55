// SPDX-License-Identifier: Apache-2.0

public import StorageProtocol

/// What a disk said of itself when it was found.
public struct DiskInformation: Equatable, Sendable {
  public var vendor = ""
  public var product = ""
  public var revision = ""
  /// Empty when the disk has none.
  public var serial = ""
  public var geometry = DiskGeometry()
  public var provisioning = DiskProvisioning()
  public var isReadOnly = false
  /// Whether a write can ask to be on stable storage before it completes. Where it can't, a flush
  /// follows the write.
  public var supportsForcedWrites = false
  /// Whether writes stay in a cache until a flush; nil when the disk does not say.
  public var hasWriteCache: Bool?
  /// Nil when the disk does not say.
  public var isRotating: Bool?
  /// Of the VMBus storage protocol; 0 for other disks.
  public var version = StorageVersion(rawValue: 0)
  /// How the disk is talked to, for people: "6.2" or "NVMe 1.4".
  public var protocolName = ""

  public init() {}
}

/// The numbers that each request is checked against.
public struct DiskGeometry: Equatable, Sendable {
  /// Bytes: a power of two, 512 to 4096.
  public var blockByteCount = 512
  public var blockCount: UInt64 = 0
  /// Bytes that one request may move: what the host, the disk and a packet allow, whole blocks.
  public var maximumTransferByteCount = 0
  /// Bytes that are written at once inside: at least a block.
  public var physicalBlockByteCount = 512
  /// Bytes of a request that suits the disk best; 0 when it does not say.
  public var optimalTransferByteCount = 0

  public init() {}

  /// Bytes of the disk; fits in an `Int64`.
  @inlinable public var byteCount: UInt64 { blockCount &* UInt64(blockByteCount) }

  /// Checks the answer of READ CAPACITY.
  package init(lastBlock: UInt64, blockSize: UInt32, maximumTransfer: Int) throws(StorageError) {
    let (blocks, overflow) = lastBlock.addingReportingOverflow(1)
    let (bytes, tooMany) = blocks.multipliedReportingOverflow(by: UInt64(blockSize))
    guard !overflow, !tooMany, bytes <= UInt64(Int64.max), blockSize >= 512, blockSize <= 4096,
      blockSize & (blockSize &- 1) == 0
    else { throw .unusableGeometry(lastBlock: lastBlock, blockSize: blockSize) }
    blockByteCount = Int(blockSize)
    physicalBlockByteCount = Int(blockSize)
    blockCount = blocks
    // The host's word; at least 4096, as the negotiation has checked.
    maximumTransferByteCount = maximumTransfer & ~4095
  }

  /// Takes the block limits that the disk reports, where they are usable.
  package mutating func limit(to page: BlockLimits) {
    if page.maximumTransfer > 0 {
      let bytes = UInt64(page.maximumTransfer) &* UInt64(blockByteCount)
      maximumTransferByteCount = Int(min(UInt64(maximumTransferByteCount), bytes))
    }
    let optimal = UInt64(page.optimalTransfer) &* UInt64(blockByteCount)
    if optimal <= UInt64(maximumTransferByteCount) { optimalTransferByteCount = Int(optimal) }
  }
}

/// How blocks of a disk are given back, and filled without sending their bytes.
public struct DiskProvisioning: Equatable, Sendable {
  /// Blocks get their storage when they are written first.
  public var isThin = false
  public var canUnmap = false
  /// Blocks of one UNMAP; 0 for no limit.
  public var maximumUnmapBlockCount: UInt32 = 0
  /// Blocks that are given back together; at least 1.
  public var unmapGranularity: UInt32 = 1
  /// Blocks that were given back read as zeros.
  public var readsZeros = false
  /// WRITE SAME fills blocks.
  public var canFill = false
  /// WRITE SAME may give blocks back instead.
  public var canFillByUnmap = false
  /// Blocks of one WRITE SAME; 0 for no limit.
  public var maximumFillBlockCount: UInt64 = 0

  public init() {}

  /// Whether `discard` does anything.
  public var canDiscard: Bool { canUnmap || canFillByUnmap }

  package mutating func take(_ page: BlockLimits) {
    // Without a number of descriptors there is no UNMAP, whatever page B2 says.
    if page.maximumUnmap == 0 || page.maximumUnmapDescriptors == 0 { canUnmap = false }
    maximumUnmapBlockCount = page.maximumUnmap == .max ? 0 : page.maximumUnmap
    unmapGranularity = max(page.unmapGranularity, 1)
    maximumFillBlockCount = page.maximumWriteSame
    if page.maximumWriteSame > 0 { canFill = true }
  }

  package mutating func take(_ page: DiskProvisioningPage) {
    isThin = page.isThin
    canUnmap = page.hasUnmap
    canFillByUnmap = page.hasWriteSameUnmap
    if page.hasWriteSameUnmap { canFill = true }
    readsZeros = readsZeros || page.readsZeros
  }
}
