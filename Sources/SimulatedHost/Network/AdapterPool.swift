// SPDX-License-Identifier: Apache-2.0

import NetworkProtocol
import Platform
import Synchronization

/// The adapters of a backend. Those of guests that have gone are used again: whoever sends at that
/// moment may still have the address of one, so none goes before the backend does.
final class AdapterPool: Sendable {
  private let state = Lock(State())
  private let queueCapacity: Int

  private struct State {
    var all: [NetworkAdapter] = []
    var free: [NetworkAdapter] = []
  }

  /// - Parameter queueCapacity: a power of two of frames that wait for each channel, at most.
  init(queueCapacity: Int = 512) { self.queueCapacity = queueCapacity }

  func take(_ address: MACAddress) -> NetworkAdapter {
    let capacity = queueCapacity
    let adapter = state.withLock { state in
      if let adapter = state.free.popLast() { return adapter }
      let adapter = NetworkAdapter(queueCapacity: capacity)
      state.all.append(adapter)
      return adapter
    }
    adapter.state.setAddress(address)
    adapter.state.setFilter([])
    adapter.state.setScaling(nil)
    adapter.state.setCoalescing(ipv4: false, ipv6: false)
    adapter.state.setLinkUp(true)
    for queue in 0..<AdapterState.maximumQueues {
      adapter.state.publish(NetworkCounters(), of: queue)
    }
    return adapter
  }

  func put(_ adapter: NetworkAdapter) {
    adapter.state.setFilter([])
    state.withLock { $0.free.append(adapter) }
  }
}
