// SPDX-License-Identifier: Apache-2.0

import Platform
import SimulatedHost
import Synchronization

/// The host's devices of one kind, as they are taken back and offered again.
final class DeviceOffers: Sendable {
  private let host: SimulatedHost
  private let devices: [HostDevice]
  private let offered: Lock<[Int: SimulatedHost.DeviceID]>

  /// - Parameter first: the place of the first one among all devices of the host, which has offered
  ///   them.
  init(_ host: SimulatedHost, _ devices: [HostDevice], first: Int) {
    self.host = host
    self.devices = devices
    var offered: [Int: SimulatedHost.DeviceID] = [:]
    for index in devices.indices { offered[index] = host.devices[first + index] }
    self.offered = Lock(offered)
  }

  /// Takes a device back from all guests; nothing happens when it is not offered.
  func rescind(_ index: Int) {
    guard let device = offered.withLock({ $0.removeValue(forKey: index) }) else { return }
    host.revoke(device)
  }

  /// Offers a device that was taken back.
  func offer(_ index: Int) {
    offered.withLock { offered in
      guard offered[index] == nil else { return }
      offered[index] = host.add(devices[index])
    }
  }
}
