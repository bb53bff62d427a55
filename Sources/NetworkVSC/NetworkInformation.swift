// SPDX-License-Identifier: Apache-2.0

public import NetworkProtocol
public import VSC

/// What the host does for the driver, and the driver makes use of.
public struct NetworkOffloads: Sendable, Equatable {
  /// Checksums that the host computes in what is sent.
  public var ipv4Transmit: NDISChecksums = []
  public var ipv6Transmit: NDISChecksums = []
  /// Checksums that the host looks at in what is received.
  public var ipv4Receive: NDISChecksums = []
  public var ipv6Receive: NDISChecksums = []
  /// Bytes of the largest TCP packet that the host cuts into segments; 0 for none.
  public var ipv4LargeSend = 0
  public var ipv6LargeSend = 0
  public var minimumSegments = 2
  public var coalescesIPv4 = false
  public var coalescesIPv6 = false
  public var vlan = false

  public init() {}
}

/// A buffer that is shared with the host.
public struct NetworkBufferInformation: Sendable, Equatable {
  public var byteCount = 0
  public var sectionByteCount = 0
  public var sectionCount = 0
}

/// What is known of a network device, as it is now.
public struct NetworkInformation: Sendable {
  public var identity: DeviceIdentity
  public var version = NVSPVersion(rawValue: 0)
  public var macAddress = MACAddress()
  /// Bytes of the largest packet, Ethernet header excluded.
  public var mtu = 0
  /// Bits per second.
  public var linkSpeed: UInt64 = 0
  public var isLinkUp = false
  public var queueCount = 1
  public var offloads = NetworkOffloads()
  public var receiveBuffer = NetworkBufferInformation()
  public var sendBuffer = NetworkBufferInformation()
  public var filter: PacketFilter = []
  /// Messages that may follow each other in one section, and the multiple that they start at.
  public var packetsPerMessage = 1
  public var packetAlignment = 1
  /// Who reads what lies in the ring, and who reads packets.
  public var ringMemory: MemoryVisibility
  public var dataMemory: MemoryVisibility
  /// The serial number of the slot where the virtual function is that the host offers.
  public var virtualFunction: UInt32?
  public var dataPath = NVSPDataPath.synthetic
  /// The queue for each value of a packet's hash modulo 16.
  public var sendTable: [Int] = []
  /// Whether received packets are spread by their hash, over a table of that many entries.
  public var scalesReceive = false
  public var receiveTableCount = 0

  init(_ identity: DeviceIdentity, ring: MemoryVisibility, data: MemoryVisibility) {
    self.identity = identity
    ringMemory = ring
    dataMemory = data
  }
}

/// What one queue did so far.
public struct NetworkQueueStatistics: Sendable, Equatable {
  public var number = 0
  public var receivedPackets: UInt64 = 0
  public var receivedBytes: UInt64 = 0
  public var sentPackets: UInt64 = 0
  public var sentBytes: UInt64 = 0
  /// Received frames that the host made of several.
  public var coalescedPackets: UInt64 = 0
  /// Frames that the host was to cut into segments.
  public var largeSends: UInt64 = 0
  /// Frames that the host read from where they lay.
  public var directSends: UInt64 = 0
  /// Sections of the send buffer that were sent, with one packet or several.
  public var sections: UInt64 = 0
  /// Packets in messages that the host completed with an error.
  public var refused: UInt64 = 0
  /// How often there was no room for a frame.
  public var blocked: UInt64 = 0
  /// Messages of the host that broke the protocol: dropped.
  public var malformed: UInt64 = 0
  /// The last of them.
  public var lastFault: WireError?
  /// Frames that were dropped for want of memory.
  public var dropped: UInt64 = 0
  /// Packets of the host that were given back.
  public var completionsSent: UInt64 = 0
  /// Packets of the host that are to be given back, as soon as the ring has room.
  public var completionsPending = 0
  /// Packets of the host that hold frames which are in use here.
  public var buffersOut = 0
  /// Messages that the host has not completed.
  public var sendsUnderWay = 0
  public var channel = ChannelCounters()
  /// The memory of the frames that the host reads from where they lie; what was scrubbed is of the send
  /// and the receive buffer, too.
  public var memory = DMAStatistics()

  public init() {}
}

/// What happens to a network device.
public enum NetworkEvent: Sendable, Equatable {
  /// The host takes its time with the start-up.
  case starting(step: WireName, waitedSeconds: Int)
  case linkUp
  case linkDown
  /// Bits per second.
  case linkSpeed(UInt64)
  /// What was known of the network may hold no more: ask for addresses anew.
  case networkChanged
  /// The host changed what it does for the driver, of what was agreed on: see `information.offloads`. A large
  /// send that it takes no more throws `badFrameLength`.
  case offloadsChanged
  case virtualFunctionOffered(serial: UInt32)
  case virtualFunctionRevoked
  case dataPath(isVirtualFunction: Bool)
  /// The host wants packets sent on these queues, by their hash modulo 16.
  case sendTable([Int])
  case ended(NetworkError)
}
