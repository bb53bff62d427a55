// SPDX-License-Identifier: Apache-2.0

// Offers from a device's arrival to the release of its relid.

extension ControlServer {
  /// The offers of all devices that are there, in order of their relids.
  public var offers: [OfferChannel] {
    channels.values.filter { !$0.isRevoked }.map(\.offer).sorted { $0.channelID < $1.channelID }
  }

  /// How a channel is open, or nil.
  public func openRequest(of id: ChannelID) -> OpenRequest? {
    guard case .open(let request) = channels[id]?.phase else { return nil }
    return request
  }

  /// A device arrives. The guest is told at once, or when it asks for offers, or when it has
  /// released an earlier offer of the same instance.
  ///
  /// - Parameter offer: what the guest is told. The server sets the channel id, and a connection
  ///   id where it is 0. Confidential flags only reach a guest on a confidential connection.
  /// - Returns: the relid, by which the device knows its channel from now on.
  public mutating func offer(
    _ offer: OfferChannel
  ) throws(ControlError) -> (id: ChannelID, actions: [ServerAction]) {
    let range = configuration.channelIDs.clamped(to: ChannelID.valid)
    let ids = range.lowerBound.rawValue...range.upperBound.rawValue
    guard let id = ids.lazy.map({ ChannelID($0) }).first(where: { channels[$0] == nil }) else {
      throw .tooManyChannels
    }
    return (id, try self.offer(offer, as: id))
  }

  /// The channel of another server, under the relid that it has there: one that this server does
  /// not give out itself.
  public mutating func relay(_ offer: OfferChannel) throws(ControlError) -> [ServerAction] {
    let id = offer.channelID
    guard ChannelID.valid.contains(id), !configuration.channelIDs.contains(id),
      channels[id] == nil
    else { throw .invalidOffer(id, .relidInUse) }
    return try self.offer(offer, as: id)
  }

  private mutating func offer(
    _ offer: OfferChannel, as id: ChannelID
  ) throws(ControlError) -> [ServerAction] {
    guard configuration.offersUnlawfulFlags || offer.flags.confidentiality != nil else {
      throw .invalidOffer(id, .unlawfulFlags)
    }
    guard standing(offer, subchannel: offer.subchannelIndex) == nil else {
      throw .invalidOffer(id, .duplicateInstance)
    }
    guard offer.subchannelIndex == 0 || standing(offer, subchannel: 0) != nil else {
      throw .invalidOffer(id, .noPrimary)
    }
    var offer = offer
    offer.channelID = id
    offer.isDedicated |= 1
    if offer.connectionID == 0 { offer.connectionID = OfferChannel.defaultConnectionID(id) }
    channels[id] = ServerChannel(offer: offer)
    return announce()
  }

  /// The device of that instance that has not been revoked.
  private func standing(_ offer: OfferChannel, subchannel: UInt16) -> ServerChannel? {
    channels.values.first {
      !$0.isRevoked && $0.offer.isSameInstance(as: offer) && $0.offer.subchannelIndex == subchannel
    }
  }

  /// A device goes, its subchannels before it. It has stopped touching the guest's memory, and
  /// answers nothing any more.
  public mutating func revoke(_ id: ChannelID) throws(ControlError) -> [ServerAction] {
    guard let channel = channels[id] else { throw .unknownChannel(id) }
    guard !channel.isRevoked else { throw .channelRescinded(id) }
    var leaving = [id]
    if channel.offer.subchannelIndex == 0 {
      let subchannels = channels.filter {
        $0.value.offer.subchannelIndex != 0 && !$0.value.isRevoked
          && $0.value.offer.isSameInstance(as: channel.offer)
      }
      leaving = subchannels.keys.sorted() + leaving
    }
    var actions: [ServerAction] = []
    for id in leaving { actions += revokeOne(id) }
    return actions + finishReset()
  }

  private mutating func revokeOne(_ id: ChannelID) -> [ServerAction] {
    guard var channel = channels[id] else { return [] }
    guard channel.isAnnounced else {
      // The guest does not know it (any more): nobody has to release the relid.
      for (gpadl, entry) in gpadls where entry.channel == id { removeGPADL(gpadl) }
      channels[id] = nil
      return []
    }
    var actions: [ServerAction] = []
    if case .pending(true, _) = channel.modification {
      actions += post(.modifyChannelResponse(.init(id, .unsuccessful)))
    }
    channel.modification = .idle
    channel.phase = .closed
    channel.isRevoked = true
    channels[id] = channel
    for gpadl in gpadls.keys.sorted() where gpadls[gpadl]?.channel == id {
      actions += settleGPADL(gpadl, ofRevoked: id)
    }
    return actions + post(.rescindChannelOffer(RescindChannelOffer { $0.channelID = id }))
  }

  mutating func handleRequestOffers() -> [ServerAction] {
    areOffersRequested = true
    return announce() + post(.allOffersDelivered)
  }

  mutating func handleReleased(_ id: ChannelID) throws(ControlError) -> [ServerAction] {
    var channel = try announced(id)
    if channel.isRevoked {
      for (gpadl, entry) in gpadls where entry.channel == id { removeGPADL(gpadl) }
      channels[id] = nil
      return [.released(id)] + announce()
    }
    // Guests also release what they will not use. It is offered again to the next connection.
    guard channel.phase == .closed, channel.modification == .idle,
      !gpadls.values.contains(where: { $0.channel == id })
    else { throw .invalidChannelState(id) }
    channel.isAnnounced = false
    channel.isReleasedByGuest = true
    channels[id] = channel
    return []
  }

  /// Tells the guest of what it does not know yet, primaries first.
  private mutating func announce() -> [ServerAction] {
    guard let connection, areOffersRequested, goal == nil else { return [] }
    let order = channels.values.filter { !$0.isAnnounced && !$0.isReleasedByGuest }
      .map(\.offer).sorted { left, right in
        if (left.subchannelIndex == 0) != (right.subchannelIndex == 0) {
          return left.subchannelIndex == 0
        }
        return left.channelID < right.channelID
      }
    var actions: [ServerAction] = []
    for offer in order where canAnnounce(offer) {
      channels[offer.channelID]?.isAnnounced = true
      var offer = offer
      if !connection.isConfidential { offer.flags.subtract(.confidential) }
      if connection.monitorPages == nil {
        // Without a page to trigger it in, the guest could not signal at all.
        offer.monitorID = OfferChannel.noMonitor
        offer.monitorAllocated = 0
      }
      if !connection.features.contains(.gpaPinning) {
        offer.flags.remove(.requirePinnedExternalMemory)
      }
      actions += post(.offerChannel(offer))
    }
    return actions
  }

  /// The guest holds no rescinded offer of that instance, and knows a subchannel's primary.
  private func canAnnounce(_ offer: OfferChannel) -> Bool {
    let same = channels.values.filter { $0.offer.isSameInstance(as: offer) }
    let isHeld = same.contains {
      $0.isRevoked && $0.offer.subchannelIndex == offer.subchannelIndex
    }
    let hasPrimary = same.contains {
      $0.isAnnounced && !$0.isRevoked && $0.offer.subchannelIndex == 0
    }
    return !isHeld && (offer.subchannelIndex == 0 || hasPrimary)
  }

  /// A channel that the guest knows, rescinded or not.
  func announced(_ id: ChannelID) throws(ControlError) -> ServerChannel {
    guard let channel = channels[id], channel.isAnnounced else { throw .unknownChannel(id) }
    return channel
  }
}

extension OfferChannel {
  func isSameInstance(as other: OfferChannel) -> Bool {
    instanceID == other.instanceID && interfaceID == other.interfaceID
  }
}

extension ModifyChannelResponse {
  init(_ id: ChannelID, _ status: ControlStatus) {
    self.init()
    channelID = id
    self.status = status
  }
}
