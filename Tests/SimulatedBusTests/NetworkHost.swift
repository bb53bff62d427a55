// SPDX-License-Identifier: Apache-2.0

import NetworkProtocol
import SimulatedHost
import VMBus

/// A device of the host.
func makeNetVSP(
  _ backend: any NetworkBackend, instance: GUID, queues: Int, mtu: Int, flags: OfferFlags
) -> NetVSP {
  var configuration = AdapterConfiguration()
  configuration.maximumQueues = queues
  configuration.mtu = mtu
  return NetVSP(
    backend, instance: instance, address: MACAddress("02:15:5d:01:02:03") ?? MACAddress(),
    configuration: configuration, flags: flags)
}
