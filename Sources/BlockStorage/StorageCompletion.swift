// SPDX-License-Identifier: Apache-2.0

public import VSC

/// The end of a request.
@frozen
public struct StorageCompletion<External: Visibility>: ~Copyable {
  /// As it was given to `submit`.
  public let tag: UInt64
  /// Bytes that were moved, or why not.
  public let result: Result<Int, StorageError>
  /// The request's buffer. Nil for a request that had none, and for one that timed out or was
  /// lost with the channel: then the device may still have it.
  public var buffer: DMABuffer<External>?

  @inlinable
  package init(
    tag: UInt64, result: Result<Int, StorageError>, buffer: consuming DMABuffer<External>?
  ) {
    self.tag = tag
    self.result = result
    self.buffer = buffer
  }
}
