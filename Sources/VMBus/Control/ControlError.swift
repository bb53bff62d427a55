// SPDX-License-Identifier: Apache-2.0

/// What a peer, a driver or a device did that the control plane does not allow.
///
/// A message that is refused changes nothing, unless the handler says otherwise.
public enum ControlError: Error, Equatable, Sendable {
  /// The bytes are no message of this version and these features.
  case malformed(WireError)
  /// From the untrusted side, where only the trusted one counts.
  case untrusted
  /// A message that only the other end sends.
  case wrongDirection(MessageType)
  /// A message that has no place in this state of the connection.
  case unexpected(MessageType)
  /// A request that has no place in this state of the connection.
  case invalidConnectionState
  /// The connection's version and features do not have this message.
  case unsupported(MessageType)
  /// The server granted monitor pages and named none.
  case invalidMonitorPages

  case unknownChannel(ChannelID)
  case duplicateChannel(ChannelID)
  /// No relid is free.
  case tooManyChannels
  /// The channel has been rescinded, or rescinded twice.
  case channelRescinded(ChannelID)
  /// The channel is not in the state that this message or request needs.
  case invalidChannelState(ChannelID)
  /// Channels that exist without a connection are not served here.
  case reservedChannel(ChannelID)
  case invalidOffer(ChannelID, OfferFault)
  case invalidRing(ChannelID, RingFault)
  case invalidTargetVP(ChannelID, UInt32)
  case invalidEventFlag(ChannelID, UInt16)

  case unknownGPADL(GPADLID)
  case duplicateGPADL(GPADLID)
  case invalidGPADLState(GPADLID)
  case invalidGPADL(GPADLID, GPADLFault)

  /// A result for an hvsock connection that nobody asked for, or a result that is no failure.
  case unsolicitedSocketResult(ControlStatus)
  case tooManySocketRequests
}

/// What is wrong with an offer.
public enum OfferFault: Equatable, Sendable {
  /// Outside of 1 to 2047.
  case channelID
  /// Encrypted external memory without an encrypted ring.
  case unlawfulFlags
  /// Confidential flags on a connection that is not confidential.
  case notConfidential
  /// The same instance and subchannel index as an offer that stands.
  case duplicateInstance
  /// Another channel has the relid, or it is not one that this side may give out.
  case relidInUse
  /// A subchannel of a device that is not offered.
  case noPrimary
}

/// What is wrong with a ring.
public enum RingFault: Equatable, Sendable {
  /// No such GPADL of this channel, or the peer does not know it yet.
  case gpadl(GPADLID)
  /// The GPADL is not one range of whole pages.
  case shape(GPADLID)
  /// One of the halves has no room for a control page and a page of data.
  case downstreamOffset(UInt32, pages: Int)
}

extension GPADL {
  /// The pages of a ring, or nil for ranges that no ring can lie in: more than one, or not whole
  /// pages.
  static func ringPages(_ ranges: [GPADLRange]) -> Int? {
    guard ranges.count == 1, let range = ranges.first, range.byteOffset == 0,
      range.byteCount % UInt32(pageByteCount) == 0
    else { return nil }
    return range.gpns.count
  }

  /// Whether a ring of that many pages can be cut there: each half has its control page first
  /// and at least one page of data.
  static func isDownstreamOffset(_ offset: UInt32, validFor pages: Int) -> Bool {
    offset >= 2 && Int(offset) <= pages - 2
  }
}
