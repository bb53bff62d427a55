// SPDX-License-Identifier: Apache-2.0

import NetworkProtocol
import VSC

/// What a primary channel and its host agreed on: what the queue of a subchannel begins with.
struct NetworkAgreement: Sendable {
  var version = NVSPVersion.v61
  var receive = ReceiveBufferSection()
  var receiveByteCount = 0
  /// 0 where the host takes no send buffer.
  var sectionByteCount = 0
  var sectionCount = 0
  var packetsPerMessage = 1
  var alignment = 1
  var maximumTransferByteCount = 0
  var mtu = 1500
  var macAddress = MACAddress()
  var linkSpeed: UInt64 = 0
  var isLinkUp = true
  var offloads = NetworkOffloads()
  /// 0 where packets can't be spread over queues.
  var rssTableCount = 0
  /// Queues beside the primary one, as the host granted them.
  var subchannelCount = 0
}

/// The start-up of a primary channel as a value without I/O: which message to send next.
struct NetworkNegotiation {
  enum Action {
    /// Send in-band. With `step`, the completion's payload goes to `completed`.
    case message(NVSPMessage, byteCount: Int, awaits: Bool)
    /// Send as a control message; the answer goes to `answered`.
    case control([UInt8])
    /// Open the subchannels, then call `opened`.
    case agreed(NetworkAgreement)
    case ready
  }

  enum Stage: Equatable {
    case idle, version, receiveBuffer, sendBuffer, initialize
    case frameSize, address, offloads, setOffloads, linkStatus, linkSpeed, rssCapabilities
    case subchannels, opening, rss, filter, ready
  }

  struct Buffers {
    var receiveGPADL: UInt32
    var receiveByteCount: Int
    var sendGPADL: UInt32
    var sendByteCount: Int
  }

  static let sendBufferID: UInt16 = 0

  var stage = Stage.idle
  let configuration: NetworkConfiguration
  private let buffers: Buffers
  /// Queues wanted, the primary one included.
  private let wantedQueues: Int
  private let isIsolated: Bool
  var agreement = NetworkAgreement()
  private var request: UInt32 = 0
  var queueCount = 1

  init(
    _ configuration: NetworkConfiguration, _ buffers: Buffers, wantedQueues: Int, isIsolated: Bool
  ) {
    self.configuration = configuration
    self.buffers = buffers
    self.wantedQueues = min(max(wantedQueues, 1), NetworkConfiguration.maximumQueues)
    self.isIsolated = isIsolated
  }

  /// What the host is asked for now, for people.
  var step: WireName {
    switch stage {
    case .idle: "open"
    case .version: "NVSP version"
    case .receiveBuffer: "receive buffer"
    case .sendBuffer: "send buffer"
    case .initialize: "RNDIS initialize"
    case .frameSize: "frame size"
    case .address: "MAC address"
    case .offloads: "offload capabilities"
    case .setOffloads: "offloads"
    case .linkStatus: "link status"
    case .linkSpeed: "link speed"
    case .rssCapabilities: "RSS capabilities"
    case .subchannels: "subchannels"
    case .opening: "subchannel offers"
    case .rss: "RSS parameters"
    case .filter: "packet filter"
    case .ready: "ready"
    }
  }

  var filter: PacketFilter { configuration.filter }

  /// Whether the host is to answer something.
  var isWaiting: Bool { stage != .idle && stage != .opening && stage != .ready }

  mutating func start() -> [Action] {
    agreement.version = configuration.newestVersion
    return askVersion()
  }

  private mutating func askVersion() -> [Action] {
    stage = .version
    let version = agreement.version
    return [send(NVSPInitialize(minimum: version, maximum: version))]
  }

  private func send<Body: NVSPBody>(_ body: Body, awaits: Bool = true) -> Action {
    // INIT is as long as any version's messages may be.
    let count = stage == .version ? 40 : agreement.version.messageByteCount
    return .message(body.message, byteCount: count, awaits: awaits)
  }

  // MARK: - NVSP

  /// The completion of the message that was sent last and awaits one.
  mutating func completed(_ payload: RawSpan) throws(NetworkError) -> [Action] {
    switch stage {
    case .version: return try versioned(parse(payload))
    case .receiveBuffer: return try received(parse(payload))
    case .sendBuffer: return try sent(parse(payload))
    case .subchannels: return try granted(parse(payload))
    default: throw .unexpected(NVSPMessageType(rawValue: 0))
    }
  }

  private func parse<Body: NVSPBody>(_ payload: RawSpan) throws(NetworkError) -> Body {
    do throws(WireError) { return try Body(message: payload) } catch { throw .malformed(error) }
  }

  private func check(
    _ condition: Bool, _ name: WireName, _ field: WireName, _ value: UInt32
  ) throws(NetworkError) {
    guard condition else {
      throw .malformed(.invalid(name, field: field, value: UInt64(value)))
    }
  }

  private mutating func versioned(
    _ answer: NVSPInitializeComplete
  ) throws(NetworkError) -> [Action] {
    let version = agreement.version
    guard answer.status == .success else {
      // Hosts name different reasons for a version that they do not know.
      guard let next = version.next, next >= configuration.oldestVersion else {
        throw .noCommonVersion(oldest: configuration.oldestVersion)
      }
      agreement.version = next
      return askVersion()
    }
    var actions: [Action] = []
    stage = .receiveBuffer
    if version.hasNDISConfiguration {
      actions.append(
        send(
          NVSPNDISConfiguration(
            frameByteCount: UInt32(configuration.frameByteCount), capabilities: capabilities),
          awaits: false))
    }
    actions.append(send(version.ndisVersion, awaits: false))
    actions.append(
      send(NVSPReceiveBuffer(gpadl: buffers.receiveGPADL, id: ReceiveCore.bufferID)))
    return actions
  }

  private var capabilities: NVSPCapabilities {
    var result: NVSPCapabilities = [.ieee8021q]
    if agreement.version >= .v5 {
      result.insert(.teaming)
      // The paravisor's devices are no business of an untrusted host.
      if !isIsolated { result.insert(.sriov) }
    }
    if agreement.version.hasReceiveCoalescing, configuration.offloads.contains(.coalescedReceive) {
      result.insert(.receiveCoalescing)
    }
    return result
  }

  /// The smallest sub-allocation that holds a message with a frame of the smallest size.
  private static let smallestSuballocation = 68

  private mutating func received(
    _ answer: NVSPReceiveBufferComplete
  ) throws(NetworkError) -> [Action] {
    let name: WireName = "SEND_RECEIVE_BUFFER_COMPLETE"
    guard answer.status == .success else { throw .refused("the receive buffer", answer.status) }
    let section = answer.section
    try check(answer.sectionCount == 1, name, "num_sections", answer.sectionCount)
    try check(section.offset == 0, name, "offset", section.offset)
    try check(
      section.suballocationByteCount >= Self.smallestSuballocation, name, "sub_allocation_size",
      section.suballocationByteCount)
    let (total, overflow) = UInt64(section.suballocationByteCount).multipliedReportingOverflow(
      by: UInt64(section.suballocationCount))
    try check(
      section.suballocationCount > 0 && !overflow && total <= buffers.receiveByteCount, name,
      "num_sub_allocations", section.suballocationCount)
    try check(
      section.endOffset <= buffers.receiveByteCount, name, "end_offset", section.endOffset)
    agreement.receive = section
    agreement.receiveByteCount = buffers.receiveByteCount
    stage = .sendBuffer
    return [send(NVSPSendBuffer(gpadl: buffers.sendGPADL, id: Self.sendBufferID))]
  }

  private mutating func sent(_ answer: NVSPSendBufferComplete) throws(NetworkError) -> [Action] {
    // Without a send buffer all frames are read from where they lie.
    if answer.status == .success {
      let size = answer.sectionByteCount
      try check(
        size >= 128 && UInt64(size) <= buffers.sendByteCount, "SEND_SEND_BUFFER_COMPLETE",
        "section_size", size)
      agreement.sectionByteCount = Int(size)
      agreement.sectionCount = min(buffers.sendByteCount / Int(size), 1 << 20)
    }
    stage = .initialize
    request += 1
    return [.control(RNDISInitialize(requestID: request).messageBytes())]
  }

  private mutating func granted(_ answer: NVSPSubchannelComplete) throws(NetworkError) -> [Action] {
    // A host that grants none has a primary channel that does all the work.
    if answer.status == .success {
      try check(answer.count < wantedQueues, "SUBCHANNEL", "num_subchannels", answer.count)
      agreement.subchannelCount = Int(answer.count)
    }
    stage = .opening
    return [.agreed(agreement)]
  }

  // MARK: - RNDIS

  private mutating func query(_ oid: OID, _ next: Stage) -> [Action] {
    stage = next
    request += 1
    return [.control(RNDISQuery(requestID: request, oid: oid).messageBytes())]
  }

  mutating func set(_ oid: OID, _ bytes: [UInt8], _ next: Stage) -> [Action] {
    stage = next
    request += 1
    return [.control(RNDISSet.bytes(request, oid, bytes))]
  }

  /// A control message of the host that answers one; its request id is not checked yet.
  ///
  /// - Parameter message: a private copy, as long as its header says.
  /// - Returns: nil for one that is not the answer to what was asked last.
  mutating func answered(_ message: RawSpan) throws(NetworkError) -> [Action]? {
    let type: RNDISMessageType
    do throws(WireError) {
      type = try RNDISHeader(parsing: message).type
      let id = try RNDISSetComplete(parsing: message.extracting(droppingFirst: 8)).requestID
      guard id == request else { return nil }
    } catch {
      throw .malformed(error)
    }
    switch stage {
    case .initialize where type == .initializeComplete: return try initialized(message)
    case .setOffloads where type == .setComplete:
      // What the host would not do is not relied on.
      if try setStatus(message) != .success { agreement.offloads = NetworkOffloads() }
      return query(.mediaConnectStatus, .linkStatus)
    case .rss where type == .setComplete:
      if try setStatus(message) != .success { agreement.rssTableCount = 0 }
      return set(.currentPacketFilter, configuration.filter.rawValue.wireBytes, .filter)
    case .filter where type == .setComplete:
      let status = try setStatus(message)
      guard status == .success else { throw .objectRefused(.currentPacketFilter, status) }
      stage = .ready
      return [.ready]
    case .frameSize, .address, .offloads, .linkStatus, .linkSpeed, .rssCapabilities:
      guard type == .queryComplete else { return nil }
      return try queried(message)
    default: return nil
    }
  }

  private func setStatus(_ message: RawSpan) throws(NetworkError) -> RNDISStatus {
    do throws(WireError) {
      return try RNDISSetComplete(message: message).status
    } catch {
      throw .malformed(error)
    }
  }

  private mutating func initialized(_ message: RawSpan) throws(NetworkError) -> [Action] {
    let answer: RNDISInitializeComplete
    do throws(WireError) {
      answer = try RNDISInitializeComplete(message: message)
    } catch {
      throw .malformed(error)
    }
    guard answer.status == .success else {
      throw .objectRefused(OID(rawValue: 0), answer.status)
    }
    let name: WireName = "INITIALIZE_COMPLETE"
    try check(answer.medium == 0, name, "medium", answer.medium)
    try check(answer.packetAlignment <= 10, name, "packet_alignment_factor", answer.packetAlignment)
    try check(
      answer.maximumTransferByteCount >= UInt32(configuration.frameByteCount), name,
      "max_transfer_size", answer.maximumTransferByteCount)
    agreement.packetsPerMessage = min(max(Int(answer.maximumPacketsPerMessage), 1), 1024)
    agreement.alignment = 1 << Int(answer.packetAlignment)
    agreement.maximumTransferByteCount = Int(answer.maximumTransferByteCount)
    return query(.maximumFrameByteCount, .frameSize)
  }

  private mutating func queried(_ message: RawSpan) throws(NetworkError) -> [Action] {
    let status: RNDISStatus
    let buffer: RawSpan
    do throws(WireError) {
      let answer = try RNDISQueryComplete(message: message)
      status = answer.status
      buffer = try RNDISQueryComplete.informationBuffer(
        of: message, offset: answer.bufferOffset, count: answer.bufferByteCount)
    } catch {
      throw .malformed(error)
    }
    switch stage {
    case .frameSize:
      let limit = Int(try word(buffer, status, .maximumFrameByteCount))
      // A host that was told a larger frame answers with what it allows.
      guard limit >= NetworkConfiguration.mtuRange.lowerBound else {
        throw .badMTU(configuration.mtu, limit: limit)
      }
      agreement.mtu = min(limit, configuration.mtu)
      return query(.permanentAddress, .address)
    case .address:
      guard status == .success else { throw .objectRefused(.permanentAddress, status) }
      do throws(WireError) {
        agreement.macAddress = try MACAddress(parsing: buffer)
      } catch {
        throw .malformed(error)
      }
      return query(.offloadCapabilities, .offloads)
    case .offloads:
      if status == .success, let host = try? NetworkOffloads(buffer) { takeOffloads(host) }
      return set(.offloadParameters, offloadParameters, .setOffloads)
    case .linkStatus:
      agreement.isLinkUp = try word(buffer, status, .mediaConnectStatus) == 0
      return query(.linkSpeed, .linkSpeed)
    case .linkSpeed:
      agreement.linkSpeed = UInt64(try word(buffer, status, .linkSpeed)) * 100
      guard agreement.version.hasSubchannels else { return agreed() }
      return query(.receiveScaleCapabilities, .rssCapabilities)
    default:
      guard status == .success, let found = try? RSSCapabilities(parsing: buffer),
        found.indirectionTableEntries > 0
      else { return agreed() }
      agreement.rssTableCount = min(Int(found.indirectionTableEntries), 128)
      let wanted = min(wantedQueues, Int(min(found.receiveQueues, 64)))
      guard wanted > 1 else { return agreed() }
      stage = .subchannels
      return [send(NVSPSubchannelRequest(operation: .allocate, count: UInt32(wanted - 1)))]
    }
  }

  private mutating func agreed() -> [Action] {
    stage = .opening
    return [.agreed(agreement)]
  }

  private func word(
    _ buffer: RawSpan, _ status: RNDISStatus, _ oid: OID
  ) throws(NetworkError) -> UInt32 {
    guard status == .success else { throw .objectRefused(oid, status) }
    do throws(WireError) {
      var reader = WireReader(buffer, name: "QUERY_COMPLETE")
      return try reader.read()
    } catch {
      throw .malformed(error)
    }
  }
}

extension UInt32 {
  /// Little-endian.
  var wireBytes: [UInt8] { (0..<4).map { UInt8(truncatingIfNeeded: self >> (8 * $0)) } }
}

extension RNDISSet {
  /// A whole message.
  static func bytes(_ request: UInt32, _ oid: OID, _ buffer: [UInt8]) -> [UInt8] {
    RNDISSet(requestID: request, oid: oid, bufferByteCount: UInt32(clamping: buffer.count))
      .messageBytes(buffer: buffer)
  }
}
