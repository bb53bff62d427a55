// SPDX-License-Identifier: Apache-2.0

import BlockStorage
import VSC

/// What a queue keeps of a request under way.
@usableFromInline
@frozen
struct StorageRequest<External: Visibility>: ~Copyable {
  @usableFromInline let tag: UInt64
  /// Bytes that the device may move.
  @usableFromInline let byteCount: Int
  @usableFromInline let kind: StorageRequestKind
  @usableFromInline var buffer: DMABuffer<External>?

  @inlinable
  init(
    tag: UInt64, byteCount: Int, kind: StorageRequestKind,
    buffer: consuming DMABuffer<External>?
  ) {
    self.tag = tag
    self.byteCount = byteCount
    self.kind = kind
    self.buffer = buffer
  }
}

@usableFromInline
@frozen
enum StorageRequestKind: Sendable {
  case command
  /// A packet that is no request, after the start-up.
  case control
  case negotiation
  /// A command of the start-up.
  case identification
}

/// What the host tells unasked.
public struct StorageEvents: OptionSet, Sendable {
  public let rawValue: UInt8
  public init(rawValue: UInt8) { self.rawValue = rawValue }

  /// Units came or went.
  public static let unitsChanged = StorageEvents(rawValue: 1)
  /// A unit was taken away.
  public static let removed = StorageEvents(rawValue: 2)
  /// The disk has another size now.
  public static let capacityChanged = StorageEvents(rawValue: 4)
}
