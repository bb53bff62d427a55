// SPDX-License-Identifier: Apache-2.0

// GPADLs: assembled from fragments, created, used by rings and devices, torn down.

extension ControlServer {
  /// The ranges of a GPADL that the guest has described for that channel, for devices that are
  /// told an id in a packet. Nil for any other, however the guest came by the number.
  public func gpadl(_ id: GPADLID, of channel: ChannelID) -> [GPADLRange]? {
    guard let gpadl = gpadls[id], gpadl.channel == channel, case .accepted = gpadl.phase else {
      return nil
    }
    return gpadl.ranges
  }

  /// The ranges of a GPADL that `.createGPADL` asks a device about.
  public func gpadlBeingCreated(_ id: GPADLID, of channel: ChannelID) -> [GPADLRange]? {
    guard let gpadl = gpadls[id], gpadl.channel == channel, case .creating = gpadl.phase else {
      return nil
    }
    return gpadl.ranges
  }

  mutating func handleGPADLHeader(_ header: GPADLHeader, _ words: [UInt64]) -> [ServerAction] {
    // Whatever is wrong with a header is answered: the guest waits for it.
    do throws(ControlError) {
      return try beginGPADL(header, words)
    } catch {
      return created(header.channelID, header.gpadlID, .unsuccessful) + [.refused(error)]
    }
  }

  private mutating func beginGPADL(
    _ header: GPADLHeader, _ words: [UInt64]
  ) throws(ControlError) -> [ServerAction] {
    let id = header.gpadlID
    _ = try announced(header.channelID)
    // Neither a body nor GPADLTorndown names a channel, so an id is used once on a connection.
    guard gpadls[id] == nil else { throw .duplicateGPADL(id) }
    let assembly: GPADLAssembly
    do throws(GPADLFault) {
      assembly = try GPADLAssembly(header, words: words)
      guard gpadls.count < configuration.maximumGPADLs,
        assembly.expected <= configuration.maximumGPADLWords - gpadlWords
      else { throw .limit }
    } catch {
      throw .invalidGPADL(id, error)
    }
    gpadls[id] = ServerGPADL(
      channel: header.channelID, words: assembly.expected, phase: .assembling(assembly))
    gpadlWords += assembly.expected
    return assembly.isComplete ? finishGPADL(id, assembly) : []
  }

  mutating func handleGPADLBody(
    _ id: GPADLID, _ words: [UInt64]
  ) throws(ControlError) -> [ServerAction] {
    // It names no channel, so there is nobody to answer.
    guard var gpadl = gpadls[id] else { throw .unknownGPADL(id) }
    guard case .assembling(var assembly) = gpadl.phase else { throw .invalidGPADLState(id) }
    do throws(GPADLFault) {
      try assembly.append(words)
    } catch {
      throw .invalidGPADL(id, error)
    }
    gpadl.phase = .assembling(assembly)
    gpadls[id] = gpadl
    return assembly.isComplete ? finishGPADL(id, assembly) : []
  }

  private mutating func finishGPADL(
    _ id: GPADLID, _ assembly: GPADLAssembly
  ) -> [ServerAction] {
    guard var gpadl = gpadls[id] else { return [] }
    do throws(GPADLFault) {
      gpadl.ranges = try assembly.ranges()
    } catch {
      removeGPADL(id)
      return created(gpadl.channel, id, .unsuccessful) + [.refused(.invalidGPADL(id, error))]
    }
    // A guest may be in the middle of this when its channel is rescinded; there is no device
    // left to ask.
    let isRevoked = channels[gpadl.channel]?.isRevoked != false
    gpadl.phase = isRevoked ? .accepted : .creating
    gpadls[id] = gpadl
    return isRevoked
      ? created(gpadl.channel, id, .success) : [.createGPADL(gpadl.channel, id)]
  }

  /// A device answers `.createGPADL`.
  public mutating func gpadlCompleted(
    _ id: GPADLID, _ status: ControlStatus
  ) -> [ServerAction] {
    guard var gpadl = gpadls[id] else { return [.refused(.unknownGPADL(id))] }
    guard case .creating = gpadl.phase else { return [.refused(.invalidGPADLState(id))] }
    guard status.isSuccess else {
      removeGPADL(id)
      return (gpadl.isAnswered ? created(gpadl.channel, id, status) : []) + finishReset()
    }
    gpadl.phase = gpadl.isAnswered ? .accepted : .tearingDown
    gpadls[id] = gpadl
    return gpadl.isAnswered
      ? created(gpadl.channel, id, status) : [.tearDownGPADL(gpadl.channel, id)]
  }

  mutating func handleTeardown(_ message: GPADLTeardown) throws(ControlError) -> [ServerAction] {
    let id = message.gpadlID
    guard var gpadl = gpadls[id], gpadl.channel == message.channelID,
      let channel = channels[gpadl.channel]
    else { throw .unknownGPADL(id) }
    guard case .accepted = gpadl.phase else { throw .invalidGPADLState(id) }
    if channel.isRevoked {
      removeGPADL(id)
      return tornDown(id)
    }
    if channel.uses(id) {
      // The guest may ask while the ring is in use, and gets its answer when it no longer is.
      gpadl.phase = .held
      gpadls[id] = gpadl
      return []
    }
    gpadl.phase = .tearingDown
    gpadls[id] = gpadl
    return [.tearDownGPADL(gpadl.channel, id)]
  }

  /// A device answers `.tearDownGPADL`: it no longer touches the memory.
  public mutating func gpadlTornDown(_ id: GPADLID) -> [ServerAction] {
    guard let gpadl = gpadls[id] else { return [.refused(.unknownGPADL(id))] }
    guard case .tearingDown = gpadl.phase else { return [.refused(.invalidGPADLState(id))] }
    removeGPADL(id)
    return (gpadl.isAnswered ? tornDown(id) : []) + finishReset()
  }

  /// Goes on with a teardown that has waited for the channel to let its ring go.
  mutating func letGo(of ring: GPADLID, by channel: ChannelID) -> [ServerAction] {
    guard var gpadl = gpadls[ring], case .held = gpadl.phase,
      channels[channel]?.uses(ring) != true
    else { return [] }
    gpadl.phase = .tearingDown
    gpadls[ring] = gpadl
    return [.tearDownGPADL(channel, ring)]
  }

  /// Answers for a device that is gone: created at once, torn down at once.
  mutating func settleGPADL(_ id: GPADLID, ofRevoked channel: ChannelID) -> [ServerAction] {
    guard var gpadl = gpadls[id] else { return [] }
    switch gpadl.phase {
    case .assembling, .accepted: return []
    case .creating:
      gpadl.phase = .accepted
      gpadls[id] = gpadl
      return created(channel, id, .success)
    case .held, .tearingDown:
      removeGPADL(id)
      return tornDown(id)
    }
  }

  mutating func removeGPADL(_ id: GPADLID) {
    guard let gpadl = gpadls.removeValue(forKey: id) else { return }
    gpadlWords -= gpadl.words
  }

  private mutating func created(
    _ channel: ChannelID, _ id: GPADLID, _ status: ControlStatus
  ) -> [ServerAction] {
    post(
      .gpadlCreated(
        GPADLCreated {
          $0.channelID = channel
          $0.gpadlID = id
          $0.status = status
        }))
  }

  private mutating func tornDown(_ id: GPADLID) -> [ServerAction] {
    post(.gpadlTorndown(GPADLTorndown { $0.gpadlID = id }))
  }

  /// What must hold whatever the guest has sent; nil when it does.
  public func checkInvariants() -> String? {
    if gpadls.count > configuration.maximumGPADLs { return "too many GPADLs" }
    if gpadlWords > configuration.maximumGPADLWords { return "too many GPADL words" }
    if gpadlWords != gpadls.values.reduce(0, { $0 + $1.words }) { return "GPADL words" }
    if goal != nil, connection == nil { return "reset without a connection" }
    for (id, gpadl) in gpadls {
      guard let channel = channels[gpadl.channel] else { return "channel of GPADL \(id)" }
      if case .held = gpadl.phase, !channel.uses(id) { return "GPADL \(id) held" }
      if case .assembling(let assembly) = gpadl.phase, assembly.expected != gpadl.words {
        return "words of GPADL \(id)"
      }
    }
    for (id, channel) in channels {
      if channel.offer.channelID != id || !ChannelID.valid.contains(id) {
        return "channel id \(id)"
      }
      if channel.isAnnounced, !areOffersRequested { return "\(id) announced" }
      if channel.isRevoked, !channel.isAnnounced || channel.phase != .closed {
        return "\(id) revoked"
      }
      switch channel.phase {
      case .closed: break
      case .opening(let request, _), .open(let request), .closing(let request, _):
        if connection == nil { return "\(id) open without a guest" }
        switch gpadls[request.ring]?.phase {
        case .accepted, .held: break
        default: return "ring of \(id)"
        }
      }
    }
    if connection == nil, !gpadls.isEmpty || areOffersRequested || isPaused {
      return "left over from a guest"
    }
    if !isPaused, !heldMessages.isEmpty { return "messages held back" }
    return nil
  }
}
