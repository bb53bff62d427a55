// SPDX-License-Identifier: Apache-2.0

public import Platform
public import StorageProtocol
import Synchronization
public import VMBus

/// A SCSI controller that guests can be offered. Disks can come and go while guests use it.
public final class StorVSP: VSP {
  let core: SCSICore
  public let offer: OfferChannel
  private let newestVersion: StorageVersion
  private let maximumSubchannels: UInt16
  private let guests = Lock(Guests())

  /// Each guest by its number, and each open channel by a number of ours.
  private struct Guests {
    var nexuses: [Int: SCSINexus] = [:]
    var servers: [Int: WorkerHandle<StorVSPServer>] = [:]
    var opened = 0
  }

  /// - Parameters:
  ///   - instance: the device's GUID, which guests see and keep.
  ///   - flags: the confidential flags, which only guests on a confidential connection see.
  ///   - newestVersion: the newest that is accepted; others are answered with REVISION_MISMATCH.
  ///   - maximumSubchannels: how many each guest may ask for.
  public init(
    _ controller: consuming SCSIController, instance: GUID, flags: OfferFlags = [],
    newestVersion: StorageVersion = .windows81, maximumSubchannels: UInt16 = 0
  ) {
    core = controller.core
    self.newestVersion = newestVersion
    self.maximumSubchannels = maximumSubchannels
    var offer = OfferChannel()
    offer.interfaceID = DeviceClass.scsi.guid
    offer.instanceID = instance
    offer.flags = flags.union(.enumerateDeviceInterface)
    self.offer = offer
  }

  public func open(_ channel: consuming sending HostChannel, on worker: Worker) {
    let (guest, isPrimary) = (channel.guest, channel.subchannelIndex == 0)
    let (number, nexus) = guests.withLock { guests in
      guests.opened += 1
      // A primary channel is a new beginning. A subchannel without one is never ready.
      let nexus = isPrimary ? SCSINexus() : guests.nexuses[guest] ?? SCSINexus()
      if isPrimary { guests.nexuses[guest] = nexus }
      return (guests.opened, nexus)
    }
    if isPrimary { core.join(nexus) }
    let session =
      isPrimary
      ? StorVSPSession(newestVersion: newestVersion, maximumSubchannels: maximumSubchannels)
      : .subchannel
    let server = StorVSPServer(
      channel: channel, target: SCSITarget(core, nexus: nexus), session: session,
      announceReset: { [weak self] in self?.releaseHeld() })
    let handle = worker.attach(server) { [weak self] in
      self?.ended(number, guest: guest, nexus: isPrimary ? nexus : nil)
    }
    guests.withLock { $0.servers[number] = handle }
    // A disk that came meanwhile has not found this channel; and the channel's end may have come
    // before its handle was known.
    handle.perform {
      $0.refresh()
    } orElse: { [weak self] in
      self?.guests.withLock { $0.servers[number] = nil }
    }
  }

  private func ended(_ number: Int, guest: Int, nexus: SCSINexus?) {
    guests.withLock { guests in
      guests.servers[number] = nil
      if let nexus, guests.nexuses[guest] === nexus { guests.nexuses[guest] = nil }
    }
    guard let nexus else { return }
    nexus.setReady(nil)
    core.leave(nexus)
  }

  // MARK: - Disks, at any time and from any thread

  /// The disks that are there.
  public var units: [SCSIUnit] { core.listing }

  /// Gives all guests a disk at a LUN, in place of what was there.
  ///
  /// Guests are asked to look at the controller anew (ENUMERATE_BUS). What is under way on a
  /// disk that was there before still ends on it.
  /// - Returns: false, and the disk is closed, if the controller has no such LUN.
  @discardableResult
  public func attach(_ disk: consuming SCSIDisk, lun: Int) -> Bool {
    guard core.attach(LogicalUnit(disk), lun: lun) else { return false }
    tellGuests()
    return true
  }

  /// Takes a disk away from all guests; false if there is none at that LUN.
  @discardableResult
  public func detach(lun: Int) -> Bool {
    guard core.detach(lun: lun) else { return false }
    tellGuests()
    return true
  }

  /// Looks at the images' sizes anew, and tells the guests if one has changed.
  ///
  /// - Returns: whether one has.
  @discardableResult
  public func rescan() -> Bool {
    guard core.rescan() else { return false }
    tellGuests()
    return true
  }

  /// The faults of the disk at `lun`: calls `body` unless there is none.
  public func withFaults(lun: Int, _ body: (borrowing StorageFaults) -> Void) {
    core.withFaults(lun: lun, body)
  }

  /// A reset ends what faults have held, on whichever channel it came.
  private func releaseHeld() {
    for server in guests.withLock({ $0.servers.values }) {
      server.perform { $0.releaseAfterReset() }
    }
  }

  private func tellGuests() {
    for server in guests.withLock({ $0.servers.values }) {
      server.perform {
        $0.refresh()
        $0.announceChange()
      }
    }
  }
}
