// SPDX-License-Identifier: Apache-2.0

// First contact, unload and reset, pausing, and what concerns no channel.

extension ControlServer {
  mutating func handleContact(
    _ contact: InitiateContact, clientID: GUID?, origin: MessageOrigin
  ) -> [ServerAction] {
    guard state == .disconnected else {
      // A guest that begins anew has forgotten everything, like one that unloads.
      return reset(then: .contact(contact, clientID: clientID, origin))
    }
    return connect(contact, clientID: clientID, origin: origin)
  }

  private mutating func connect(
    _ contact: InitiateContact, clientID: GUID?, origin: MessageOrigin
  ) -> [ServerAction] {
    let version = contact.versionRequested
    guard ProtocolVersion.supported.contains(version), configuration.versions.contains(version)
    else { return [answer(contact, VersionResponse())] }
    let info = contact.targetInfo
    guard contact.monitorPages.isPair, info.sint < 16 else {
      let failure = VersionResponse {
        $0.versionSupported = 1
        $0.connectionState = .failedUnknownFailure
      }
      return [answer(contact, failure)]
    }
    let features = info.features.intersection(grantable(to: origin))
    let serverPages =
      features.contains(.serverSpecifiedMonitorPages) ? configuration.monitorPages : nil
    let connection = ServerConnection(
      version: version, features: features, targetVP: contact.targetMessageVP,
      targetSINT: info.sint, targetVTL: info.vtl, isTrusted: origin == .trusted,
      clientID: features.contains(.clientID) ? clientID : nil,
      monitorPages: serverPages ?? (contact.monitorPages.isEmpty ? nil : contact.monitorPages))
    self.connection = connection
    let response = VersionResponse {
      $0.versionSupported = 1
      $0.selectedVersionOrConnectionID =
        version >= .v5_0 ? configuration.messageConnectionID : version.rawValue
    }
    return [
      .connected(connection),
      answer(contact, response, features: version >= .v6_0 ? features : nil, pages: serverPages),
    ]
  }

  private func answer(
    _ contact: InitiateContact, _ response: VersionResponse, features: FeatureFlags? = nil,
    pages: MonitorPages? = nil
  ) -> ServerAction {
    .post(
      OutgoingMessage(.versionResponse(response, features, pages)),
      targetVP: contact.targetMessageVP)
  }

  private func grantable(to origin: MessageOrigin) -> FeatureFlags {
    var features = configuration.features
    if origin == .untrusted { features.remove(.confidentialChannels) }
    if (configuration.monitorPages?.childToParent ?? 0) == 0 {
      features.remove(.serverSpecifiedMonitorPages)
    }
    return features
  }

  mutating func handleUnload() -> [ServerAction] { reset(then: .unload) }

  /// The guest has gone without a word (its transport broke). `.disconnected` tells when the
  /// devices have let go.
  public mutating func disconnect() -> [ServerAction] {
    guard state != .disconnected else { return [] }
    return reset(then: .nothing)
  }

  /// Closes and tears down everything; what comes after waits until the devices have let go.
  private mutating func reset(then next: ResetGoal) -> [ServerAction] {
    let isUnderWay = goal != nil
    goal = next
    guard !isUnderWay else { return [] }
    isPaused = false
    areOffersRequested = false
    heldMessages = []
    var actions: [ServerAction] = []
    for id in channels.keys.sorted() { actions += abandonChannel(id) }
    for id in gpadls.keys.sorted() { actions += abandonGPADL(id) }
    return actions + finishReset()
  }

  private mutating func abandonChannel(_ id: ChannelID) -> [ServerAction] {
    guard var channel = channels[id] else { return [] }
    guard !channel.isRevoked else {
      channels[id] = nil
      return [.released(id)]
    }
    var actions: [ServerAction] = []
    switch channel.phase {
    case .closed: break
    case .opening(let request, _): channel.phase = .opening(request, isAbandoned: true)
    case .open(let request):
      channel.phase = .closing(request, reopen: nil)
      actions.append(.close(id))
    case .closing(let request, _): channel.phase = .closing(request, reopen: nil)
    }
    if case .pending = channel.modification {
      channel.modification = .pending(isAnswered: false, next: nil)
    }
    channel.isAnnounced = false
    channel.isReleasedByGuest = false
    channels[id] = channel
    return actions
  }

  private mutating func abandonGPADL(_ id: GPADLID) -> [ServerAction] {
    guard var gpadl = gpadls[id] else { return [] }
    gpadl.isAnswered = false
    guard let channel = channels[gpadl.channel] else {
      removeGPADL(id)
      return []
    }
    var actions: [ServerAction] = []
    switch gpadl.phase {
    case .assembling:
      removeGPADL(id)
      return []
    case .creating, .tearingDown: break
    case .accepted where channel.uses(id), .held where channel.uses(id): gpadl.phase = .held
    case .accepted, .held:
      gpadl.phase = .tearingDown
      actions.append(.tearDownGPADL(gpadl.channel, id))
    }
    gpadls[id] = gpadl
    return actions
  }

  /// Goes on with what the reset was for, once no device holds anything of the guest.
  mutating func finishReset() -> [ServerAction] {
    guard let goal, gpadls.isEmpty,
      channels.values.allSatisfy({ $0.phase == .closed && $0.modification == .idle })
    else { return [] }
    var actions: [ServerAction] = []
    if case .unload = goal { actions += post(.unloadComplete) }
    self.goal = nil
    connection = nil
    actions.append(.disconnected)
    if case .contact(let contact, let clientID, let origin) = goal {
      actions += connect(contact, clientID: clientID, origin: origin)
    }
    return actions
  }

  mutating func handlePause() -> [ServerAction] {
    let actions = post(.pauseResponse)
    isPaused = true
    return actions
  }

  mutating func handleResume() -> [ServerAction] {
    isPaused = false
    guard let connection else { return [] }
    let messages = heldMessages
    heldMessages = []
    return messages.map { .post($0, targetVP: connection.targetVP) }
  }

  mutating func handleModifyConnection(_ pages: MonitorPages) -> [ServerAction] {
    guard let connection, pages.isPair,
      !connection.features.contains(.serverSpecifiedMonitorPages)
    else {
      let failure = ModifyConnectionResponse { $0.connectionState = .failedUnknownFailure }
      return post(.modifyConnectionResponse(failure)) + [.refused(.invalidMonitorPages)]
    }
    self.connection?.monitorPages = pages.isEmpty ? nil : pages
    return [.monitorPagesChanged(pages.isEmpty ? nil : pages)]
      + post(.modifyConnectionResponse(ModifyConnectionResponse()))
  }

  /// Nobody listens for hvsock here. Guests of 4.0 cannot be told.
  mutating func handleSocketRequest(_ request: TLConnectRequest) -> [ServerAction] {
    guard let connection, connection.version >= .v4_1 else { return [] }
    let result = TLConnectResult {
      $0.endpointID = request.endpointID
      $0.serviceID = request.serviceID
      $0.status = .connectionRefused
    }
    return post(.tlConnectResult(result))
  }

  /// There are no reserved channels here, so opening one fails and all of them are closed. The
  /// messages name their own target, since they need no connection.
  mutating func handleOpenReserved(_ request: OpenReservedChannel) -> [ServerAction] {
    let result = OpenChannelResult {
      $0.channelID = request.channelID
      $0.status = .unsuccessful
    }
    return [
      .post(OutgoingMessage(.openChannelResult(result)), targetVP: request.targetVP),
      .refused(.reservedChannel(request.channelID)),
    ]
  }

  mutating func handleCloseReserved(_ request: CloseReservedChannel) -> [ServerAction] {
    let response = CloseReservedChannelResponse { $0.channelID = request.channelID }
    return [
      .post(OutgoingMessage(.closeReservedChannelResponse(response)), targetVP: request.targetVP)
    ]
  }
}
