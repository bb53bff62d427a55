// SPDX-License-Identifier: Apache-2.0

import Testing

@testable import VSC

@Suite struct DoorbellTests {
  private let outgoing = HeapRingMemory(dataByteCount: 4096)
  private let incoming = HeapRingMemory(dataByteCount: 4096)

  private func channel(_ doorbell: Doorbell) throws -> Channel<HostVisible, HostVisible> {
    try Channel(
      unsafe RawChannel(
        confidentiality: .hostVisible, outgoing: outgoing.end(), incoming: incoming.end(),
        doorbell: doorbell, state: ChannelState()),
      ChannelParameters())
  }

  /// The incoming ring's interrupt mask, at byte 8 of its control page.
  private var mask: UInt32 {
    get { unsafe incoming.bytes.load(fromByteOffset: 8, as: UInt32.self) }
    nonmutating set {
      unsafe incoming.bytes.storeBytes(of: newValue, toByteOffset: 8, as: UInt32.self)
    }
  }

  @Test func aPollingChannelMasksAgainWhatADeviceFileHasUnmasked() throws {
    var channel = try channel(.deviceFile(descriptor: -1))
    #expect(mask == 1)
    mask = 0
    channel.flush()
    #expect(mask == 1)
  }

  @Test func anArmedChannelStaysUnmasked() throws {
    var channel = try channel(.deviceFile(descriptor: -1))
    let hasWork = channel.arm()
    #expect(!hasWork && mask == 0)
    channel.flush()
    #expect(mask == 0)
    channel.disarm()
    #expect(mask == 1)
  }

  @Test func anEventDoorbellUnmasksNothing() throws {
    var channel = try channel(.event(descriptor: -1))
    mask = 0
    channel.flush()
    #expect(mask == 0)
  }

  /// `trigger_group[4]` starts at byte 8, 8 bytes each, pending first (Linux, hyperv-tlfs.h).
  @Test(arguments: [(0, 8, 1 as UInt32), (31, 8, 1 << 31), (32, 16, 1), (127, 32, 1 << 31)])
  func aMonitorDoorbellSetsItsBit(_ monitor: UInt8, _ offset: Int, _ bit: UInt32) throws {
    let page = HeapRingMemory(dataByteCount: 4096)
    let neighbours: UInt32 = 0x0100_0010
    unsafe page.bytes.storeBytes(of: neighbours, toByteOffset: offset, as: UInt32.self)
    let id = try #require(MonitorID(monitor))
    let start = try unsafe #require(page.bytes.baseAddress)
    var channel = try channel(unsafe .monitor(MonitorTrigger(page: start, monitor: id)))
    let payload: [UInt8] = [1, 2, 3, 4, 5, 6, 7, 8]
    unsafe try channel.send(payload.span.bytes)
    #expect(unsafe page.bytes.load(fromByteOffset: offset, as: UInt32.self) == neighbours)
    channel.flush()
    #expect(unsafe page.bytes.load(fromByteOffset: offset, as: UInt32.self) == neighbours | bit)
    #expect(channel.counters.doorbells == 1)
  }
}
