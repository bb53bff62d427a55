// SPDX-License-Identifier: Apache-2.0

/// What a server offers to any guest.
public struct ServerConfiguration: Sendable {
  /// The versions that are spoken; those that this package does not speak are left out.
  public var versions: [ProtocolVersion] = ProtocolVersion.supported
  /// Granted at 6.0 where asked for. `confidentialChannels` is granted only to a contact of
  /// trusted origin, `serverSpecifiedMonitorPages` only with the pages below.
  public var features: FeatureFlags = [
    .guestSpecifiedSignalParameters, .modifyConnection, .clientID, .pauseResume,
  ]
  public var monitorPages: MonitorPages?
  /// Where guests of 5.0 and later post their messages after first contact.
  public var messageConnectionID: UInt32 = 4
  /// The relids to give out; servers that share a guest must not overlap.
  public var channelIDs: ClosedRange<ChannelID> = ChannelID.valid
  /// How many GPADLs a guest may have at once.
  public var maximumGPADLs = 8192
  /// How many words all its GPADLs may have together: about a GiB of memory in pages.
  public var maximumGPADLWords = 327_680

  /// A fault for tests: offers whose flags no guest may accept are made all the same.
  public var offersUnlawfulFlags = false

  public init() {}
}

public enum ServerState: Hashable, Sendable, CaseIterable {
  case disconnected
  /// There is a version; offers have not been asked for.
  case contacted
  case connected
  /// The guest has paused the server; messages to it are held back.
  case paused
  /// The guest has gone or begins anew; devices are still letting go of its memory.
  case resetting
}

/// What was agreed on with the guest.
public struct ServerConnection: Equatable, Sendable {
  public let version: ProtocolVersion
  public let features: FeatureFlags
  /// Where the guest wants its messages.
  public let targetVP: UInt32
  public let targetSINT: UInt8
  public let targetVTL: UInt8
  /// First contact came by a way that the host cannot touch.
  public let isTrusted: Bool
  public let clientID: GUID?
  public internal(set) var monitorPages: MonitorPages?
  public var isConfidential: Bool { features.contains(.confidentialChannels) }
}

/// What a device needs to know to open its channel.
public struct OpenRequest: Equatable, Sendable {
  public let channel: ChannelID
  public let openID: UInt32
  public let ring: GPADLID
  /// The pages of the ring: those before the offset are the ring to the host.
  public let ringPages: [UInt64]
  public let downstreamPageOffset: UInt32
  public let targetVP: UInt32
  public let userData: UserData
  /// The bit of the guest's event flags page.
  public let eventFlag: UInt16
  public let connectionID: UInt32
  public let redirectsInterrupt: Bool
  /// Which of the channel's memory is encrypted, on this connection.
  public let confidentiality: Confidentiality
}

/// What the owner of a `ControlServer` is to do, in order.
///
/// Each of the requests to a device is answered once by the method that its comment names.
public enum ServerAction: Equatable, Sendable {
  case post(OutgoingMessage, targetVP: UInt32)

  case connected(ServerConnection)
  case disconnected
  /// The guest's monitor pages are others now, or none.
  case monitorPagesChanged(MonitorPages?)

  /// `openCompleted`
  case open(OpenRequest)
  /// `closeCompleted`, when the device no longer touches the ring.
  case close(ChannelID)
  /// `gpadlCompleted`; the ranges are told by `gpadl(_:of:)`.
  case createGPADL(ChannelID, GPADLID)
  /// `gpadlTornDown`, when the device no longer touches the memory.
  case tearDownGPADL(ChannelID, GPADLID)
  /// `modifyCompleted`
  case modify(ChannelID, targetVP: UInt32)
  /// The guest has forgotten a revoked channel; its relid is free.
  case released(ChannelID)

  /// A message of the guest, or an answer of a device, was not accepted.
  case refused(ControlError)
}

/// A channel as the server sees it.
struct ServerChannel: Sendable {
  enum Phase: Equatable, Sendable {
    case closed
    /// The device has been asked. Abandoned: the guest has gone, so it is closed right after.
    case opening(OpenRequest, isAbandoned: Bool)
    case open(OpenRequest)
    /// The device has been asked. The guest may already have opened it again.
    case closing(OpenRequest, reopen: OpenRequest?)
  }

  enum Modification: Equatable, Sendable {
    case idle
    /// The device has been asked; guests before 5.3 get no answer and may ask again meanwhile.
    case pending(isAnswered: Bool, next: UInt32?)
  }

  var offer: OfferChannel
  var phase = Phase.closed
  var modification = Modification.idle
  /// The guest has been told of it, on this connection.
  var isAnnounced = false
  /// The device is gone; the guest has not released the relid.
  var isRevoked = false
  /// The guest does not want it on this connection.
  var isReleasedByGuest = false

  /// The GPADLs that a ring lies in or is about to.
  func uses(_ gpadl: GPADLID) -> Bool {
    switch phase {
    case .closed: false
    case .opening(let request, _), .open(let request): request.ring == gpadl
    case .closing(let request, let reopen): request.ring == gpadl || reopen?.ring == gpadl
    }
  }
}

/// A GPADL as the server sees it.
struct ServerGPADL: Sendable {
  enum Phase: Sendable {
    case assembling(GPADLAssembly)
    /// The device has been asked.
    case creating
    case accepted
    /// Torn down by the guest, while a ring lies in it.
    case held
    /// The device has been asked.
    case tearingDown
  }

  let channel: ChannelID
  /// What it counts towards the limit.
  let words: Int
  var phase: Phase
  var ranges: [GPADLRange] = []
  /// Whether the guest waits for an answer; not after it has gone.
  var isAnswered = true
}

/// The host's end of the control plane.
///
/// Messages of the guest go in by `receive`, devices speak by the other methods, and what is to
/// be done comes out as actions. Nothing that the guest sends can make it hold more than the
/// configuration allows.
public struct ControlServer: Sendable {
  enum ResetGoal: Sendable {
    case nothing
    case unload
    case contact(InitiateContact, clientID: GUID?, MessageOrigin)
  }

  public let configuration: ServerConfiguration
  public internal(set) var connection: ServerConnection?
  var areOffersRequested = false
  var isPaused = false
  var goal: ResetGoal?
  var channels: [ChannelID: ServerChannel] = [:]
  var gpadls: [GPADLID: ServerGPADL] = [:]
  /// The words of all GPADLs.
  var gpadlWords = 0
  /// Messages held back while paused.
  var heldMessages: [OutgoingMessage] = []

  public init(_ configuration: ServerConfiguration = ServerConfiguration()) {
    self.configuration = configuration
  }

  public var state: ServerState {
    if goal != nil { return .resetting }
    if connection == nil { return .disconnected }
    if isPaused { return .paused }
    return areOffersRequested ? .connected : .contacted
  }

  /// Takes in one message.
  ///
  /// - Parameters:
  ///   - bytes: a private copy of the message, header included.
  ///   - origin: whether the host could have forged it.
  public mutating func receive(_ bytes: RawSpan, origin: MessageOrigin) -> [ServerAction] {
    do throws(ControlError) {
      return try accept(bytes, origin: origin)
    } catch {
      return [.refused(error)]
    }
  }

  private mutating func accept(
    _ bytes: RawSpan, origin: MessageOrigin
  ) throws(ControlError) -> [ServerAction] {
    guard origin == .trusted || !isTrustRequired else { throw .untrusted }
    let type = try MessageType(of: bytes, from: .guestToHost)
    guard isExpected(type) else { throw .unexpected(type) }
    let message: ControlMessage
    do throws(WireError) {
      message = try ControlMessage(
        parsing: bytes, version: connection?.version, features: connection?.features ?? [])
    } catch {
      throw .malformed(error)
    }
    switch message {
    case .initiateContact(let contact, let clientID):
      return handleContact(contact, clientID: clientID, origin: origin)
    case .requestOffers: return handleRequestOffers()
    case .unload: return handleUnload()
    case .pause: return handlePause()
    case .resume: return handleResume()
    case .modifyConnection(let body): return handleModifyConnection(body.monitorPages)
    case .tlConnectRequest(let request, _): return handleSocketRequest(request)
    case .openChannel(let open, let signal): return try handleOpen(open, signal)
    case .closeChannel(let body): return try handleClose(body.channelID)
    case .modifyChannel(let body): return try handleModify(body)
    case .relIDReleased(let body): return try handleReleased(body.channelID)
    case .openReservedChannel(let body): return handleOpenReserved(body)
    case .closeReservedChannel(let body): return handleCloseReserved(body)
    case .gpadlHeader(let header, let words): return handleGPADLHeader(header, words)
    case .gpadlBody(let body, let words): return try handleGPADLBody(body.gpadlID, words)
    case .gpadlTeardown(let body): return try handleTeardown(body)
    default: throw .unexpected(type)
    }
  }

  /// Law 8: a trusted guest is not replaced, ended or spoken for by the untrusted side.
  private var isTrustRequired: Bool {
    if case .contact(_, _, .trusted) = goal { return true }
    return connection?.isTrusted == true
  }

  /// Whether the state of the connection has a place for a message.
  private func isExpected(_ type: MessageType) -> Bool {
    switch state {
    case .disconnected: [.initiateContact, .closeReservedChannel].contains(type)
    case .contacted: type != .resume
    case .connected: type != .resume && type != .requestOffers
    case .paused: [.initiateContact, .unload, .resume].contains(type)
    case .resetting: [.initiateContact, .unload, .closeReservedChannel].contains(type)
    }
  }

  /// Sends to the guest, or holds back while it has paused the server.
  mutating func post(_ message: ControlMessage) -> [ServerAction] {
    guard let connection else { return [] }
    let message = OutgoingMessage(message)
    guard !isPaused else {
      heldMessages.append(message)
      return []
    }
    return [.post(message, targetVP: connection.targetVP)]
  }
}
