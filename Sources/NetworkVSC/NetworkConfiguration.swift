// SPDX-License-Identifier: Apache-2.0

public import NetworkProtocol
import VSC

/// What is to be left to the host, where it can do it.
public struct NetworkOffloadChoice: OptionSet, Sendable {
  public var rawValue: UInt8
  public init(rawValue: UInt8) { self.rawValue = rawValue }

  public static let checksum = Self(rawValue: 1)
  public static let largeSend = Self(rawValue: 2)
  public static let coalescedReceive = Self(rawValue: 4)
  public static let vlan = Self(rawValue: 8)
  public static let all: Self = [.checksum, .largeSend, .coalescedReceive, .vlan]
}

/// How a network device is to be driven.
public struct NetworkConfiguration: Sendable {
  /// Bytes of the largest packet, Ethernet header excluded: 576 to 9000.
  public var mtu = 1500
  /// Queues at most; nil for one on each worker of the device.
  public var queueCount: Int?
  /// Bytes of each ring.
  public var ringByteCount = 512 * 1024
  /// Shared by all queues. A system that has made the buffers itself decides.
  public var receiveBufferByteCount = 16 << 20
  public var sendBufferByteCount = 4 << 20
  /// For frames that do not fit a section of the send buffer: of each queue.
  public var frameBuffers = 32
  public var frameBufferByteCount = 64 * 1024
  /// Which frames the host is to deliver.
  public var filter: PacketFilter = [.directed, .multicast, .broadcast]
  public var offloads = NetworkOffloadChoice.all
  public var rssKey = Toeplitz.defaultKey
  public var oldestVersion = NVSPVersion.v4
  public var newestVersion = NVSPVersion.v61
  /// Nanoseconds that the host may take for each step of the start-up, and for a frame.
  public var timeout: UInt64 = 60_000_000_000

  public init() {}

  public static let mtuRange = 576...9000
  /// The most queues of a network device.
  public static let maximumQueues = 64

  /// Bytes of the largest frame, Ethernet header included.
  var frameByteCount: Int { mtu + 14 }

  var usableFrameBufferByteCount: Int { min(max(frameBufferByteCount, 16384), 1 << 20) }

  func check() throws(NetworkError) {
    guard Self.mtuRange.contains(mtu) else {
      throw .badMTU(mtu, limit: Self.mtuRange.upperBound)
    }
  }
}
