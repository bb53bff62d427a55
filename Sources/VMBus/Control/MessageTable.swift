// SPDX-License-Identifier: Apache-2.0

/// Who sends a message.
public enum MessageDirection: Hashable, Sendable {
  case hostToGuest
  case guestToHost
}

/// How the bytes after the header are read.
private struct MessageForm: Sendable {
  /// Those of the shortest form; a peer may send more, never fewer.
  let byteCount: Int
  let parse: @Sendable (RawSpan, MessageContext) throws(WireError) -> ControlMessage
}

/// What a message's meaning depends on beside its bytes.
struct MessageContext: Sendable {
  /// The connection's version, or the one being asked for; nil while there is neither.
  var version: ProtocolVersion?
  var features: FeatureFlags
}

/// Everything that is known of one message type.
public struct MessageRow: Sendable {
  public let type: MessageType
  public let name: WireName
  public let direction: MessageDirection
  /// The first version with this message; nil for one that needs no connection.
  public let since: ProtocolVersion?
  /// The connection must have one of these features; none are needed where it is empty.
  public let needs: FeatureFlags
  /// The bytes after the header in each form, shortest first.
  public let sizes: [Int]
  let parse: @Sendable (RawSpan, MessageContext) throws(WireError) -> ControlMessage

  /// Whether the message exists on such a connection.
  public func isKnown(version: ProtocolVersion?, features: FeatureFlags) -> Bool {
    guard let since else { return true }
    guard let version, version >= since else { return false }
    return needs.isEmpty || !needs.isDisjoint(with: features)
  }
}

/// All control messages, a row each: number, name, direction, first version, features, forms.
public enum ControlMessageTable {
  public static let rows: [MessageRow] = [
    row(1, "OfferChannel", .hostToGuest, oldest, form(ControlMessage.offerChannel)),
    row(2, "RescindChannelOffer", .hostToGuest, oldest, form(ControlMessage.rescindChannelOffer)),
    row(3, "RequestOffers", .guestToHost, oldest, empty(.requestOffers)),
    row(4, "AllOffersDelivered", .hostToGuest, oldest, empty(.allOffersDelivered)),
    row(5, "OpenChannel", .guestToHost, oldest, openChannel, alsoSizes: [148]),
    row(6, "OpenChannelResult", .hostToGuest, oldest, form(ControlMessage.openChannelResult)),
    row(7, "CloseChannel", .guestToHost, oldest, form(ControlMessage.closeChannel)),
    row(8, "GPADLHeader", .guestToHost, oldest, gpadlHeader),
    row(9, "GPADLBody", .guestToHost, oldest, gpadlBody),
    row(10, "GPADLCreated", .hostToGuest, oldest, form(ControlMessage.gpadlCreated)),
    row(11, "GPADLTeardown", .guestToHost, oldest, form(ControlMessage.gpadlTeardown)),
    row(12, "GPADLTorndown", .hostToGuest, oldest, form(ControlMessage.gpadlTorndown)),
    row(13, "RelIDReleased", .guestToHost, oldest, form(ControlMessage.relIDReleased)),
    row(14, "InitiateContact", .guestToHost, nil, initiateContact, alsoSizes: [48]),
    row(15, "VersionResponse", .hostToGuest, nil, versionResponse, alsoSizes: [12, 32]),
    row(16, "Unload", .guestToHost, oldest, empty(.unload)),
    row(17, "UnloadComplete", .hostToGuest, windows7, empty(.unloadComplete)),
    row(18, "OpenReservedChannel", .guestToHost, .v4_0, form(ControlMessage.openReservedChannel)),
    row(19, "CloseReservedChannel", .guestToHost, nil, form(ControlMessage.closeReservedChannel)),
    row(
      20, "CloseReservedChannelResponse", .hostToGuest, .v4_0,
      form(ControlMessage.closeReservedChannelResponse)),
    row(21, "TLConnectRequest", .guestToHost, .v4_0, tlConnectRequest, alsoSizes: [48]),
    row(22, "ModifyChannel", .guestToHost, .v4_1, form(ControlMessage.modifyChannel)),
    row(23, "TLConnectResult", .hostToGuest, .v4_1, form(ControlMessage.tlConnectResult)),
    row(
      24, "ModifyChannelResponse", .hostToGuest, .v5_3, form(ControlMessage.modifyChannelResponse)),
    row(
      25, "ModifyConnection", .guestToHost, .v6_0, needs: .modifyConnection,
      form(ControlMessage.modifyConnection)),
    row(
      26, "ModifyConnectionResponse", .hostToGuest, .v6_0, needs: .modifyConnection,
      form(ControlMessage.modifyConnectionResponse)),
    row(27, "Pause", .guestToHost, .v6_0, needs: .pauseResume, empty(.pause)),
    row(28, "PauseResponse", .hostToGuest, .v6_0, needs: .pauseResume, empty(.pauseResponse)),
    row(29, "Resume", .guestToHost, .v6_0, needs: .pauseResume, empty(.resume)),
  ]

  /// The row of a type; nil for a number that no message has.
  public static func row(_ type: MessageType) -> MessageRow? {
    guard type.rawValue >= 1, type.rawValue <= UInt32(rows.count) else { return nil }
    return rows[Int(type.rawValue) - 1]
  }

  // Versions before 4.0 stand in the table as the protocol has them, though nobody speaks them.
  private static let oldest = ProtocolVersion(major: 0, minor: 13)
  private static let windows7 = ProtocolVersion(major: 1, minor: 1)

  private static func row(
    _ number: UInt32, _ name: WireName, _ direction: MessageDirection, _ since: ProtocolVersion?,
    needs: FeatureFlags = [], _ form: MessageForm, alsoSizes: [Int] = []
  ) -> MessageRow {
    MessageRow(
      type: MessageType(rawValue: number), name: name, direction: direction, since: since,
      needs: needs, sizes: [form.byteCount] + alsoSizes, parse: form.parse)
  }

  private static func form<Body: WireLayout>(
    _ make: @escaping @Sendable (Body) -> ControlMessage
  ) -> MessageForm {
    MessageForm(byteCount: Body.byteCount) { body, _ throws(WireError) in
      make(try Body(parsing: body))
    }
  }

  private static func empty(_ message: ControlMessage) -> MessageForm {
    MessageForm(byteCount: 0) { _, _ throws(WireError) in message }
  }

  /// The long form goes with 6.0 and either feature by which the guest says how it is signalled.
  private static let openChannel = MessageForm(byteCount: OpenChannel.byteCount) {
    body, context throws(WireError) in
    var reader = WireReader(body, name: OpenChannel.name)
    let open = try reader.read(OpenChannel.self)
    guard SignalParameters.areSent(context) else { return .openChannel(open, nil) }
    return .openChannel(open, try reader.read(SignalParameters.self))
  }

  private static let gpadlHeader = MessageForm(byteCount: GPADLHeader.byteCount) {
    body, _ throws(WireError) in
    var reader = WireReader(body, name: GPADLHeader.name)
    return .gpadlHeader(try reader.read(GPADLHeader.self), try reader.readWords())
  }

  private static let gpadlBody = MessageForm(byteCount: GPADLBody.byteCount) {
    body, _ throws(WireError) in
    var reader = WireReader(body, name: GPADLBody.name)
    return .gpadlBody(try reader.read(GPADLBody.self), try reader.readWords())
  }

  /// The message itself says whether it is the long form, so a short one that claims a client id
  /// is too short.
  private static let initiateContact = MessageForm(byteCount: InitiateContact.byteCount) {
    body, _ throws(WireError) in
    let contact = try InitiateContact(parsing: body)
    guard contact.targetInfo.features.contains(.clientID) else {
      return .initiateContact(contact, clientID: nil)
    }
    return .initiateContact(contact, clientID: try InitiateContact2(parsing: body).clientID)
  }

  /// Refusals are always short. An answer of 6.0 without room for features grants none.
  private static let versionResponse = MessageForm(byteCount: VersionResponse.byteCount) {
    body, context throws(WireError) in
    let response = try VersionResponse(parsing: body)
    guard let version = context.version, version >= .v6_0, response.versionSupported != 0,
      body.byteCount >= VersionResponse2.byteCount
    else { return .versionResponse(response, nil, nil) }
    let features = try VersionResponse2(parsing: body).supportedFeatures
    guard features.contains(.serverSpecifiedMonitorPages) else {
      return .versionResponse(response, features, nil)
    }
    return .versionResponse(response, features, try VersionResponse3(parsing: body).monitorPages)
  }

  private static let tlConnectRequest = MessageForm(byteCount: TLConnectRequest.byteCount) {
    body, context throws(WireError) in
    let request = try TLConnectRequest(parsing: body)
    guard let version = context.version, version >= .v5_2,
      body.byteCount >= TLConnectRequest2.byteCount
    else { return .tlConnectRequest(request, siloID: nil) }
    return .tlConnectRequest(request, siloID: try TLConnectRequest2(parsing: body).siloID)
  }
}

extension SignalParameters {
  static func areSent(_ context: MessageContext) -> Bool {
    guard let version = context.version, version >= .v6_0 else { return false }
    return !context.features.isDisjoint(with: [
      .guestSpecifiedSignalParameters, .channelInterruptRedirection,
    ])
  }
}

extension WireReader {
  /// The whole 8-byte words that are left. GPADL words are not aligned in a message.
  fileprivate mutating func readWords() throws(WireError) -> [UInt64] {
    var words: [UInt64] = []
    while remaining >= 8 { words.append(try read(UInt64.self)) }
    return words
  }
}
