// SPDX-License-Identifier: Apache-2.0

import Platform
import StorageProtocol
import VMBus

/// One channel of a guest to a storage device: the primary one or a subchannel.
struct StorVSPServer: Pollable, ~Copyable {
  private var channel: HostChannel
  private var target: SCSITarget
  private var session: StorVSPSession
  private var completion = StorVSPSession.Completion(repeating: 0)
  private var waitsForRoom = false
  /// The guest has yet to be told that the disks have changed.
  private var owesChange = false
  /// What a fault keeps from the guest until a reset, and whether that has come.
  private var held:
    [(transactionID: UInt64, completion: StorVSPSession.Completion, byteCount: Int)] = []
  private var owesHeld = false
  /// Tells all channels of the device that it was reset.
  private let announceReset: @Sendable () -> Void

  init(
    channel: consuming HostChannel, target: consuming SCSITarget, session: StorVSPSession,
    announceReset: @escaping @Sendable () -> Void
  ) {
    self.channel = channel
    self.target = target
    self.session = session
    self.announceReset = announceReset
  }

  mutating func refresh() { target.refresh() }

  mutating func announceChange() { owesChange = true }

  mutating func releaseAfterReset() { owesHeld = !held.isEmpty }

  private var owes: Bool { owesChange || owesHeld }

  mutating func poll(budget: Int) -> Int? {
    if channel.isClosed { return nil }
    var work = 0
    do {
      if owesChange { work += try sendChange() }
      if owesHeld { work += try sendHeld() }
      while work < budget {
        // Room for the answer first: a request that was taken is a request that is answered.
        waitsForRoom = try !channel.hasRoom(forPayload: completion.count)
        guard !waitsForRoom, let packet = try channel.receive() else { break }
        work += 1
        try serve(packet)
      }
    } catch {
      // A corrupt ring, or a guest that breaks the protocol beyond an answer: the device stops, as
      // Hyper-V's does, until the channel is opened again.
      return nil
    }
    channel.flush()
    return work == 0 && channel.isClosed ? nil : work
  }

  private mutating func serve(_ packet: Packet) throws {
    let result: StorVSPSession.Result
    if packet.type == .gpaDirect {
      var data = try channel.externalData(of: packet)
      result = try session.handle(
        channel.payload(of: packet), isTransactional: packet.completionRequested, data: &data,
        target: target, completion: &completion)
    } else {
      var data = NoExternalData()
      result = try session.handle(
        channel.payload(of: packet), isTransactional: packet.completionRequested, data: &data,
        target: target, completion: &completion)
    }
    if result.event == .held {
      held.append((packet.transactionID, completion, result.byteCount))
      return
    }
    let bytes = completion.span
    try channel.sendCompletion(
      unsafe bytes.bytes.extracting(first: result.byteCount), transactionID: packet.transactionID)
    switch result.event {
    case .createSubchannels(let count):
      // The answer first: guests wait for it before they look for offers.
      channel.flush()
      channel.offerSubchannels(count)
    case .reset: announceReset()
    case .none, .ready, .held: break
    }
  }

  private mutating func sendHeld() throws -> Int {
    var count = 0
    while let first = held.first {
      // Without room now, an answer that is taken from the ring wakes us.
      guard try channel.hasRoom(forPayload: first.byteCount) else { return count }
      let bytes = first.completion.span
      try channel.sendCompletion(
        unsafe bytes.bytes.extracting(first: first.byteCount), transactionID: first.transactionID)
      held.removeFirst()
      count += 1
    }
    owesHeld = false
    return count
  }

  /// ENUMERATE_BUS, which nobody answers: the guest is to look for disks again. Versions before 4.2
  /// do not know it, and a guest that is not ready looks anyhow.
  private mutating func sendChange() throws -> Int {
    guard let version = session.version ?? target.nexus.version, version >= .windows7,
      target.nexus.version != nil
    else {
      owesChange = false
      return 0
    }
    let byteCount = version.packetByteCount
    // Without room now, an answer that is taken from the ring wakes us.
    guard try channel.hasRoom(forPayload: byteCount) else { return 0 }
    owesChange = false
    var packet = StorVSPSession.Completion(repeating: 0)
    StoragePacketHeader(.enumerateBus).write(into: &packet)
    let bytes = packet.span
    try channel.send(unsafe bytes.bytes.extracting(first: byteCount))
    return 1
  }

  mutating func arm() -> Bool {
    channel.arm(untilRoomFor: waitsForRoom || owes ? completion.count : nil)
  }

  mutating func disarm() { channel.disarm() }

  var nextDeadline: UInt64 { channel.nextDeadline }

  mutating func expire(now: UInt64) {
    // A corrupt ring is found by the next poll.
    try? channel.releaseHeld(now: now)
    channel.flush()
  }
}
