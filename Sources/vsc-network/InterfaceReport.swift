// SPDX-License-Identifier: Apache-2.0

import DriverProgram
import NetworkProtocol
import NetworkVSC
import PacketIO
import VSC

/// What `info` prints: of a device that it opened, or of one that a running program drives.
struct InterfaceReport: Codable, Sendable {
  struct Offloads: Codable, Sendable {
    var checksum: Bool
    var largeSendIPv4: Int
    var largeSendIPv6: Int
    var coalescedReceive: Bool
    var vlan: Bool
  }

  struct VirtualFunction: Codable, Sendable {
    /// Nil when the host offers none.
    var serial: UInt32?
    /// synthetic or virtual function.
    var dataPath: String
  }

  struct Buffer: Codable, Sendable {
    var bytes: Int
    var sectionBytes: Int
    var sections: Int
  }

  struct Queue: Codable, Sendable {
    var number: Int
    var receivedPackets, receivedBytes, sentPackets, sentBytes: UInt64
    /// Frames that the host made of several, or was to cut into several.
    var coalescedPackets, largeSends: UInt64
    /// Frames that the host read from where they lay, and sections that carried the others.
    var directSends, sections: UInt64
    var refused, blocked, malformed, dropped: UInt64
    /// What is out just now; 0 on a device at rest.
    var receiveBuffersOut, completionsPending, sendsUnderWay: Int
    /// Of frames that the host reads from where they lie.
    var memory: DMAStatistics
    /// Nil without a TAP device.
    var tap: Tap?
  }

  struct Tap: Codable, Sendable {
    var framesRead, bytesRead, framesWritten, bytesWritten: UInt64
    var readErrors, writeErrors: UInt64
    /// Frames of more than 60000 bytes.
    var largeRead, largeWritten: UInt64
    /// Frames of the network stack that the device could not be given.
    var unsent: UInt64
  }

  /// The name of the TAP device, of a program that has one.
  var interface: String?
  var device: String
  var relid: UInt32
  var transport: String
  var address: String
  var mtu: Int
  var isLinkUp: Bool
  /// Bits per second.
  var linkSpeed: UInt64
  var networkProtocol: String
  var queueCount: Int
  var offloads: Offloads
  var virtualFunction: VirtualFunction
  var receiveBuffer: Buffer
  var sendBuffer: Buffer
  var packetsPerMessage: Int
  /// The queue for each value of a packet's hash modulo its count.
  var sendTable: [Int]
  var scalesReceive: Bool
  var ringMemory: String
  var dataMemory: String
  var queues: [Queue]

  init(_ information: NetworkInformation, _ statistics: [NetworkQueueStatistics]) {
    device = "\(information.identity.instance)"
    relid = information.identity.channel.rawValue
    transport = information.identity.transport
    address = "\(information.macAddress)"
    mtu = information.mtu
    isLinkUp = information.isLinkUp
    linkSpeed = information.linkSpeed
    networkProtocol = "\(information.version)"
    queueCount = information.queueCount
    let can = information.offloads
    offloads = Offloads(
      checksum: !can.ipv4Transmit.isEmpty, largeSendIPv4: can.ipv4LargeSend,
      largeSendIPv6: can.ipv6LargeSend, coalescedReceive: can.coalescesIPv4 || can.coalescesIPv6,
      vlan: can.vlan)
    virtualFunction = VirtualFunction(
      serial: information.virtualFunction,
      dataPath: information.dataPath == .synthetic ? "synthetic" : "virtual function")
    receiveBuffer = Buffer(information.receiveBuffer)
    sendBuffer = Buffer(information.sendBuffer)
    packetsPerMessage = information.packetsPerMessage
    sendTable = information.sendTable
    scalesReceive = information.scalesReceive
    ringMemory = "\(information.ringMemory)"
    dataMemory = "\(information.dataMemory)"
    queues = statistics.map(Queue.init)
  }

  var text: String {
    let function = virtualFunction.serial.map { "serial \($0), " } ?? "none, "
    var rows: [[String]] = [
      ["address", address],
      ["link", "\(isLinkUp ? "up" : "down"), \(linkSpeedText(linkSpeed))"],
      ["MTU", "\(mtu)"],
      ["protocol", networkProtocol],
      ["offloads", offloads.text],
      ["virtual function", function + "data path \(virtualFunction.dataPath)"],
      ["receive buffer", receiveBuffer.text],
      ["send buffer", "\(sendBuffer.text), \(packetsPerMessage) packets at most in each"],
      ["receive scaling", scalesReceive ? "yes" : "no"],
      ["device", "\(device), relid \(relid), \(transport)"],
      ["memory", "ring \(ringMemory), packets \(dataMemory)"],
    ]
    if let interface { rows.insert(["interface", interface], at: 0) }
    let header = [
      ["queue", "received", "bytes", "sent", "bytes", "large", "coalesced", "blocked", "dropped"]
    ]
    let lines = queues.map { queue in
      [
        "\(queue.number)", "\(queue.receivedPackets)", "\(queue.receivedBytes)",
        "\(queue.sentPackets)", "\(queue.sentBytes)", "\(queue.largeSends)",
        "\(queue.coalescedPackets)", "\(queue.blocked)", "\(queue.dropped + queue.refused)",
      ]
    }
    return table(rows) + "\n\n" + table(header + lines)
  }
}

extension InterfaceReport.Buffer {
  init(_ buffer: NetworkBufferInformation) {
    self.init(
      bytes: buffer.byteCount, sectionBytes: buffer.sectionByteCount, sections: buffer.sectionCount)
  }

  var text: String {
    bytes == 0
      ? "none" : "\(humanBytes(Double(bytes))), \(sections) sections of \(sectionBytes) bytes"
  }
}

extension InterfaceReport.Offloads {
  var text: String {
    var words: [String] = []
    if checksum { words.append("checksum") }
    if largeSendIPv4 > 0 { words.append("large send IPv4 (\(largeSendIPv4))") }
    if largeSendIPv6 > 0 { words.append("large send IPv6 (\(largeSendIPv6))") }
    if coalescedReceive { words.append("coalesced receive") }
    if vlan { words.append("VLAN") }
    return words.isEmpty ? "none" : words.joined(separator: ", ")
  }
}

extension InterfaceReport.Queue {
  init(_ statistics: NetworkQueueStatistics) {
    self.init(
      number: statistics.number, receivedPackets: statistics.receivedPackets,
      receivedBytes: statistics.receivedBytes, sentPackets: statistics.sentPackets,
      sentBytes: statistics.sentBytes, coalescedPackets: statistics.coalescedPackets,
      largeSends: statistics.largeSends, directSends: statistics.directSends,
      sections: statistics.sections, refused: statistics.refused, blocked: statistics.blocked,
      malformed: statistics.malformed, dropped: statistics.dropped,
      receiveBuffersOut: statistics.buffersOut,
      completionsPending: statistics.completionsPending,
      sendsUnderWay: statistics.sendsUnderWay, memory: statistics.memory)
  }
}
