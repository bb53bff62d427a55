// SPDX-License-Identifier: Apache-2.0

import Testing

@testable import VSC

@Suite struct DoorbellTests {
  private let outgoing = HeapRingMemory(dataByteCount: 4096)
  private let incoming = HeapRingMemory(dataByteCount: 4096)
  /// The module's status page.
  private let statusPage = HeapRingMemory(dataByteCount: 4096)

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

  /// A channel of a module that has no such file: its signals go nowhere.
  private func moduleChannel() throws -> Channel<HostVisible, HostVisible> {
    let status = try unsafe #require(statusPage.bytes.baseAddress)
    return try channel(
      unsafe .moduleFile(ModuleSignal(descriptor: -1, channel: 3, status: status)))
  }

  @Test func aModulesDoorbellUnmasksNothing() throws {
    var channel = try moduleChannel()
    mask = 0
    channel.flush()
    #expect(mask == 0)
  }

  /// The module says so before it takes memory away: what was written since then is not published.
  @Test func nothingIsPublishedWhenMemoryIsLost() throws {
    var channel = try moduleChannel()
    let payload: [UInt8] = [1, 2, 3, 4, 5, 6, 7, 8]
    unsafe try channel.send(payload.span.bytes)
    channel.flush()
    // The outgoing ring's write index, at byte 0 of its control page.
    let published = unsafe outgoing.bytes.load(as: UInt32.self)
    let before = channel.ended
    #expect(published > 0 && before == nil)
    unsafe statusPage.bytes.storeBytes(of: 1, as: UInt32.self)
    unsafe try channel.send(payload.span.bytes)
    channel.flush()
    let (lost, ended) = (channel.hasLostMemory, channel.ended)
    #expect(lost && ended == .rescinded)
    #expect(unsafe outgoing.bytes.load(as: UInt32.self) == published)
  }

  /// A packet that was copied while the rings were taken away is none; and a ring that reads as anything is
  /// no corruption then.
  @Test(arguments: [false, true]) func nothingIsReceivedFromLostRings(_ isCorrupt: Bool) throws {
    var channel = try moduleChannel()
    // One packet of 24 bytes with its trailer: in-band, header and packet in units of 8 bytes.
    unsafe incoming.bytes.storeBytes(of: 0x0003_0002_0006, toByteOffset: 4096, as: UInt64.self)
    unsafe incoming.bytes.storeBytes(of: isCorrupt ? 3 : 32, as: UInt32.self)
    unsafe statusPage.bytes.storeBytes(of: 1, as: UInt32.self)
    let error: ChannelError?
    do throws(ChannelError) {
      _ = try channel.receive()
      error = nil
    } catch let found {
      error = found
    }
    let corrupt = channel.counters.corrupt
    #expect(error == .ended(.rescinded) && corrupt == 0)
  }
}
