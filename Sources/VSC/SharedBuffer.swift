// SPDX-License-Identifier: Apache-2.0

import Synchronization

/// What a device uses memory for that it reaches by a GPADL. A transport whose system has made the
/// memory knows it by this.
public enum SharedMemoryUse: String, Sendable {
  /// The device writes what it received there.
  case receive
  /// The device reads what is sent from there.
  case send
}

/// Memory with a GPADL as a transport hands it out.
@safe
public struct SharedPages: @unchecked Sendable {
  /// Page-aligned, all zero when it is handed out.
  public let start: UnsafeMutableRawPointer
  /// A multiple of 4096.
  public let byteCount: Int
  /// The handle that the device is told.
  public let gpadl: GPADLID
  /// Keeps the mapping.
  public let owner: any AnyObject & Sendable

  /// The transport promises that the mapping stays while `owner` lives, and that the memory is used for
  /// nothing else until the GPADL is known to be torn down.
  @unsafe
  public init(
    start: UnsafeMutableRawPointer, byteCount: Int, gpadl: GPADLID, owner: any AnyObject & Sendable
  ) {
    unsafe self.start = start
    self.byteCount = byteCount
    self.gpadl = gpadl
    self.owner = owner
  }
}

/// Memory that a device reads and writes when it likes, by a GPADL, for as long as its primary channel is
/// open: a network device's receive and send buffers.
///
/// Several workers may use parts of it at the same time. There is no borrowing of what the peer may
/// change: bytes are copied in and out, or looked at in place by somebody who copies before he
/// validates.
@safe
public struct SharedBuffer<Memory: Visibility>: @unchecked Sendable {
  // Safe to share: nobody has exclusive access to this memory anyway, and its users divide it.
  @usableFromInline let start: UnsafeMutableRawPointer
  public let byteCount: Int
  public let gpadl: GPADLID
  /// Keeps the memory: whoever hands out addresses of it keeps this, too.
  public let owner: any AnyObject & Sendable

  init(_ pages: SharedPages) {
    unsafe start = pages.start
    byteCount = pages.byteCount
    gpadl = pages.gpadl
    owner = pages.owner
  }

  /// The address of the first byte. `owner` keeps it valid.
  @unsafe
  @inlinable
  public var baseAddress: UnsafeMutableRawPointer { unsafe start }

  /// The content as it is at this moment. The peer may change it at any time: copy, then validate.
  @inlinable
  public var bytes: RawSpan {
    @_lifetime(borrow self)
    get {
      unsafe _overrideLifetime(RawSpan(_unsafeStart: start, byteCount: byteCount), borrowing: self)
    }
  }
}

extension Device {
  /// Memory that the device can reach by a GPADL from now on. Its primary channel must be open; when that
  /// closes, the GPADL is torn down, and the memory is free when the host has said so (law 3).
  ///
  /// - Parameters:
  ///   - byteCount: rounded up to a multiple of 4096. A transport whose system has made the memory
  ///     gives what there is.
  public func share<Memory: Visibility>(
    _ use: SharedMemoryUse, of memory: Memory.Type = Memory.self, byteCount: Int
  ) async throws(TransportError) -> SharedBuffer<Memory> {
    let count = (min(max(byteCount, 1), 1 << 30) + 4095) & ~4095
    return SharedBuffer(try await transport.share(use, Memory.memory, byteCount: count))
  }
}
