// SPDX-License-Identifier: Apache-2.0

public import Platform
import StorageProtocol
public import VMBus

/// A SCSI controller that guests can be offered.
public final class StorVSP: VSP {
  let controller: SCSIController
  public let offer: OfferChannel
  private let newestVersion: StorageVersion

  /// - Parameters:
  ///   - instance: the device's GUID, which guests see and keep.
  ///   - flags: the confidential flags, which only guests on a confidential connection see.
  public init(
    _ controller: consuming SCSIController, instance: GUID, flags: OfferFlags = [],
    newestVersion: StorageVersion = .windows81
  ) {
    self.controller = controller
    self.newestVersion = newestVersion
    var offer = OfferChannel()
    offer.interfaceID = DeviceClass.scsi.guid
    offer.instanceID = instance
    offer.flags = flags.union(.enumerateDeviceInterface)
    self.offer = offer
  }

  public func open(_ channel: consuming sending HostChannel, on worker: Worker) {
    _ = worker.attach(
      StorVSPServer(
        channel: channel, vsp: self, session: StorVSPSession(newestVersion: newestVersion)))
  }
}

/// One guest's channel to a storage device.
struct StorVSPServer: Pollable, ~Copyable {
  private var channel: HostChannel
  private let vsp: StorVSP
  private var session: StorVSPSession
  private var completion = StorVSPSession.Completion(repeating: 0)
  private var waitsForRoom = false

  init(channel: consuming HostChannel, vsp: StorVSP, session: StorVSPSession) {
    self.channel = channel
    self.vsp = vsp
    self.session = session
  }

  mutating func poll(budget: Int) -> Int? {
    if channel.isClosed { return nil }
    var work = 0
    do {
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
        controller: vsp.controller, completion: &completion)
    } else {
      var data = NoExternalData()
      result = try session.handle(
        channel.payload(of: packet), isTransactional: packet.completionRequested, data: &data,
        controller: vsp.controller, completion: &completion)
    }
    let bytes = completion.span
    try channel.sendCompletion(
      unsafe bytes.bytes.extracting(first: result.byteCount), transactionID: packet.transactionID)
  }

  mutating func arm() -> Bool {
    channel.arm(untilRoomFor: waitsForRoom ? completion.count : nil)
  }

  mutating func disarm() { channel.disarm() }

  var nextDeadline: UInt64 { channel.nextDeadline }

  mutating func expire(now: UInt64) {
    // A corrupt ring is found by the next poll.
    try? channel.releaseHeld(now: now)
    channel.flush()
  }
}
