// SPDX-License-Identifier: Apache-2.0

import NetworkProtocol
import Platform
import SimulatedHost
import SystemPackage
import VMBus

/// A host with one network device, and guests that tests drive by hand.
final class NetworkTestBed {
  let host: SimulatedHost
  let vsp: NetVSP
  let guest: SmallGuest
  static let address = MACAddress("00:15:5d:01:02:03") ?? MACAddress()

  init(
    _ backend: any NetworkBackend = LoopbackBackend(),
    _ configuration: AdapterConfiguration = AdapterConfiguration(), workers: Int = 1,
    faults: [FaultPlan] = []
  ) throws {
    var host = SimulatedHost.Configuration()
    host.workers = (0..<workers).map { .init(name: "vsp-\($0)", spinRounds: 0) }
    self.host = try SimulatedHost(
      path: "/tmp/vmbus-test-netvsp-\(UInt32.random(in: 0 ... .max)).sock", host)
    vsp = NetVSP(
      backend, instance: "5d15c000-0000-4000-8000-0000000e0001", address: Self.address,
      configuration: configuration)
    self.host.add(vsp, faults: faults)
    guest = try SmallGuest(self.host)
  }

  func open(style: NetworkClient.Style = .linux) throws -> NetworkClient {
    try NetworkClient(guest, style)
  }

  func record() throws -> NetworkGuestRecord {
    guard let record = vsp.records.values.first else {
      throw SmallGuest.Failed(reason: "no guest is known")
    }
    return record
  }

  /// Waits until the device knows something of its guest.
  func wait(_ reason: String, _ condition: (NetworkGuestRecord) -> Bool) throws {
    try guest.wait(reason) { _ in self.vsp.records.values.contains(where: condition) }
  }

  deinit { host.stop() }
}

/// Takes nobody.
final class FullBackend: NetworkBackend {
  func connect(address: MACAddress) throws(Errno) -> NetworkAdapter { throw .resourceBusy }
  func recycle(_ adapter: NetworkAdapter) {}
  func open(_ channel: consuming sending NetworkChannel, on worker: Worker) throws(Errno) {
    throw .resourceBusy
  }
}

extension Wire {
  /// An Ethernet frame of another protocol than IP.
  static func frame(
    to destination: MACAddress = NetworkTestBed.address, from source: UInt8 = 9,
    byteCount: Int = 64, fill: UInt8 = 0xA5
  ) -> [UInt8] {
    destination.wireBytes + [2, 0, 0, 0, 0, source, 0x88, 0xB5]
      + [UInt8](repeating: fill, count: byteCount - 14)
  }
}
