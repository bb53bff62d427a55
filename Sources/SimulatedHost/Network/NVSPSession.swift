// SPDX-License-Identifier: Apache-2.0

public import NetworkProtocol
public import VMBus

/// What a network device is to its guests; the same for all of them.
public struct AdapterConfiguration: Sendable {
  /// Bytes of the largest frame without its Ethernet header.
  public var mtu = 1500
  /// Channels that each guest may have, the primary one included.
  public var maximumQueues = 1
  public var newestVersion = NVSPVersion.v61
  /// In units of 100 bits per second.
  public var linkSpeed: UInt64 = 100_000_000

  public static let mtuRange = 68...9000
  public static let maximumQueueCount = 64

  public init() {}

  /// Bytes of the largest frame, Ethernet header included, 802.1Q tag not.
  var frameByteCount: Int { mtu + 14 }
}

/// The provider's end of NVSP on one opened channel: the start-up, and what messages mean after it.
///
/// A value without I/O. Messages of the guest go in, and what is to be done comes out.
public struct NVSPSession: Sendable {
  /// What the guest has to send next.
  public enum Stage: Equatable, Sendable {
    /// INIT, until it names a version that is spoken here.
    case version
    /// Configuration and buffers, until the first RNDIS message.
    case buffers
    case ready
  }

  /// What is to be done for a message.
  public enum Action: Sendable {
    /// To complete it with these bytes.
    case complete(NVSPMessage)
    /// To complete it without a payload if the guest has asked for a completion: it tells nothing.
    /// UEFI waits for those; Linux does not ask.
    case acknowledge
    /// To map the GPADL, and complete with what `receiveBuffer(byteCount:)` says.
    case mapReceiveBuffer(gpadl: GPADLID, id: UInt16)
    /// To map the GPADL, and complete with what `sendBuffer(byteCount:)` says.
    case mapSendBuffer(gpadl: GPADLID)
    /// To stop using the buffer, and acknowledge.
    case dropReceiveBuffer
    case dropSendBuffer
    /// RNDIS messages lie there.
    case rndis(NVSPRNDISPacket)
    /// To complete, then to offer so many subchannels.
    case offerSubchannels(NVSPMessage, count: Int)
    /// To acknowledge.
    case switchDataPath(NVSPDataPath)
  }

  public private(set) var stage = Stage.version
  public private(set) var version: NVSPVersion?
  public private(set) var ndisVersion: NVSPNDISVersion?
  public private(set) var capabilities: NVSPCapabilities = []
  /// Bytes of the largest frame, Ethernet header included.
  public private(set) var frameByteCount: Int
  public private(set) var dataPath = NVSPDataPath.synthetic
  private var hasConfiguration = false
  private var hasReceiveBuffer = false
  private var hasSendBuffer = false
  private var receiveBufferID: UInt16 = 0
  private var hasSubchannels = false
  let configuration: AdapterConfiguration
  /// A subchannel carries data of a primary channel that is ready, and nothing else.
  public let isSubchannel: Bool

  /// - Parameter frameByteCount: what the guest has configured, for a subchannel: only the primary
  ///   channel is told.
  public init(
    _ configuration: AdapterConfiguration, isSubchannel: Bool = false, frameByteCount: Int = 1514
  ) {
    self.configuration = configuration
    self.isSubchannel = isSubchannel
    self.frameByteCount = frameByteCount
  }

  /// Pieces of memory that one packet may consist of, as guests are told.
  public static let maximumMDLChainLength: UInt32 = 34
  public static let sectionByteCount = 6144
  /// Frames that a guest may configure; for any other number the smallest is taken.
  static let frameRange: ClosedRange<UInt32> = 1514...9216

  /// Looks at one message of the guest.
  ///
  /// - Parameters:
  ///   - message: a private copy of the packet's payload.
  ///   - isTransactional: whether the packet asks for a completion.
  public mutating func handle(
    _ message: RawSpan, isTransactional: Bool
  ) throws(NetVSPError) -> Action {
    let type = try NetVSPError.wrap { () throws(WireError) in
      try NVSPHeader(parsing: message).type
    }
    if type == .sendRNDISPacket { return try rndis(message, isTransactional) }
    if isSubchannel { throw .notOnSubchannel(type) }
    switch type {
    case .initialize: return try initialize(message, isTransactional)
    case .sendNDISConfiguration: return try configure(message)
    case .sendNDISVersion: return try takeNDISVersion(message)
    case .sendReceiveBuffer: return try takeReceiveBuffer(message, isTransactional)
    case .sendSendBuffer: return try takeSendBuffer(message, isTransactional)
    case .revokeReceiveBuffer: return try revokeReceiveBuffer(message)
    case .revokeSendBuffer: return try revokeSendBuffer(message)
    case .subchannel: return try allocateSubchannels(message, isTransactional)
    case .switchDataPath: return try switchDataPath(message)
    case .oidQueryEx:
      guard stage == .ready, version?.hasSubchannels == true else { throw .unexpected(type) }
      // Nobody is known to ask, so no object is known by this way.
      return .complete(
        NVSPOIDQueryComplete(status: RNDISStatus.notSupported.rawValue).message)
    case .initializeComplete, .sendReceiveBufferComplete, .sendSendBufferComplete,
      .sendVFAssociation, .sendIndirectionTable, .oidQueryExComplete, .sendRNDISPacketComplete:
      throw .wrongDirection(type)
    default:
      throw .unexpected(type)
    }
  }

  // MARK: - The start-up

  private mutating func initialize(
    _ message: RawSpan, _ isTransactional: Bool
  ) throws(NetVSPError) -> Action {
    guard stage == .version else { throw .repeated(.initialize) }
    guard isTransactional else { throw .notTransactional(.initialize) }
    let body = try NetVSPError.wrap { () throws(WireError) in
      try NVSPInitialize(message: message)
    }
    // Both fields hold the same version; hosts look at the first.
    let asked = body.minimum
    guard asked.isKnown, asked <= configuration.newestVersion else {
      return .complete(
        NVSPInitializeComplete(
          maximumMDLChainLength: Self.maximumMDLChainLength, status: .failure
        ).message)
    }
    version = asked
    stage = .buffers
    return .complete(
      NVSPInitializeComplete(
        version: asked == .v1 ? asked.rawValue : .max,
        maximumMDLChainLength: Self.maximumMDLChainLength, status: .success
      ).message)
  }

  private mutating func configure(_ message: RawSpan) throws(NetVSPError) -> Action {
    // The size of frames decides how the receive buffer is divided, so it comes first.
    guard stage == .buffers, version?.hasNDISConfiguration == true, !hasReceiveBuffer else {
      throw .unexpected(.sendNDISConfiguration)
    }
    guard !hasConfiguration else { throw .repeated(.sendNDISConfiguration) }
    let body = try NetVSPError.wrap { () throws(WireError) in
      try NVSPNDISConfiguration(message: message)
    }
    hasConfiguration = true
    frameByteCount =
      Self.frameRange ~= body.frameByteCount ? Int(body.frameByteCount) : 1514
    capabilities = body.capabilities
    return .acknowledge
  }

  private mutating func takeNDISVersion(_ message: RawSpan) throws(NetVSPError) -> Action {
    guard stage == .buffers else { throw .unexpected(.sendNDISVersion) }
    guard ndisVersion == nil else { throw .repeated(.sendNDISVersion) }
    ndisVersion = try NetVSPError.wrap { () throws(WireError) in
      try NVSPNDISVersion(message: message)
    }
    return .acknowledge
  }

  private mutating func takeReceiveBuffer(
    _ message: RawSpan, _ isTransactional: Bool
  ) throws(NetVSPError) -> Action {
    guard stage != .version else { throw .unexpected(.sendReceiveBuffer) }
    guard !hasReceiveBuffer else { throw .repeated(.sendReceiveBuffer) }
    guard isTransactional else { throw .notTransactional(.sendReceiveBuffer) }
    let body = try NetVSPError.wrap { () throws(WireError) in
      try NVSPReceiveBuffer(message: message)
    }
    receiveBufferID = body.id
    return .mapReceiveBuffer(gpadl: GPADLID(body.gpadl), id: body.id)
  }

  private mutating func takeSendBuffer(
    _ message: RawSpan, _ isTransactional: Bool
  ) throws(NetVSPError) -> Action {
    guard stage != .version else { throw .unexpected(.sendSendBuffer) }
    guard !hasSendBuffer else { throw .repeated(.sendSendBuffer) }
    guard isTransactional else { throw .notTransactional(.sendSendBuffer) }
    let body = try NetVSPError.wrap { () throws(WireError) in
      try NVSPSendBuffer(message: message)
    }
    return .mapSendBuffer(gpadl: GPADLID(body.gpadl))
  }

  /// How a receive buffer of so many bytes is divided, as its completion says; nil when it could not
  /// be mapped.
  public mutating func receiveBuffer(byteCount: Int?) -> NVSPReceiveBufferComplete {
    let division = ReceiveBufferDivision(
      byteCount: byteCount ?? 0, frameByteCount: frameByteCount)
    guard byteCount != nil, let division else {
      return NVSPReceiveBufferComplete(status: .failure)
    }
    hasReceiveBuffer = true
    return NVSPReceiveBufferComplete(
      status: .success, sectionCount: 1, section: division.section)
  }

  /// The same for a send buffer.
  public mutating func sendBuffer(byteCount: Int?) -> NVSPSendBufferComplete {
    guard let byteCount, byteCount >= Self.sectionByteCount else {
      return NVSPSendBufferComplete(status: .failure)
    }
    hasSendBuffer = true
    return NVSPSendBufferComplete(
      status: .success, sectionByteCount: UInt32(Self.sectionByteCount))
  }

  // MARK: - Afterwards

  private mutating func rndis(
    _ message: RawSpan, _ isTransactional: Bool
  ) throws(NetVSPError) -> Action {
    if stage != .ready {
      // A guest without a send buffer just goes on.
      guard isSubchannel || (stage == .buffers && hasReceiveBuffer) else {
        throw .unexpected(.sendRNDISPacket)
      }
      stage = .ready
    }
    return .rndis(
      try NetVSPError.wrap { () throws(WireError) in try NVSPRNDISPacket(message: message) })
  }

  private mutating func revokeReceiveBuffer(_ message: RawSpan) throws(NetVSPError) -> Action {
    let body = try NetVSPError.wrap { () throws(WireError) in
      try NVSPRevokeReceiveBuffer(message: message)
    }
    guard hasReceiveBuffer, body.id == receiveBufferID else {
      throw .unexpected(.revokeReceiveBuffer)
    }
    hasReceiveBuffer = false
    return .dropReceiveBuffer
  }

  private mutating func revokeSendBuffer(_ message: RawSpan) throws(NetVSPError) -> Action {
    guard hasSendBuffer else { throw .unexpected(.revokeSendBuffer) }
    hasSendBuffer = false
    return .dropSendBuffer
  }

  private mutating func allocateSubchannels(
    _ message: RawSpan, _ isTransactional: Bool
  ) throws(NetVSPError) -> Action {
    guard stage == .ready, version?.hasSubchannels == true else {
      throw .unexpected(.subchannel)
    }
    guard isTransactional else { throw .notTransactional(.subchannel) }
    let body = try NetVSPError.wrap { () throws(WireError) in
      try NVSPSubchannelRequest(message: message)
    }
    guard body.operation == .allocate, !hasSubchannels, body.count > 0,
      body.count < UInt32(configuration.maximumQueues)
    else {
      return .complete(NVSPSubchannelComplete(status: .failure).message)
    }
    hasSubchannels = true
    return .offerSubchannels(
      NVSPSubchannelComplete(status: .success, count: body.count).message,
      count: Int(body.count))
  }

  private mutating func switchDataPath(_ message: RawSpan) throws(NetVSPError) -> Action {
    guard stage == .ready, version?.hasVirtualFunctions == true else {
      throw .unexpected(.switchDataPath)
    }
    let body = try NetVSPError.wrap { () throws(WireError) in
      try NVSPSwitchDataPath(message: message)
    }
    guard body.path == .synthetic || body.path == .virtualFunction else {
      throw .malformed(
        .invalid(NVSPSwitchDataPath.name, field: "path", value: UInt64(body.path.rawValue)))
    }
    dataPath = body.path
    return .switchDataPath(body.path)
  }
}
