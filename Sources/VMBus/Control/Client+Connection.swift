// SPDX-License-Identifier: Apache-2.0

// Connecting, unloading, pausing, and the monitor pages.

extension ControlClient {
  /// Asks for a connection: the newest version first, then downwards as the server refuses.
  ///
  /// May be called again while the answer is out, which starts anew: the fallback of a client
  /// whose confidential contact nobody answers.
  ///
  /// - Parameter confidential: instead of the configuration's policy.
  public mutating func connect(
    confidential: ConfidentialPolicy? = nil
  ) throws(ControlError) -> [ClientAction] {
    guard state == .disconnected || state == .connecting else { throw .invalidConnectionState }
    policy = confidential ?? configuration.confidential
    let oldest: ProtocolVersion =
      policy == .required ? .v6_0 : configuration.isIsolated ? .v5_2 : .v4_0
    let wanted = configuration.versions
    candidates = ProtocolVersion.supported.filter { $0 >= oldest && wanted.contains($0) }
    return contact()
  }

  /// Asks for the first of the candidates.
  private mutating func contact() -> [ClientAction] {
    guard let version = candidates.first else {
      state = .disconnected
      return [.connectFailed(.noCommonVersion)]
    }
    state = .connecting
    let features = version >= .v6_0 ? requestedFeatures : []
    let message = InitiateContact {
      $0.versionRequested = version
      $0.targetMessageVP = configuration.targetMessageVP
      if version >= .v5_0 {
        $0.interruptPageOrTargetInfo =
          TargetInfo(
            sint: configuration.targetSINT, vtl: configuration.targetVTL, features: features
          ).rawValue
      }
      $0.monitorPages = configuration.monitorPages ?? MonitorPages()
    }
    let clientID = features.contains(.clientID) ? configuration.clientID : nil
    return [post(.initiateContact(message, clientID: clientID))]
  }

  private var requestedFeatures: FeatureFlags {
    var features = configuration.features.subtracting([.clientID, .confidentialChannels])
    if configuration.clientID != nil { features.insert(.clientID) }
    if policy != .off { features.insert(.confidentialChannels) }
    return features
  }

  /// First contact goes to 4 since 5.0, when the answer tells what counts from then on.
  var messageConnectionID: UInt32 {
    if let connection { return connection.messageConnectionID }
    return (candidates.first ?? .v4_0) >= .v5_0 ? 4 : 1
  }

  mutating func handleVersionResponse(
    _ response: VersionResponse, _ granted: FeatureFlags?, _ pages: MonitorPages?
  ) throws(ControlError) -> [ClientAction] {
    guard response.versionSupported != 0, let version = candidates.first else {
      candidates = Array(candidates.dropFirst())
      return contact()
    }
    guard response.connectionState == .successful else {
      state = .disconnected
      return [.connectFailed(.refused(response.connectionState))]
    }
    // What was not asked for is not in use, whatever the server says.
    let features = version >= .v6_0 ? (granted ?? []).intersection(requestedFeatures) : []
    var monitorPages = configuration.monitorPages
    if features.contains(.serverSpecifiedMonitorPages) {
      guard let pages, pages.childToParent != 0 else { throw .invalidMonitorPages }
      monitorPages = pages
    }
    let connection = ClientConnection(
      version: version, features: features,
      messageConnectionID: version >= .v5_0 ? response.selectedVersionOrConnectionID : 1,
      monitorPages: monitorPages)
    self.connection = connection
    guard policy != .required || connection.isConfidential else {
      // The server believes that there is a connection, so it has to be undone.
      state = .unloading
      return [.connectFailed(.notConfidential), post(.unload)]
    }
    state = .receivingOffers
    return [.connected(connection), post(.requestOffers)]
  }

  /// Ends the connection. When `.unloaded` comes, all memory is the guest's again.
  public mutating func unload() throws(ControlError) -> [ClientAction] {
    switch state {
    case .receivingOffers, .connected, .pausing, .paused: break
    case .disconnected, .connecting, .unloading: throw .invalidConnectionState
    }
    state = .unloading
    return [post(.unload)]
  }

  mutating func handleUnloadComplete() -> [ClientAction] {
    state = .disconnected
    connection = nil
    candidates = []
    channels = [:]
    gpadls = [:]
    socketRequests = []
    isModifyingConnection = false
    return [.unloaded]
  }

  /// Asks the server to hold its messages back. Nothing else may be posted until `resume`.
  public mutating func pause() throws(ControlError) -> [ClientAction] {
    guard state == .connected else { throw .invalidConnectionState }
    _ = try require(.pause)
    state = .pausing
    return [post(.pause)]
  }

  mutating func handlePaused() -> [ClientAction] {
    state = .paused
    return [.paused]
  }

  /// Lets the server send again; nothing answers it.
  public mutating func resume() throws(ControlError) -> [ClientAction] {
    guard state == .paused else { throw .invalidConnectionState }
    state = .connected
    var actions = [post(.resume), .resumed]
    for id in channels.keys.sorted() { actions += clear(id) }
    return actions
  }

  /// Gives the server other monitor pages, or none.
  public mutating func modifyConnection(
    monitorPages: MonitorPages?
  ) throws(ControlError) -> [ClientAction] {
    _ = try require(.modifyConnection)
    guard !isModifyingConnection else { throw .invalidConnectionState }
    let pages = monitorPages ?? MonitorPages()
    guard pages.isPair else { throw .invalidMonitorPages }
    isModifyingConnection = true
    return [post(.modifyConnection(ModifyConnection { $0.monitorPages = pages }))]
  }

  mutating func handleConnectionModified(
    _ response: ModifyConnectionResponse
  ) throws(ControlError) -> [ClientAction] {
    guard isModifyingConnection else { throw .unexpected(.modifyConnectionResponse) }
    isModifyingConnection = false
    return [.connectionModified(response.connectionState)]
  }

  /// Asks for an hvsock connection. It comes as an offer with these two GUIDs, or is refused.
  ///
  /// - Parameter siloID: only sent since 5.2.
  public mutating func connectSocket(
    endpointID: GUID, serviceID: GUID, siloID: GUID = GUID()
  ) throws(ControlError) -> [ClientAction] {
    let connection = try require(.tlConnectRequest)
    // Before 4.1 nothing tells a refusal, so nothing is remembered either.
    if connection.version >= .v4_1 {
      guard socketRequests.count < Self.maximumSocketRequests else { throw .tooManySocketRequests }
      socketRequests.append(SocketRequest(endpointID: endpointID, serviceID: serviceID))
    }
    let request = TLConnectRequest {
      $0.endpointID = endpointID
      $0.serviceID = serviceID
    }
    let silo = connection.version >= .v5_2 ? siloID : nil
    return [post(.tlConnectRequest(request, siloID: silo))]
  }

  mutating func handleSocketResult(
    _ result: TLConnectResult
  ) throws(ControlError) -> [ClientAction] {
    let request = SocketRequest(endpointID: result.endpointID, serviceID: result.serviceID)
    guard result.status.isError, let index = socketRequests.firstIndex(of: request) else {
      throw .unsolicitedSocketResult(result.status)
    }
    socketRequests.remove(at: index)
    return [
      .socketRefused(
        endpointID: result.endpointID, serviceID: result.serviceID, result.status)
    ]
  }
}
