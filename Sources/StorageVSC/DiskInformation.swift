// SPDX-License-Identifier: Apache-2.0

public import StorageProtocol

/// What a disk said of itself at its start-up.
public struct DiskInformation: Equatable, Sendable {
  public var vendor = ""
  public var product = ""
  public var revision = ""
  /// Empty when the disk has none.
  public var serial = ""
  public var geometry = DiskGeometry()
  public var isReadOnly = false
  /// Whether a write can ask to be on stable storage before it completes.
  public var supportsForcedWrites = false
  public var version = StorageVersion(rawValue: 0)

  public init() {}
}

/// The numbers that each request is checked against.
public struct DiskGeometry: Equatable, Sendable {
  /// Bytes: a power of two, 512 to 4096.
  public var blockByteCount = 512
  public var blockCount: UInt64 = 0
  /// Bytes that one request may move: what the host and a packet allow, whole blocks.
  public var maximumTransferByteCount = 0

  public init() {}

  /// Bytes of the disk; fits in an `Int64`.
  @inlinable public var byteCount: UInt64 { blockCount &* UInt64(blockByteCount) }

  /// Checks the answer of READ CAPACITY.
  init(lastBlock: UInt64, blockSize: UInt32, maximumTransfer: UInt32) throws(StorageError) {
    let (blocks, overflow) = lastBlock.addingReportingOverflow(1)
    let (bytes, tooMany) = blocks.multipliedReportingOverflow(by: UInt64(blockSize))
    guard !overflow, !tooMany, bytes <= UInt64(Int64.max), blockSize >= 512, blockSize <= 4096,
      blockSize & (blockSize &- 1) == 0
    else { throw .unusableGeometry(lastBlock: lastBlock, blockSize: blockSize) }
    blockByteCount = Int(blockSize)
    blockCount = blocks
    // The host's word; at least 4096, as the negotiation has checked.
    maximumTransferByteCount = Int(maximumTransfer) & ~4095
  }
}
