// SPDX-License-Identifier: Apache-2.0

/// Memory for DMA as a transport hands it out: mapped here, with the number of each of its pages.
///
/// The device owns it until all its channels are closed and known to be quiet (law 3).
@safe
public struct DMAPages: @unchecked Sendable {
  /// Page-aligned, all zero when it is handed out.
  public let start: UnsafeMutableRawPointer
  /// A multiple of 4096.
  public let byteCount: Int
  /// One guest page number for each 4096 bytes.
  public let pageNumbers: UnsafePointer<GPN>
  /// False where everything is visible to the host anyway, so that hiding what was there is in
  /// vain.
  public let isScrubbed: Bool
  /// Keeps the mapping.
  public let owner: any AnyObject & Sendable

  /// The transport promises that the mapping and the numbers stay as they are while `owner` lives.
  @unsafe
  public init(
    start: UnsafeMutableRawPointer, byteCount: Int, pageNumbers: UnsafePointer<GPN>,
    isScrubbed: Bool, owner: any AnyObject & Sendable
  ) {
    unsafe self.start = start
    self.byteCount = byteCount
    unsafe self.pageNumbers = pageNumbers
    self.isScrubbed = isScrubbed
    self.owner = owner
  }
}

/// What a pool of DMA memory is used for, in bytes where nothing else is said.
public struct DMAStatistics: Sendable, Equatable, Codable {
  /// Of the pool.
  public var byteCount = 0
  /// Of the buffers that are in use.
  public var inUse = 0
  /// The most that they took up at one time, blocks that were cut up for small ones as a whole.
  public var highWater = 0
  /// Of the buffers that were dropped while the device had them: they stay out of use until the
  /// device is closed.
  public var lost = 0
  /// How often the pool had no room, so that somebody had to wait for a completion.
  public var waits: UInt64 = 0
  /// Copied from private memory to buffers, and back.
  public var copiedIn: UInt64 = 0
  public var copiedOut: UInt64 = 0
  /// Zeroed after the host could see them.
  public var scrubbed: UInt64 = 0

  public init() {}

  /// Of several pools together; the most of all of them need not have been in use at one time.
  public mutating func add(_ other: DMAStatistics) {
    byteCount += other.byteCount
    inUse += other.inUse
    highWater += other.highWater
    lost += other.lost
    waits &+= other.waits
    copiedIn &+= other.copiedIn
    copiedOut &+= other.copiedOut
    scrubbed &+= other.scrubbed
  }
}
