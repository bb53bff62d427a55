// SPDX-License-Identifier: Apache-2.0

import CLinux
public import Platform
import SystemPackage
import VMBus

/// One queue of a TAP device. Neither reading nor writing blocks or allocates; each frame costs one
/// system call, since the device takes and gives them one by one.
public struct TapQueue: ~Copyable, Sendable {
  /// Room that any frame fits in: an IP packet of 64 KiB, an Ethernet header and a VLAN tag. A buffer
  /// for reading should be larger, so that a frame that is cut off is seen.
  public static let maximumFrameByteCount = 65535 + 14 + 4

  private let owned: OwnedDescriptor
  public private(set) var counters = Counters()

  public struct Counters: Equatable, Sendable {
    public var framesRead: UInt64 = 0
    public var bytesRead: UInt64 = 0
    public var framesWritten: UInt64 = 0
    public var bytesWritten: UInt64 = 0
    /// Frames that did not fit into the reader's memory, or had a header that says nothing sensible.
    public var readErrors: UInt64 = 0
    /// Frames that the system did not take: its interface is down, or it found them malformed.
    public var writeErrors: UInt64 = 0
  }

  /// What a read gave.
  public enum Reading: Equatable, Sendable {
    /// A frame: its count of bytes, and what is left to do to it.
    case frame(Int, FrameOffload)
    /// No frame waits.
    case none
    /// A frame was there and is lost; it is counted.
    case dropped
    /// The device is gone.
    case ended
  }

  init(owning owned: consuming OwnedDescriptor) { self.owned = owned }

  /// To be waited on; readable when frames wait.
  public var rawValue: Int32 { owned.rawValue }

  /// A descriptor of its own for one who waits for frames: it must be closed by him, after he has
  /// stopped to wait. The device stays open through other descriptors, so that closing this queue alone
  /// would end no wait.
  public func makeWaitDescriptor() throws(TapError) -> OwnedDescriptor {
    do throws(Errno) {
      return try owned.duplicate()
    } catch {
      throw .system("a queue of the TAP device", error)
    }
  }

  /// Reads the next frame into the start of `memory`, without its virtio-net header.
  @_lifetime(memory: copy memory)
  public mutating func read(into memory: inout MutableRawSpan) -> Reading {
    var header = InlineArray<10, UInt8>(repeating: 0)
    var headerSpan = header.mutableSpan
    let descriptor = owned.rawValue
    // Safe: the call writes within both buffers.
    let count = unsafe headerSpan.withUnsafeMutableBytes { header in
      unsafe memory.withUnsafeMutableBytes { frame in
        guard let start = frame.baseAddress else { return Int64(-EMSGSIZE) }
        return unsafe vmbus_tap_read(
          descriptor, header.baseAddress.unsafelyUnwrapped, start, frame.count)
      }
    }
    guard count >= 0 else {
      switch -count {
      case Int64(EAGAIN), Int64(EINTR): return .none
      case Int64(EBADFD), Int64(EBADF): return .ended
      default:
        counters.readErrors &+= 1
        return .dropped
      }
    }
    let parsed = unsafe try? FrameOffload(VirtioNetHeader(parsing: header.span.bytes))
    guard let parsed, count < memory.byteCount else {
      counters.readErrors &+= 1
      return .dropped
    }
    counters.framesRead &+= 1
    counters.bytesRead &+= UInt64(count)
    return .frame(Int(count), parsed)
  }

  /// Reads frames into places of equal size, one behind the other, until none waits or the memory is
  /// full.
  ///
  /// - Parameters:
  ///   - stride: bytes from one frame's place to the next one's.
  ///   - body: is given each frame's place and what it is.
  /// - Returns: how many frames there were; nil when the device is gone.
  @_lifetime(memory: copy memory)
  public mutating func readBurst(
    into memory: inout MutableRawSpan, stride: Int,
    _ body: (_ offset: Int, _ byteCount: Int, _ offload: FrameOffload) -> Void
  ) -> Int? {
    guard stride > 0 else { return 0 }
    var (place, frames, tries) = (0, 0, 0)
    // Frames that are dropped take no place: they are bounded too.
    while place &+ stride <= memory.byteCount, tries < 1024 {
      tries &+= 1
      var room = memory._mutatingExtracting(place..<place &+ stride)
      switch read(into: &room) {
      case .frame(let count, let offload):
        body(place, count, offload)
        place &+= stride
        frames &+= 1
      case .none: return frames
      case .dropped: continue
      case .ended: return nil
      }
    }
    return frames
  }

  /// What a write gave.
  public enum Writing: Equatable, Sendable {
    case written
    /// The system did not take it; it is counted.
    case dropped
    /// The device is gone.
    case ended
  }

  /// Gives a frame to the network stack.
  public mutating func write(_ frame: RawSpan, _ offload: FrameOffload = .init()) -> Writing {
    var header = InlineArray<10, UInt8>(repeating: 0)
    var headerSpan = header.mutableSpan
    var headerBytes = unsafe headerSpan.mutableBytes
    VirtioNetHeader(offload).write(into: &headerBytes)
    let descriptor = owned.rawValue
    // Safe: the call reads within both buffers.
    let result = unsafe headerBytes.withUnsafeMutableBytes { header in
      unsafe frame.withUnsafeBytes { frame in
        guard let start = frame.baseAddress else { return -EINVAL }
        return unsafe vmbus_tap_write(
          descriptor, header.baseAddress.unsafelyUnwrapped, start, frame.count)
      }
    }
    guard result >= 0 else {
      counters.writeErrors &+= 1
      return result == -EBADFD || result == -EBADF ? .ended : .dropped
    }
    counters.framesWritten &+= 1
    counters.bytesWritten &+= UInt64(frame.byteCount)
    return .written
  }
}
