// SPDX-License-Identifier: Apache-2.0

import CLinux
public import Platform
import Synchronization
public import SystemPackage

/// Writes frames to a file as Wireshark reads them (pcapng): one section, its interfaces, and a block
/// for each frame with the time in nanoseconds.
///
/// Blocks are collected and written together: call `flush` when it grows quiet.
@safe
public struct PcapngWriter: ~Copyable, @unchecked Sendable {
  /// Which way a frame went, seen from the interface.
  public enum Direction: UInt32, Sendable {
    case received = 1
    case sent = 2
  }

  /// More of a frame is not written.
  public static let snapLength = 262_144
  private static let capacity = 1 << 20
  /// Behind it a block of any frame still has room.
  private static let threshold = capacity - snapLength - 64

  private let file: OwnedDescriptor
  private let buffer: UnsafeMutableRawBufferPointer
  private var count = 0
  private var interfaceCount: UInt32 = 0
  /// What was written so far, and what is still collected.
  public private(set) var frames: UInt64 = 0

  /// - Parameter path: made anew; what was there is gone.
  public init(path: String) throws(Errno) {
    let descriptor: FileDescriptor
    do {
      descriptor = try FileDescriptor.open(
        FilePath(path), .writeOnly, options: [.create, .truncate, .closeOnExec],
        permissions: [.ownerReadWrite, .groupRead, .otherRead])
    } catch let error as Errno {
      throw error
    } catch {
      throw .ioError
    }
    self.init(owning: OwnedDescriptor(owning: descriptor.rawValue))
  }

  /// Writes to an open file or pipe.
  public init(owning file: consuming OwnedDescriptor) {
    self.file = file
    unsafe buffer = .allocate(byteCount: Self.capacity, alignment: 16)
    put(0x0A0D_0D0A as UInt32)
    put(28 as UInt32)
    put(0x1A2B_3C4D as UInt32)  // byte order
    put(1 as UInt16)  // version 1.0
    put(0 as UInt16)
    put(UInt64.max)  // the section's length is not known
    put(28 as UInt32)
  }

  deinit { unsafe buffer.deallocate() }

  /// Describes an Ethernet interface; to be called before its first frame.
  ///
  /// - Returns: its number for `write`.
  public mutating func addInterface(name: String) throws(Errno) -> UInt32 {
    let text = Array(name.utf8.prefix(255))
    let padded = (text.count + 3) & ~3
    let length = UInt32(36 + padded)
    if count > Self.threshold { try flush() }
    put(1 as UInt32)
    put(length)
    put(1 as UInt16)  // Ethernet
    put(0 as UInt16)
    put(UInt32(Self.snapLength))
    put(2 as UInt16)  // if_name
    put(UInt16(text.count))
    unsafe put(text.span.bytes)
    put(9 as UInt16)  // if_tsresol: 10^-9 seconds
    put(1 as UInt16)
    put(9 as UInt32)
    put(0 as UInt32)  // end of options
    put(length)
    interfaceCount += 1
    return interfaceCount - 1
  }

  /// Writes a frame, with its checksum completed if `offload` says that it is partial: tools would
  /// call it wrong otherwise.
  ///
  /// - Parameters:
  ///   - interface: as `addInterface` gave it.
  ///   - time: nanoseconds since 1970.
  public mutating func write(
    _ frame: RawSpan, _ offload: FrameOffload = .init(), interface: UInt32, direction: Direction,
    time: UInt64
  ) throws(Errno) {
    let kept = frame.extracting(first: min(frame.byteCount, Self.snapLength))
    let length = UInt32(44 + (kept.byteCount + 3) & ~3)
    if count > Self.threshold { try flush() }
    put(6 as UInt32)
    put(length)
    put(interface)
    put(UInt32(truncatingIfNeeded: time >> 32))
    put(UInt32(truncatingIfNeeded: time))
    put(UInt32(kept.byteCount))
    put(UInt32(truncatingIfNeeded: frame.byteCount))
    let place = count
    put(kept)
    if kept.byteCount == frame.byteCount, case .partial = offload.checksum {
      // Safe: just written there.
      var copy = unsafe MutableRawSpan(
        _unsafeBytes: UnsafeMutableRawBufferPointer(
          rebasing: buffer[place..<place + kept.byteCount]))
      offload.fillChecksum(of: &copy)
    }
    put(2 as UInt16)  // epb_flags: the direction
    put(4 as UInt16)
    put(direction.rawValue)
    put(0 as UInt32)
    put(length)
    frames += 1
  }

  /// Writes out what was collected.
  public mutating func flush() throws(Errno) {
    guard count > 0 else { return }
    let bytes = unsafe UnsafeRawBufferPointer(rebasing: buffer[0..<count])
    // Even what could not be written is gone: a full disk must not fill the memory.
    count = 0
    do {
      _ = try unsafe file.descriptor.writeAll(bytes)
    } catch let error as Errno {
      throw error
    } catch {
      throw .ioError
    }
  }

  private mutating func put<T: FixedWidthInteger & BitwiseCopyable>(_ value: T) {
    unsafe buffer.storeBytes(of: value.littleEndian, toByteOffset: count, as: T.self)
    count += MemoryLayout<T>.size
  }

  /// Bytes, filled up with zeros to a multiple of four.
  private mutating func put(_ bytes: RawSpan) {
    unsafe bytes.withUnsafeBytes { source in
      unsafe UnsafeMutableRawBufferPointer(rebasing: buffer[count...]).copyMemory(from: source)
    }
    count += bytes.byteCount
    while count & 3 != 0 { put(0 as UInt8) }
  }
}

/// A capture file that several queues write to.
public final class FrameCapture: Sendable {
  private let writer: Lock<PcapngWriter>
  private let interface: UInt32

  /// - Parameters:
  ///   - path: made anew; what was there is gone. `-` is standard output.
  ///   - interface: its name in the file.
  public init(path: String, interface: String) throws(Errno) {
    var writer: PcapngWriter
    if path == "-" {
      writer = PcapngWriter(
        owning: try OwnedDescriptor(owning: checked(vmbus_duplicate(1))))
    } else {
      writer = try PcapngWriter(path: path)
    }
    self.interface = try writer.addInterface(name: interface)
    try writer.flush()
    self.writer = Lock(writer)
  }

  /// Frames so far.
  public var frames: UInt64 { writer.withLock { $0.frames } }

  /// Takes a copy of a frame, with the time of the call.
  public func record(
    _ frame: RawSpan, _ offload: FrameOffload, direction: PcapngWriter.Direction
  ) throws(Errno) {
    let interface = interface
    try writer.withLock { writer throws(Errno) in
      try writer.write(
        frame, offload, interface: interface, direction: direction, time: vmbus_wall_clock())
    }
  }

  public func flush() throws(Errno) {
    try writer.withLock { writer throws(Errno) in try writer.flush() }
  }
}
