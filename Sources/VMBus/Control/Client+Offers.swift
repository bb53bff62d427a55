// SPDX-License-Identifier: Apache-2.0

// Offers from their arrival to the release of their relid.

extension ControlClient {
  mutating func handleOffer(_ offer: OfferChannel) throws(ControlError) -> [ClientAction] {
    let id = offer.channelID
    // The range also bounds how many channels a server can make the client hold.
    guard ChannelID.valid.contains(id) else { throw .invalidOffer(id, .channelID) }
    guard channels[id] == nil else { throw .duplicateChannel(id) }
    guard let confidentiality = offer.flags.confidentiality else {
      throw .invalidOffer(id, .unlawfulFlags)
    }
    guard confidentiality == .hostVisible || connection?.isConfidential == true else {
      throw .invalidOffer(id, .notConfidential)
    }
    if offer.flags.contains(.tlnpiProvider) {
      forgetSocketRequest(offer)
    } else {
      guard standing(offer.interfaceID, offer.instanceID, offer.subchannelIndex) == nil else {
        throw .invalidOffer(id, .duplicateInstance)
      }
      guard offer.subchannelIndex == 0 || standing(offer.interfaceID, offer.instanceID, 0) != nil
      else { throw .invalidOffer(id, .noPrimary) }
    }
    channels[id] = ClientChannel(offer: offer)
    return [.offered(offer)]
  }

  /// The channel of that instance which has not been rescinded.
  private func standing(_ interface: GUID, _ instance: GUID, _ subchannel: UInt16) -> ChannelID? {
    channels.first { _, channel in
      !channel.isRescinded && channel.offer.instanceID == instance
        && channel.offer.interfaceID == interface && channel.offer.subchannelIndex == subchannel
    }?.key
  }

  /// An hvsock offer that is not the host's own request answers the guest's.
  private mutating func forgetSocketRequest(_ offer: OfferChannel) {
    guard !offer.userDefined.isForGuestAccept else { return }
    let request = SocketRequest(endpointID: offer.instanceID, serviceID: offer.interfaceID)
    if let index = socketRequests.firstIndex(of: request) { socketRequests.remove(at: index) }
  }

  mutating func handleAllOffersDelivered() -> [ClientAction] {
    state = .connected
    return [.allOffersDelivered]
  }

  mutating func handleRescind(_ id: ChannelID) throws(ControlError) -> [ClientAction] {
    guard var channel = channels[id] else { throw .unknownChannel(id) }
    guard !channel.isRescinded else { throw .channelRescinded(id) }
    channel.isRescinded = true
    if channel.phase == .opening {
      // Nobody will answer that any more.
      channel.phase = .closed
      channel.ring = nil
    }
    channels[id] = channel
    return [.rescinded(id)]
  }

  /// The driver has dropped a rescinded channel, and uses neither it nor its memory.
  ///
  /// Whatever it left is closed and torn down first (told by `.gpadlTornDown`); only when nothing
  /// is pending is the relid given back, told by `.released`.
  public mutating func release(_ id: ChannelID) throws(ControlError) -> [ClientAction] {
    _ = try requireActive()
    guard var channel = channels[id] else { throw .unknownChannel(id) }
    guard channel.isRescinded, !channel.isReleased else { throw .invalidChannelState(id) }
    var actions: [ClientAction] = []
    if channel.phase == .open {
      actions.append(post(.closeChannel(CloseChannel { $0.channelID = id })))
    }
    channel.phase = .closed
    channel.ring = nil
    channel.isReleased = true
    channels[id] = channel
    return actions + clear(id)
  }

  /// Clears away what a driver has left of a released channel: tears down its GPADLs, and gives
  /// the relid back once the server owes no answer.
  mutating func clear(_ id: ChannelID) -> [ClientAction] {
    // While paused nothing may be posted; `resume` comes here again.
    guard state == .receivingOffers || state == .connected,
      let channel = channels[id], channel.isReleased
    else { return [] }
    var actions: [ClientAction] = []
    let left = gpadls.filter { $0.value.channel == id }.sorted { $0.key < $1.key }
    for (gpadl, entry) in left where entry.phase == .created {
      actions.append(beginTeardown(gpadl, of: id))
    }
    guard left.isEmpty, !channel.isModifying else { return actions }
    channels[id] = nil
    return [post(.relIDReleased(RelIDReleased { $0.channelID = id })), .released(id)]
  }
}
