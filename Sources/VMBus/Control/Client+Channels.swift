// SPDX-License-Identifier: Apache-2.0

// Open, close, modify, and the GPADLs of a channel.

/// How a channel is to be opened.
public struct OpenParameters: Equatable, Sendable {
  /// A created GPADL of one range of whole pages.
  public var ring: GPADLID
  /// The page at which the ring from host to guest starts; before it lies the one to the host.
  public var downstreamPageOffset: UInt32
  /// The processor to interrupt, or `OpenChannel.interruptsDisabledVP`.
  public var targetVP: UInt32 = 0
  public var userData = UserData()
  /// How the channel is signalled; nil takes what the offer says. Anything else needs the feature
  /// `guestSpecifiedSignalParameters` or `channelInterruptRedirection`.
  public var signal: SignalParameters?

  public init(ring: GPADLID, downstreamPageOffset: UInt32) {
    self.ring = ring
    self.downstreamPageOffset = downstreamPageOffset
  }
}

extension ControlClient {
  /// Opens a channel; `.opened` tells how it went.
  public mutating func open(
    _ id: ChannelID, _ parameters: OpenParameters
  ) throws(ControlError) -> [ClientAction] {
    let connection = try requireActive()
    var channel = try usable(id)
    guard channel.phase == .closed else { throw .invalidChannelState(id) }
    let ring = parameters.ring
    guard let gpadl = gpadls[ring], gpadl.channel == id, gpadl.phase == .created else {
      throw .invalidRing(id, .gpadl(ring))
    }
    guard let pages = gpadl.ringPages else { throw .invalidRing(id, .shape(ring)) }
    guard GPADL.isDownstreamOffset(parameters.downstreamPageOffset, validFor: pages) else {
      throw .invalidRing(id, .downstreamOffset(parameters.downstreamPageOffset, pages: pages))
    }
    let context = MessageContext(version: connection.version, features: connection.features)
    var signal: SignalParameters?
    if SignalParameters.areSent(context) {
      signal = parameters.signal ?? .default(of: channel.offer)
    } else if parameters.signal != nil {
      throw .unsupported(.openChannel)
    }
    channel.phase = .opening
    channel.ring = ring
    channel.hasInterrupt = parameters.targetVP != OpenChannel.interruptsDisabledVP
    channels[id] = channel
    let message = OpenChannel {
      $0.channelID = id
      $0.openID = id.rawValue
      $0.ringGPADL = ring
      $0.targetVP = parameters.targetVP
      $0.downstreamPageOffset = parameters.downstreamPageOffset
      $0.userData = parameters.userData
    }
    return [post(.openChannel(message, signal))]
  }

  mutating func handleOpenResult(
    _ result: OpenChannelResult
  ) throws(ControlError) -> [ClientAction] {
    let id = result.channelID
    guard var channel = channels[id] else { throw .unknownChannel(id) }
    guard channel.phase == .opening, result.openID == id.rawValue else {
      throw .invalidChannelState(id)
    }
    channel.phase = result.status.isSuccess ? .open : .closed
    if !result.status.isSuccess { channel.ring = nil }
    channels[id] = channel
    return [.opened(id, result.status)]
  }

  /// Closes an open channel, rescinded or not. Nothing answers; the server is done with the ring
  /// when its GPADL is torn down.
  public mutating func close(_ id: ChannelID) throws(ControlError) -> [ClientAction] {
    _ = try requireActive()
    guard var channel = channels[id] else { throw .unknownChannel(id) }
    guard channel.phase == .open else { throw .invalidChannelState(id) }
    channel.phase = .closed
    channel.ring = nil
    channels[id] = channel
    return [post(.closeChannel(CloseChannel { $0.channelID = id }))]
  }

  /// Has another processor interrupted. Servers before 5.3 do not answer, so `.modified` comes at
  /// once there.
  public mutating func modify(
    _ id: ChannelID, targetVP: UInt32
  ) throws(ControlError) -> [ClientAction] {
    let connection = try require(.modifyChannel)
    var channel = try usable(id)
    guard targetVP != OpenChannel.interruptsDisabledVP else {
      throw .invalidTargetVP(id, targetVP)
    }
    guard channel.phase == .open, channel.hasInterrupt, !channel.isModifying else {
      throw .invalidChannelState(id)
    }
    let message = ModifyChannel {
      $0.channelID = id
      $0.targetVP = targetVP
    }
    guard connection.version >= .v5_3 else {
      return [post(.modifyChannel(message)), .modified(id, .success)]
    }
    channel.isModifying = true
    channels[id] = channel
    return [post(.modifyChannel(message))]
  }

  mutating func handleModifyResponse(
    _ response: ModifyChannelResponse
  ) throws(ControlError) -> [ClientAction] {
    let id = response.channelID
    guard var channel = channels[id] else { throw .unknownChannel(id) }
    guard channel.isModifying else { throw .invalidChannelState(id) }
    channel.isModifying = false
    channels[id] = channel
    return [.modified(id, response.status)] + clear(id)
  }

  /// Describes memory to the server. `.gpadlCreated` tells whether it knows it.
  public mutating func createGPADL(
    _ channel: ChannelID, ranges: [GPADLRange]
  ) throws(ControlError) -> (id: GPADLID, actions: [ClientAction]) {
    while nextGPADL == 0 || gpadls[GPADLID(nextGPADL)] != nil { nextGPADL &+= 1 }
    let id = GPADLID(nextGPADL)
    let actions = try createGPADL(channel, as: id, ranges: ranges)
    nextGPADL &+= 1
    return (id, actions)
  }

  /// The same under an id that somebody else has given out: a relay's guest names it to the device in
  /// packets, which the relay does not see.
  public mutating func createGPADL(
    _ channel: ChannelID, as id: GPADLID, ranges: [GPADLRange]
  ) throws(ControlError) -> [ClientAction] {
    _ = try requireActive()
    _ = try usable(channel)
    guard id != GPADLID(0), gpadls[id] == nil else { throw .invalidGPADLState(id) }
    let messages: [OutgoingMessage]
    do throws(GPADLFault) {
      messages = try GPADL.messages(id, of: channel, ranges: ranges)
    } catch {
      throw .invalidGPADL(id, error)
    }
    gpadls[id] = ClientGPADL(channel: channel, ringPages: GPADL.ringPages(ranges))
    let connectionID = messageConnectionID
    return messages.map { .post($0, connectionID: connectionID) }
  }

  mutating func handleCreated(_ result: GPADLCreated) throws(ControlError) -> [ClientAction] {
    let id = result.gpadlID
    guard var gpadl = gpadls[id], gpadl.channel == result.channelID else {
      throw .unknownGPADL(id)
    }
    guard gpadl.phase == .creating else { throw .invalidGPADLState(id) }
    guard result.status.isSuccess else {
      gpadls[id] = nil
      return [.gpadlCreated(id, result.status)] + clear(gpadl.channel)
    }
    gpadl.phase = .created
    gpadls[id] = gpadl
    return [.gpadlCreated(id, result.status)] + clear(gpadl.channel)
  }

  /// Takes memory back. It is the guest's again with `.gpadlTornDown`, not before; the memory of
  /// a ring cannot be taken back before its channel is closed.
  public mutating func tearDownGPADL(_ id: GPADLID) throws(ControlError) -> [ClientAction] {
    _ = try requireActive()
    guard let gpadl = gpadls[id] else { throw .unknownGPADL(id) }
    guard gpadl.phase == .created, channels[gpadl.channel]?.ring != id else {
      throw .invalidGPADLState(id)
    }
    return [beginTeardown(id, of: gpadl.channel)]
  }

  mutating func beginTeardown(_ id: GPADLID, of channel: ChannelID) -> ClientAction {
    gpadls[id]?.phase = .tearingDown
    return post(
      .gpadlTeardown(
        GPADLTeardown {
          $0.channelID = channel
          $0.gpadlID = id
        }))
  }

  mutating func handleTorndown(_ id: GPADLID) throws(ControlError) -> [ClientAction] {
    guard let gpadl = gpadls[id] else { throw .unknownGPADL(id) }
    guard gpadl.phase == .tearingDown else { throw .invalidGPADLState(id) }
    gpadls[id] = nil
    return [.gpadlTornDown(id)] + clear(gpadl.channel)
  }

  /// A channel that is known and not rescinded.
  private func usable(_ id: ChannelID) throws(ControlError) -> ClientChannel {
    guard let channel = channels[id] else { throw .unknownChannel(id) }
    guard !channel.isRescinded else { throw .channelRescinded(id) }
    return channel
  }

  /// What must hold whatever the peer has sent; nil when it does.
  public func checkInvariants() -> String? {
    if (connection == nil) != (state == .disconnected || state == .connecting) {
      return "connection in state \(state)"
    }
    if connection == nil, !channels.isEmpty || !gpadls.isEmpty { return "left over channels" }
    if socketRequests.count > Self.maximumSocketRequests { return "too many hvsock requests" }
    for (id, channel) in channels {
      if !ChannelID.valid.contains(id) || channel.offer.channelID != id {
        return "channel id \(id)"
      }
      guard let confidentiality = channel.offer.flags.confidentiality,
        confidentiality == .hostVisible || connection?.isConfidential == true
      else { return "confidentiality of \(id)" }
      if (channel.phase == .closed) != (channel.ring == nil) { return "ring of \(id)" }
      if channel.isReleased, !channel.isRescinded { return "release of \(id)" }
      if channel.isRescinded, channel.phase == .opening { return "open of rescinded \(id)" }
      if let ring = channel.ring, gpadls[ring]?.phase != .created { return "ring of \(id)" }
    }
    for (id, gpadl) in gpadls where channels[gpadl.channel] == nil { return "GPADL \(id)" }
    return nil
  }
}

extension SignalParameters {
  /// As a channel is signalled when the guest does not care.
  static func `default`(of offer: OfferChannel) -> SignalParameters {
    SignalParameters {
      $0.connectionID = offer.connectionID
      $0.eventFlag = UInt16(truncatingIfNeeded: offer.channelID.rawValue)
    }
  }
}
