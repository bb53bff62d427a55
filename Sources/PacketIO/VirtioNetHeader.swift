// SPDX-License-Identifier: Apache-2.0

public import VMBus

/// What stands before each frame of a TAP device with IFF_VNET_HDR: `struct virtio_net_hdr` of
/// Linux's `virtio_net.h`, little-endian, without the count of buffers.
public struct VirtioNetHeader: WireLayout, Equatable {
  public static let name: WireName = "virtio-net header"
  public static let byteCount = 10

  public var flags: UInt8 = 0
  public var segmentation: UInt8 = 0
  /// Bytes of all headers, Ethernet's too; a hint for segmentation.
  public var headerByteCount: UInt16 = 0
  /// Bytes of payload in each segment.
  public var segmentByteCount: UInt16 = 0
  /// Where the checksum begins to sum, from the frame's start.
  public var checksumStart: UInt16 = 0
  /// Where it is stored, from there.
  public var checksumOffset: UInt16 = 0

  public init() {}

  @inlinable
  public mutating func visitFields<Visitor: FieldVisitor & ~Copyable & ~Escapable>(
    _ visitor: inout Visitor
  ) {
    visitor.integer("flags", &flags)
    visitor.integer("gso_type", &segmentation)
    visitor.integer("hdr_len", &headerByteCount)
    visitor.integer("gso_size", &segmentByteCount)
    visitor.integer("csum_start", &checksumStart)
    visitor.integer("csum_offset", &checksumOffset)
  }

  @usableFromInline static let needsChecksum: UInt8 = 1
  @usableFromInline static let isValid: UInt8 = 2
  @usableFromInline static let congestionNotified: UInt8 = 0x80
}

/// What is still to be done to a frame, or need not be: the work that a network stack leaves to a
/// device, and a device spares a stack.
public struct FrameOffload: Equatable, Sendable {
  public enum Checksum: Equatable, Sendable {
    /// Whatever the frame says: right or not, it is complete.
    case complete
    /// The TCP or UDP checksum has been looked at, and is right or need not be looked at.
    case verified
    /// The checksum's place holds the sum of the pseudo-header. The rest is to be added: from `start`
    /// (bytes from the frame's start) to the end, stored `offset` bytes behind `start`.
    case partial(start: UInt16, offset: UInt16)
  }

  public enum SegmentationKind: UInt8, Equatable, Sendable {
    case tcpIPv4 = 1
    case tcpIPv6 = 4
    case udp = 5
  }

  /// A frame of several segments, which is to be cut, or was put together from them.
  public struct Segmentation: Equatable, Sendable {
    public var kind: SegmentationKind
    /// Bytes of payload in each segment but the last: at least 1.
    public var segmentByteCount: UInt16
    /// Bytes of all headers, from the frame's start; 0 when not told.
    public var headerByteCount: UInt16

    @inlinable
    public init(kind: SegmentationKind, segmentByteCount: UInt16, headerByteCount: UInt16 = 0) {
      self.kind = kind
      self.segmentByteCount = segmentByteCount
      self.headerByteCount = headerByteCount
    }
  }

  public var checksum: Checksum
  public var segmentation: Segmentation?

  /// A frame that is complete as it is.
  @inlinable
  public init(checksum: Checksum = .complete, segmentation: Segmentation? = nil) {
    self.checksum = checksum
    self.segmentation = segmentation
  }

  /// - Throws: a segmentation that is none of the three, without a size, or without a partial
  ///   checksum, which each segment needs.
  @inlinable
  public init(_ header: VirtioNetHeader) throws(WireError) {
    if header.flags & VirtioNetHeader.needsChecksum != 0 {
      checksum = .partial(start: header.checksumStart, offset: header.checksumOffset)
    } else if header.flags & VirtioNetHeader.isValid != 0 {
      checksum = .verified
    } else {
      checksum = .complete
    }
    let type = header.segmentation & ~VirtioNetHeader.congestionNotified
    guard type != 0 else {
      segmentation = nil
      return
    }
    guard let kind = SegmentationKind(rawValue: type) else {
      throw .invalid(VirtioNetHeader.name, field: "gso_type", value: UInt64(type))
    }
    guard header.segmentByteCount > 0 else {
      throw .invalid(VirtioNetHeader.name, field: "gso_size", value: 0)
    }
    guard header.flags & VirtioNetHeader.needsChecksum != 0 else {
      throw .invalid(VirtioNetHeader.name, field: "flags", value: UInt64(header.flags))
    }
    segmentation = Segmentation(
      kind: kind, segmentByteCount: header.segmentByteCount,
      headerByteCount: header.headerByteCount)
  }
}

extension VirtioNetHeader {
  @inlinable
  public init(_ offload: FrameOffload) {
    self.init()
    switch offload.checksum {
    case .complete: break
    case .verified: flags = Self.isValid
    case .partial(let start, let offset):
      flags = Self.needsChecksum
      checksumStart = start
      checksumOffset = offset
    }
    if let part = offload.segmentation {
      segmentation = part.kind.rawValue
      segmentByteCount = part.segmentByteCount
      headerByteCount = part.headerByteCount
    }
  }
}
