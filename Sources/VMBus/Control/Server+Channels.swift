// SPDX-License-Identifier: Apache-2.0

// Open, close and modify: the guest's requests and the devices' answers.

extension ControlServer {
  mutating func handleOpen(
    _ open: OpenChannel, _ signal: SignalParameters?
  ) throws(ControlError) -> [ServerAction] {
    let id = open.channelID
    var channel = try announced(id)
    // The guest may not have seen the rescind yet, and waits for nothing once it has.
    guard !channel.isRevoked else { return [] }
    switch channel.phase {
    case .closed, .closing(_, reopen: nil): break
    default: throw .invalidChannelState(id)
    }
    let request: OpenRequest
    do throws(ControlError) {
      request = try openRequest(open, signal, of: channel)
    } catch {
      return openResult(id, open.openID, .unsuccessful) + [.refused(error)]
    }
    if case .closing(let closing, _) = channel.phase {
      channel.phase = .closing(closing, reopen: request)
      channels[id] = channel
      return []
    }
    channel.phase = .opening(request, isAbandoned: false)
    channels[id] = channel
    return [.open(request)]
  }

  private func openRequest(
    _ open: OpenChannel, _ signal: SignalParameters?, of channel: ServerChannel
  ) throws(ControlError) -> OpenRequest {
    let id = open.channelID
    let ring = open.ringGPADL
    guard let gpadl = gpadls[ring], gpadl.channel == id, case .accepted = gpadl.phase else {
      throw .invalidRing(id, .gpadl(ring))
    }
    guard let pages = GPADL.ringPages(gpadl.ranges), let range = gpadl.ranges.first else {
      throw .invalidRing(id, .shape(ring))
    }
    guard GPADL.isDownstreamOffset(open.downstreamPageOffset, validFor: pages) else {
      throw .invalidRing(id, .downstreamOffset(open.downstreamPageOffset, pages: pages))
    }
    let features = connection?.features ?? []
    var eventFlag = UInt16(truncatingIfNeeded: id.rawValue)
    var connectionID = channel.offer.connectionID
    if let signal, features.contains(.guestSpecifiedSignalParameters) {
      eventFlag = signal.eventFlag
      connectionID = signal.connectionID
    }
    // The page of event flags has 2048 bits.
    guard eventFlag < 2048 else { throw .invalidEventFlag(id, eventFlag) }
    let redirects =
      features.contains(.channelInterruptRedirection) && (signal?.flags ?? 0) & 1 != 0
    let isConfidential = connection?.isConfidential == true
    return OpenRequest(
      channel: id, openID: open.openID, ring: ring, ringPages: range.gpns,
      downstreamPageOffset: open.downstreamPageOffset, targetVP: open.targetVP,
      userData: open.userData, eventFlag: eventFlag, connectionID: connectionID,
      redirectsInterrupt: redirects,
      confidentiality: isConfidential
        ? channel.offer.flags.confidentiality ?? .hostVisible : .hostVisible)
  }

  private mutating func openResult(
    _ id: ChannelID, _ openID: UInt32, _ status: ControlStatus
  ) -> [ServerAction] {
    post(
      .openChannelResult(
        OpenChannelResult {
          $0.channelID = id
          $0.openID = openID
          $0.status = status
        }))
  }

  /// A device answers `.open`.
  public mutating func openCompleted(
    _ id: ChannelID, _ status: ControlStatus
  ) -> [ServerAction] {
    guard var channel = channels[id] else { return [.refused(.unknownChannel(id))] }
    guard case .opening(let request, let isAbandoned) = channel.phase else {
      return [.refused(.invalidChannelState(id))]
    }
    if isAbandoned && status.isSuccess {
      channel.phase = .closing(request, reopen: nil)
      channels[id] = channel
      return [.close(id)]
    }
    channel.phase = status.isSuccess ? .open(request) : .closed
    channels[id] = channel
    let actions = isAbandoned ? [] : openResult(id, request.openID, status)
    return actions + letGo(of: request.ring, by: id) + finishReset()
  }

  mutating func handleClose(_ id: ChannelID) throws(ControlError) -> [ServerAction] {
    var channel = try announced(id)
    guard !channel.isRevoked else { return [] }
    guard case .open(let request) = channel.phase else { throw .invalidChannelState(id) }
    channel.phase = .closing(request, reopen: nil)
    channels[id] = channel
    return [.close(id)]
  }

  /// A device answers `.close`: it no longer touches the ring.
  public mutating func closeCompleted(_ id: ChannelID) -> [ServerAction] {
    guard var channel = channels[id] else { return [.refused(.unknownChannel(id))] }
    guard case .closing(let request, let reopen) = channel.phase else {
      return [.refused(.invalidChannelState(id))]
    }
    var actions: [ServerAction] = []
    if let reopen {
      channel.phase = .opening(reopen, isAbandoned: false)
      actions.append(.open(reopen))
    } else {
      channel.phase = .closed
    }
    channels[id] = channel
    return actions + letGo(of: request.ring, by: id) + finishReset()
  }

  mutating func handleModify(_ message: ModifyChannel) throws(ControlError) -> [ServerAction] {
    let id = message.channelID
    var channel = try announced(id)
    let isAnswered = (connection?.version ?? .v4_0) >= .v5_3
    do throws(ControlError) {
      guard !channel.isRevoked else { throw .channelRescinded(id) }
      guard message.targetVP != OpenChannel.interruptsDisabledVP else {
        throw .invalidTargetVP(id, message.targetVP)
      }
      guard case .open(let request) = channel.phase,
        request.targetVP != OpenChannel.interruptsDisabledVP
      else { throw .invalidChannelState(id) }
      switch channel.modification {
      case .idle:
        channel.modification = .pending(isAnswered: isAnswered, next: nil)
        channels[id] = channel
        return [.modify(id, targetVP: message.targetVP)]
      case .pending:
        // A guest that gets answers has to wait for them; of the others the last one counts.
        guard !isAnswered else { throw .invalidChannelState(id) }
        channel.modification = .pending(isAnswered: false, next: message.targetVP)
        channels[id] = channel
        return []
      }
    } catch {
      let answer = isAnswered ? post(.modifyChannelResponse(.init(id, .unsuccessful))) : []
      return answer + [.refused(error)]
    }
  }

  /// A device answers `.modify`.
  public mutating func modifyCompleted(
    _ id: ChannelID, _ status: ControlStatus
  ) -> [ServerAction] {
    guard var channel = channels[id] else { return [.refused(.unknownChannel(id))] }
    guard case .pending(let isAnswered, let next) = channel.modification else {
      return [.refused(.invalidChannelState(id))]
    }
    var actions = isAnswered ? post(.modifyChannelResponse(.init(id, status))) : []
    if let next, case .open = channel.phase {
      channel.modification = .pending(isAnswered: isAnswered, next: nil)
      actions.append(.modify(id, targetVP: next))
    } else {
      channel.modification = .idle
    }
    channels[id] = channel
    return actions + finishReset()
  }
}
