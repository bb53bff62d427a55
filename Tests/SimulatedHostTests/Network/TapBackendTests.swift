// SPDX-License-Identifier: Apache-2.0

import NetworkProtocol
import PacketIO
import SimulatedHost
import Testing

/// A TAP device with four queues, where one can be had.
private func makeDevice() -> TapDevice? {
  try? TapDevice(name: "vt" + String(UInt32.random(in: 0...UInt32.max), radix: 36), queueCount: 4)
}

@Suite(.serialized, .timeLimit(.minutes(2)), .enabled(if: makeDevice() != nil, "no TAP device"))
struct TapBackendTests {
  /// The stack spreads its frames over all queues that the device has: those that no channel reads would
  /// swallow them.
  @Test func theDeviceHasQueuesForOpenChannelsOnly() throws {
    let device = try #require(makeDevice())
    let bed = try NetworkTestBed(
      TapBackend(device), NetVSPQueuesTests.configuration(queues: 4), workers: 2)
    #expect(device.queueCount == 1)
    // The same guest opens three channels, and then one.
    for subchannels in [2, 0] {
      var client = try bed.open()
      try client.start()
      if subchannels > 0 {
        let ids = try NetVSPQueuesTests.openSubchannels(subchannels, of: &client, bed)
        let first = try bed.guest.open(ids[0])
        let second = try bed.guest.open(ids[1])
        #expect(try client.next().payload.first == 134)
        #expect(device.queueCount == 3)
        try bed.guest.close(client.channel)
        _ = (first.id, second.id)
        try bed.guest.wait("has lost its subchannels") { $0.offers.count == 1 }
        for id in ids { try bed.guest.release(id) }
      } else {
        #expect(device.queueCount == 1)
        try bed.guest.close(client.channel)
      }
    }
    #expect(bed.host.refusals == 0)
  }
}
