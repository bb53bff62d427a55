// SPDX-License-Identifier: Apache-2.0

public import VSC

/// What a channel of a controller has done so far.
public struct StorageCounters: Equatable, Sendable {
  public var channel = ChannelCounters()
  /// Requests with the host now, and those of them that timed out.
  public var underWay = 0
  public var abandoned = 0
  /// Requests that timed out, and their completions that came after all.
  public var timeouts: UInt64 = 0
  public var late: UInt64 = 0
  /// Requests that were sent again.
  public var retries: UInt64 = 0
  /// Resets of a unit or the bus.
  public var resets: UInt64 = 0
  /// The channel's DMA memory.
  public var memory = DMAStatistics()

  public init() {}
}
