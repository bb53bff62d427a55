// SPDX-License-Identifier: Apache-2.0

import NetworkProtocol
import Platform
import SimulatedHost
import VMBus

/// A host with one network device, and guests that tests drive by hand.
final class NetworkTestBed {
  let host: SimulatedHost
  let vsp: NetVSP
  let guest: SmallGuest
  static let address = MACAddress("00:15:5d:01:02:03") ?? MACAddress()

  init(
    _ backend: any NetworkBackend = LoopbackBackend(),
    _ configuration: NetworkConfiguration = NetworkConfiguration(), workers: Int = 1,
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

/// Bytes of the wire, little-endian, as tests write them down.
enum Wire {
  static func words(_ values: UInt32...) -> [UInt8] { words(values) }
  static func words(_ values: [UInt32]) -> [UInt8] {
    var bytes: [UInt8] = []
    for value in values { bytes.append(little: value) }
    return bytes
  }

  static func word(_ bytes: [UInt8], _ offset: Int) -> UInt32 {
    guard offset + 4 <= bytes.count else { return 0xDEAD_BEEF }
    return (0..<4).reduce(0) { $0 | UInt32(bytes[offset + $1]) << UInt32(8 * $1) }
  }

  /// A NVSP message, filled up to the size of its version.
  static func nvsp(_ values: UInt32..., size: Int = 40) -> [UInt8] {
    let bytes = words(values)
    return bytes + [UInt8](repeating: 0, count: max(size - bytes.count, 0))
  }

  /// A RNDIS control message.
  static func rndis(_ type: UInt32, _ body: [UInt8]) -> [UInt8] {
    words(type, UInt32(8 + body.count)) + body
  }

  static func query(_ id: UInt32, _ oid: UInt32, _ buffer: [UInt8] = []) -> [UInt8] {
    rndis(4, words(id, oid, UInt32(buffer.count), buffer.isEmpty ? 0 : 20, 0) + buffer)
  }

  static func set(_ id: UInt32, _ oid: UInt32, _ buffer: [UInt8]) -> [UInt8] {
    rndis(5, words(id, oid, UInt32(buffer.count), 20, 0) + buffer)
  }

  /// A data message, with the frame right behind its info.
  static func packet(_ frame: [UInt8], info: [UInt8] = []) -> [UInt8] {
    words(
      1, UInt32(44 + info.count + frame.count), UInt32(36 + info.count), UInt32(frame.count), 0,
      0, 0, info.isEmpty ? 0 : 36, UInt32(info.count), 0, 0) + info + frame
  }

  /// One element of per-packet info.
  static func info(_ type: UInt32, _ value: UInt32) -> [UInt8] { words(16, type, 12, value) }

  /// An Ethernet frame of another protocol than IP.
  static func frame(
    to destination: MACAddress = NetworkTestBed.address, from source: UInt8 = 9,
    byteCount: Int = 64, fill: UInt8 = 0xA5
  ) -> [UInt8] {
    destination.wireBytes + [2, 0, 0, 0, 0, source, 0x88, 0xB5]
      + [UInt8](repeating: fill, count: byteCount - 14)
  }
}
