// SPDX-License-Identifier: Apache-2.0

import Platform
import Synchronization
import VMBus

/// The subchannels that the host offers for one device, by their index, and those who wait for one.
final class SubchannelOffers: Sendable {
  private struct State {
    var offers: [UInt16: OfferChannel] = [:]
    var waiting: [UInt16: [Promise<OfferChannel?>]] = [:]
    var isOver = false
  }

  private let state = Lock(State())

  func add(_ offer: OfferChannel) {
    let waiting = state.withLock { state in
      state.offers[offer.subchannelIndex] = offer
      return state.waiting.removeValue(forKey: offer.subchannelIndex) ?? []
    }
    for promise in waiting { promise.keep(offer) }
  }

  func remove(_ channel: ChannelID) {
    state.withLock { state in
      state.offers = state.offers.filter { $0.value.channelID != channel }
    }
  }

  /// The device is gone: nobody waits any more.
  func end() {
    let waiting = state.withLock { state in
      state.isOver = true
      let waiting = state.waiting.values.flatMap(\.self)
      state.waiting = [:]
      return waiting
    }
    for promise in waiting { promise.keep(nil) }
  }

  /// The offer of that index, or nil when it has not come within the time, or the device is gone.
  func offer(_ index: UInt16, withinSeconds seconds: Int) async -> OfferChannel? {
    let promise = Promise<OfferChannel?>()
    let isKnown = state.withLock { state in
      if let offer = state.offers[index] {
        promise.keep(offer)
        return true
      }
      if state.isOver {
        promise.keep(nil)
        return true
      }
      state.waiting[index, default: []].append(promise)
      return false
    }
    let timer = Task {
      guard !isKnown else { return }
      try await Task.sleep(for: .seconds(seconds))
      promise.keep(nil)
    }
    defer { timer.cancel() }
    return await promise.value()
  }
}
