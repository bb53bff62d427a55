// SPDX-License-Identifier: Apache-2.0

/// A control message, parsed into private copies of its values.
///
/// The two GPADL messages carry the words after their structure; `openChannel`,
/// `initiateContact`, `versionResponse` and `tlConnectRequest` carry what only their longer
/// forms have.
public enum ControlMessage: Equatable, Sendable {
  case offerChannel(OfferChannel)
  case rescindChannelOffer(RescindChannelOffer)
  case requestOffers
  case allOffersDelivered
  case openChannel(OpenChannel, SignalParameters?)
  case openChannelResult(OpenChannelResult)
  case closeChannel(CloseChannel)
  case gpadlHeader(GPADLHeader, [UInt64])
  case gpadlBody(GPADLBody, [UInt64])
  case gpadlCreated(GPADLCreated)
  case gpadlTeardown(GPADLTeardown)
  case gpadlTorndown(GPADLTorndown)
  case relIDReleased(RelIDReleased)
  case initiateContact(InitiateContact, clientID: GUID?)
  case versionResponse(VersionResponse, FeatureFlags?, MonitorPages?)
  case unload
  case unloadComplete
  case openReservedChannel(OpenReservedChannel)
  case closeReservedChannel(CloseReservedChannel)
  case closeReservedChannelResponse(CloseReservedChannelResponse)
  case tlConnectRequest(TLConnectRequest, siloID: GUID?)
  case modifyChannel(ModifyChannel)
  case tlConnectResult(TLConnectResult)
  case modifyChannelResponse(ModifyChannelResponse)
  case modifyConnection(ModifyConnection)
  case modifyConnectionResponse(ModifyConnectionResponse)
  case pause
  case pauseResponse
  case resume

  /// Parses a message with its header. Bytes after the structure are ignored: some guests always
  /// post the maximum.
  ///
  /// - Parameters:
  ///   - version: the connection's, or the one being asked for; nil admits only the messages
  ///     that need no connection.
  ///   - features: those agreed on.
  public init(
    parsing bytes: RawSpan, version: ProtocolVersion?, features: FeatureFlags
  ) throws(WireError) {
    var reader = WireReader(bytes, name: MessageHeader.name)
    let type = try reader.read(MessageHeader.self).type
    guard let row = ControlMessageTable.row(type),
      row.isKnown(version: version, features: features)
    else { throw .unknownType("ControlMessage", value: UInt64(type.rawValue)) }
    self = try row.parse(reader.rest, MessageContext(version: version, features: features))
  }

  /// Parses an array; for captures and tests.
  public init(
    parsing bytes: [UInt8], version: ProtocolVersion?, features: FeatureFlags = []
  ) throws(WireError) {
    // Safe: the span holds bytes, which have no padding to be read.
    try self.init(parsing: unsafe bytes.span.bytes, version: version, features: features)
  }

  public var type: MessageType {
    switch self {
    case .offerChannel: .offerChannel
    case .rescindChannelOffer: .rescindChannelOffer
    case .requestOffers: .requestOffers
    case .allOffersDelivered: .allOffersDelivered
    case .openChannel: .openChannel
    case .openChannelResult: .openChannelResult
    case .closeChannel: .closeChannel
    case .gpadlHeader: .gpadlHeader
    case .gpadlBody: .gpadlBody
    case .gpadlCreated: .gpadlCreated
    case .gpadlTeardown: .gpadlTeardown
    case .gpadlTorndown: .gpadlTorndown
    case .relIDReleased: .relIDReleased
    case .initiateContact: .initiateContact
    case .versionResponse: .versionResponse
    case .unload: .unload
    case .unloadComplete: .unloadComplete
    case .openReservedChannel: .openReservedChannel
    case .closeReservedChannel: .closeReservedChannel
    case .closeReservedChannelResponse: .closeReservedChannelResponse
    case .tlConnectRequest: .tlConnectRequest
    case .modifyChannel: .modifyChannel
    case .tlConnectResult: .tlConnectResult
    case .modifyChannelResponse: .modifyChannelResponse
    case .modifyConnection: .modifyConnection
    case .modifyConnectionResponse: .modifyConnectionResponse
    case .pause: .pause
    case .pauseResponse: .pauseResponse
    case .resume: .resume
    }
  }
}
