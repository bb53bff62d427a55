// SPDX-License-Identifier: Apache-2.0

/// What a client wants of its connection.
public struct ClientConfiguration: Sendable {
  /// Tried newest first; versions that this package does not speak are left out.
  public var versions: [ProtocolVersion] = ProtocolVersion.supported
  /// Asked for at 6.0. `clientID` goes by the property below, `confidentialChannels` by the policy.
  public var features: FeatureFlags = []
  /// Whether to ask for a confidential connection.
  public var confidential: ConfidentialPolicy = .off
  /// An isolated machine speaks no version below 5.2.
  public var isIsolated = false
  /// Pages for monitored channels; without them such channels are signalled like all others.
  public var monitorPages: MonitorPages?
  /// The processor that gets the server's messages.
  public var targetMessageVP: UInt32 = 0
  public var targetSINT: UInt8 = 2
  public var targetVTL: UInt8 = 0
  public var clientID: GUID?

  public init() {}
}

/// How much a client insists on a confidential connection.
///
/// From the moment it asks until it disconnects, only the trusted side may answer: the host could
/// otherwise talk the guest out of it. A client that gets no answer there, and that may fall back
/// to the host, connects anew with `.off`.
public enum ConfidentialPolicy: Hashable, Sendable {
  /// Not asked for; messages of either side count.
  case off
  /// Asked for; when the trusted side refuses it, the connection goes on without.
  case preferred
  /// Asked for; without it there is no connection.
  case required
}

public enum ClientState: Hashable, Sendable, CaseIterable {
  case disconnected
  /// InitiateContact is out.
  case connecting
  /// Connected; the first list of offers has not ended.
  case receivingOffers
  case connected
  /// Pause is out; messages still arrive.
  case pausing
  case paused
  /// Unload is out.
  case unloading
}

/// What was agreed on.
public struct ClientConnection: Equatable, Sendable {
  public let version: ProtocolVersion
  public let features: FeatureFlags
  /// Where messages are posted to.
  public let messageConnectionID: UInt32
  /// Those in use: the client's own or the server's.
  public let monitorPages: MonitorPages?
  /// Offers may have encrypted rings, and nothing untrusted is accepted.
  public var isConfidential: Bool { features.contains(.confidentialChannels) }
}

/// Why there is no connection.
public enum ConnectFailure: Equatable, Sendable {
  /// None of the versions in question is spoken by the other side.
  case noCommonVersion
  /// The version would do, but the server could not.
  case refused(ConnectionStatus)
  /// The policy requires a confidential connection and this is none.
  case notConfidential
}

/// What the owner of a `ControlClient` is to do, in order.
public enum ClientAction: Equatable, Sendable {
  case post(OutgoingMessage, connectionID: UInt32)

  case connected(ClientConnection)
  case connectFailed(ConnectFailure)
  case offered(OfferChannel)
  case allOffersDelivered
  /// The device is gone. Its driver drops it, then calls `release`.
  case rescinded(ChannelID)
  /// The server has been told that a rescinded channel is forgotten.
  case released(ChannelID)
  case opened(ChannelID, ControlStatus)
  case gpadlCreated(GPADLID, ControlStatus)
  /// From now on, and not before, the memory is the guest's alone.
  case gpadlTornDown(GPADLID)
  case modified(ChannelID, ControlStatus)
  case connectionModified(ConnectionStatus)
  /// An hvsock connection was refused. A granted one is an offer.
  case socketRefused(endpointID: GUID, serviceID: GUID, ControlStatus)
  case paused
  case resumed
  /// Everything is closed and torn down.
  case unloaded

  /// A message from the peer was not accepted.
  case refused(ControlError)
}

/// A channel as the client sees it.
public struct ClientChannel: Equatable, Sendable {
  public enum Phase: Equatable, Sendable {
    case closed
    case opening
    case open
  }

  public let offer: OfferChannel
  public internal(set) var phase = Phase.closed
  public internal(set) var isRescinded = false
  /// The driver has dropped the channel; what it left is being cleared away.
  public internal(set) var isReleased = false
  public internal(set) var isModifying = false
  /// The GPADL of the ring while opening or open.
  public internal(set) var ring: GPADLID?
  /// Opened with a VP to interrupt.
  public internal(set) var hasInterrupt = false
}

/// A GPADL as the client sees it.
public struct ClientGPADL: Equatable, Sendable {
  public enum Phase: Equatable, Sendable {
    case creating
    case created
    case tearingDown
  }

  public let channel: ChannelID
  public internal(set) var phase = Phase.creating
  /// Its pages if a ring can lie in it.
  public let ringPages: Int?
}

/// The guest's end of the control plane.
///
/// Events go in by its methods, and what is to be done comes out as actions. Requests of the
/// driver that cannot be throw; messages of the peer that cannot be are `.refused` actions.
public struct ControlClient: Sendable {
  public let configuration: ClientConfiguration
  public internal(set) var state = ClientState.disconnected
  /// Nil unless connected.
  public internal(set) var connection: ClientConnection?
  public internal(set) var channels: [ChannelID: ClientChannel] = [:]
  public internal(set) var gpadls: [GPADLID: ClientGPADL] = [:]

  /// The versions still to be tried; the first one has been asked for.
  var candidates: [ProtocolVersion] = []
  var policy = ConfidentialPolicy.off
  var nextGPADL: UInt32 = 1
  var isModifyingConnection = false
  var socketRequests: [SocketRequest] = []

  /// The server takes that many at once.
  static let maximumSocketRequests = 16

  struct SocketRequest: Equatable, Sendable {
    let endpointID: GUID
    let serviceID: GUID
  }

  public init(_ configuration: ClientConfiguration = ClientConfiguration()) {
    self.configuration = configuration
  }

  /// Takes in one message.
  ///
  /// - Parameters:
  ///   - bytes: a private copy of the message, header included.
  ///   - origin: which side's message page it was in.
  public mutating func receive(_ bytes: RawSpan, origin: MessageOrigin) -> [ClientAction] {
    do throws(ControlError) {
      return try accept(bytes, origin: origin)
    } catch {
      return [.refused(error)]
    }
  }

  private mutating func accept(
    _ bytes: RawSpan, origin: MessageOrigin
  ) throws(ControlError) -> [ClientAction] {
    guard origin == .trusted || !isTrustRequired else { throw .untrusted }
    let type = try MessageType(of: bytes, from: .hostToGuest)
    switch fate(of: type) {
    case .refused: throw .unexpected(type)
    case .ignored: return []
    case .accepted: break
    }
    let message: ControlMessage
    do throws(WireError) {
      message = try ControlMessage(
        parsing: bytes, version: connection?.version ?? candidates.first,
        features: connection?.features ?? [])
    } catch {
      throw .malformed(error)
    }
    switch message {
    case .versionResponse(let response, let features, let pages):
      return try handleVersionResponse(response, features, pages)
    case .offerChannel(let offer): return try handleOffer(offer)
    case .rescindChannelOffer(let body): return try handleRescind(body.channelID)
    case .allOffersDelivered: return handleAllOffersDelivered()
    case .openChannelResult(let body): return try handleOpenResult(body)
    case .modifyChannelResponse(let body): return try handleModifyResponse(body)
    case .gpadlCreated(let body): return try handleCreated(body)
    case .gpadlTorndown(let body): return try handleTorndown(body.gpadlID)
    case .tlConnectResult(let body): return try handleSocketResult(body)
    case .modifyConnectionResponse(let body): return try handleConnectionModified(body)
    case .pauseResponse: return handlePaused()
    case .unloadComplete: return handleUnloadComplete()
    default: throw .unexpected(type)
    }
  }

  /// Law 8: once a confidential connection is asked for or made, the untrusted side is not heard.
  var isTrustRequired: Bool {
    switch policy {
    case .off: false
    case .preferred: state == .connecting || connection?.isConfidential == true
    case .required: true
    }
  }

  private enum Fate {
    case accepted
    case ignored
    case refused
  }

  /// What the state of the connection says of a message of the server.
  private func fate(of type: MessageType) -> Fate {
    let isForConnection: Bool =
      switch type {
      case .offerChannel, .rescindChannelOffer, .openChannelResult, .gpadlCreated, .gpadlTorndown,
        .tlConnectResult, .modifyChannelResponse, .modifyConnectionResponse:
        true
      default: false
      }
    switch state {
    case .disconnected, .paused: return .refused
    case .connecting: return type == .versionResponse ? .accepted : .refused
    case .receivingOffers:
      return isForConnection || type == .allOffersDelivered ? .accepted : .refused
    case .connected: return isForConnection ? .accepted : .refused
    case .pausing: return isForConnection || type == .pauseResponse ? .accepted : .refused
    case .unloading:
      // What the server posted before it saw the Unload still arrives, and means nothing now.
      if type == .unloadComplete { return .accepted }
      let isLate = isForConnection || type == .allOffersDelivered || type == .pauseResponse
      return isLate ? .ignored : .refused
    }
  }

  func post(_ message: ControlMessage) -> ClientAction {
    .post(OutgoingMessage(message), connectionID: messageConnectionID)
  }

  /// Throws unless requests of the driver may be posted now.
  func requireActive() throws(ControlError) -> ClientConnection {
    guard let connection, state == .receivingOffers || state == .connected else {
      throw .invalidConnectionState
    }
    return connection
  }

  /// Throws unless the connection has the message.
  func require(_ type: MessageType) throws(ControlError) -> ClientConnection {
    let connection = try requireActive()
    guard let row = ControlMessageTable.row(type),
      row.isKnown(version: connection.version, features: connection.features)
    else { throw .unsupported(type) }
    return connection
  }
}

extension MessageType {
  /// The type of a message that the given side may send.
  init(of bytes: RawSpan, from direction: MessageDirection) throws(ControlError) {
    do throws(WireError) {
      self = try MessageHeader(parsing: bytes).type
    } catch {
      throw .malformed(error)
    }
    guard let row = ControlMessageTable.row(self) else {
      throw .malformed(.unknownType("ControlMessage", value: UInt64(rawValue)))
    }
    guard row.direction == direction else { throw .wrongDirection(self) }
  }
}
