// SPDX-License-Identifier: Apache-2.0

import Synchronization

/// The life of a device, as each transport keeps it: which channels are open, how it ended, who waits
/// for that, and which memory it was given.
public final class DeviceLife: Sendable {
  private struct State {
    /// Channels that are being opened, and how they have ended meanwhile.
    var opening: [ChannelID: ChannelEnd?] = [:]
    var channels: [ChannelID: ChannelState] = [:]
    var end: ChannelEnd?
    /// Those who wait for the end.
    var ending: [Promise<ChannelEnd>] = []
    /// Those who wait until all channels are closed for good.
    var closing: [CheckedContinuation<Void, Never>] = []
    var memory: [any AnyObject & Sendable] = []

    var isClosed: Bool { channels.isEmpty && opening.isEmpty }
  }

  private let state = Lock(State())

  public init() {}

  /// The channels that are open now.
  public var openChannels: [ChannelID] { state.withLock { $0.channels.keys.sorted() } }

  /// Opens a channel with `open`, unless it is open already or the device is gone. What ends the
  /// device meanwhile ends the channel too.
  public func opening<Opened: ChannelState>(
    _ id: ChannelID, _ open: () async throws(TransportError) -> Opened
  ) async throws(TransportError) -> Opened {
    let refusal = state.withLock { state -> TransportError? in
      if let end = state.end { return end == .rescinded ? .rescinded : .hostGone }
      if state.channels[id] != nil || state.opening[id] != nil { return .alreadyOpen }
      state.opening.updateValue(nil, forKey: id)
      return nil
    }
    if let refusal { throw refusal }
    let channel: Opened
    do throws(TransportError) {
      channel = try await open()
    } catch {
      settle { $0.opening[id] = nil }
      throw error
    }
    let end = state.withLock { state -> ChannelEnd? in
      let own = state.opening.removeValue(forKey: id) ?? nil
      state.channels[id] = channel
      return state.end ?? own
    }
    if let end { channel.end(end) }
    return channel
  }

  /// The driver has let go of a channel. If that was because the primary channel has ended by
  /// itself, there is nobody left who drives the device: it ends as well.
  public func released(_ state: ChannelState, isPrimary: Bool) {
    guard isPrimary, let reason = state.ended, reason != .closed else { return }
    end(reason)
  }

  /// A channel is closed, and nobody uses its memory any more.
  public func closed(_ id: ChannelID) { settle { $0.channels[id] = nil } }

  /// The device is gone: all its channels end, and those who wait learn it. The first reason stays.
  ///
  /// - Returns: whether a channel was open.
  @discardableResult
  public func end(_ reason: ChannelEnd) -> Bool {
    let (channels, waiting) = state.withLock { state in
      if state.end == nil { state.end = reason }
      let waiting = state.ending
      state.ending = []
      return (Array(state.channels.values), waiting)
    }
    for promise in waiting { promise.keep(reason) }
    for channel in channels { channel.end(reason) }
    return !channels.isEmpty
  }

  /// One channel is gone, and the device is not.
  ///
  /// - Returns: whether it was open.
  @discardableResult
  public func end(_ id: ChannelID, _ reason: ChannelEnd) -> Bool {
    let (channel, isOpening) = state.withLock { state in
      let isOpening = state.opening[id] != nil
      if isOpening { state.opening.updateValue(reason, forKey: id) }
      return (state.channels[id], isOpening)
    }
    channel?.end(reason)
    return channel != nil || isOpening
  }

  /// How the device ended, or nil while it has not.
  public var reason: ChannelEnd? { state.withLock { $0.end } }

  /// Returns when the device is gone, or the caller's task is cancelled (`closed`).
  public func ended() async -> ChannelEnd {
    let promise = Promise<ChannelEnd>()
    let end = state.withLock { state in
      if state.end == nil { state.ending.append(promise) }
      return state.end
    }
    if let end { return end }
    return await withTaskCancellationHandler {
      await promise.value()
    } onCancel: {
      promise.keep(.closed)
    }
  }

  /// Keeps memory that the device was given, until `close`.
  public func keep(_ memory: any AnyObject & Sendable) {
    state.withLock { $0.memory.append(memory) }
  }

  /// Returns when all channels are closed (whoever drives them must have been dropped), with the
  /// memory that the device was given: nobody uses it any more.
  public func close() async -> [any AnyObject & Sendable] {
    await withCheckedContinuation { continuation in
      let isClosed = state.withLock { state in
        if !state.isClosed { state.closing.append(continuation) }
        return state.isClosed
      }
      if isClosed { continuation.resume() }
    }
    return state.withLock { state in
      let memory = state.memory
      state.memory = []
      return memory
    }
  }

  private func settle(_ change: (inout State) -> Void) {
    let waiting = state.withLock { state -> [CheckedContinuation<Void, Never>] in
      change(&state)
      guard state.isClosed else { return [] }
      let waiting = state.closing
      state.closing = []
      return waiting
    }
    for continuation in waiting { continuation.resume() }
  }
}
