// SPDX-License-Identifier: Apache-2.0

public import Platform
import Synchronization
public import VMBus

/// A device that completes each packet with the packet's own payload: the other end of an author's first
/// driver (`Examples/EchoVSC`).
public final class EchoVSP: VSP {
  private let openCount = Atomic<Int>(0)
  private let instance: GUID
  private let flags: OfferFlags

  public init(
    flags: OfferFlags = [], instance: GUID = "8d1f6a2e-59a6-4a4f-93b7-5f60c0e1a002"
  ) {
    self.flags = flags
    self.instance = instance
  }

  /// Channels that guests have open now.
  public var openChannels: Int { openCount.load(ordering: .sequentiallyConsistent) }

  public var offer: OfferChannel {
    var offer = OfferChannel()
    offer.interfaceID = "8d1f6a2e-59a6-4a4f-93b7-5f60c0e1a001"
    offer.instanceID = instance
    offer.flags = flags
    return offer
  }

  public func open(_ channel: consuming sending HostChannel, on worker: Worker) {
    openCount.add(1, ordering: .sequentiallyConsistent)
    _ = worker.attach(Server(channel: channel)) {
      self.openCount.subtract(1, ordering: .sequentiallyConsistent)
    }
  }

  private struct Server: Pollable, ~Copyable {
    var channel: HostChannel

    mutating func poll(budget: Int) -> Int? {
      var work = 0
      do {
        while work < budget, let packet = try channel.receive() {
          let bytes = unsafe channel.payload(of: packet).withUnsafeBytes { unsafe [UInt8]($0) }
          try channel.sendCompletion(unsafe bytes.span.bytes, transactionID: packet.transactionID)
          work += 1
        }
      } catch {
        return nil
      }
      channel.flush()
      return work == 0 && channel.isClosed ? nil : work
    }

    mutating func arm() -> Bool { channel.arm() }
    mutating func disarm() { channel.disarm() }
  }
}
