// SPDX-License-Identifier: Apache-2.0

import Platform
import StorageProtocol
import Synchronization

/// A disk at its LUN. It goes, and its image is closed, when no channel has it any more.
final class LogicalUnit: Sendable {
  let disk: SCSIDisk

  init(_ disk: consuming SCSIDisk) { self.disk = disk }
}

/// What a controller's channels share: which disks there are, and which guests. It changes rarely,
/// and each channel keeps a copy of its own (`SCSITarget`), so that no request takes the lock.
final class SCSICore: Sendable {
  let maximumTransferBytes: UInt32

  struct Contents {
    var units = [LogicalUnit?](repeating: nil, count: SCSIController.maximumDisks)
    var nexuses: [ObjectIdentifier: SCSINexus] = [:]

    /// A bit for each LUN that has a disk.
    var present: UInt64 {
      units.indices.reduce(0) { units[$1] == nil ? $0 : $0 | 1 << UInt64($1) }
    }
  }

  private let contents = Lock(Contents())

  init(maximumTransferBytes: UInt32) { self.maximumTransferBytes = maximumTransferBytes }

  var units: [LogicalUnit?] { contents.withLock { $0.units } }

  /// Puts a disk at a LUN. The guests' channels learn it when they `refresh`.
  func attach(_ unit: LogicalUnit, lun: Int) -> Bool {
    contents.withLock { contents in
      guard contents.units.indices.contains(lun) else { return false }
      contents.units[lun] = unit
      let bit = UInt64(1) << UInt64(lun)
      for nexus in contents.nexuses.values {
        nexus.clear(units: bit)
        nexus.establish(.powerOn, units: bit)
        nexus.establish(.inventoryChanged, units: contents.present & ~bit)
      }
      return true
    }
  }

  /// Takes a disk away; false if there is none.
  func detach(lun: Int) -> Bool {
    contents.withLock { contents in
      guard contents.units.indices.contains(lun), contents.units[lun] != nil else { return false }
      contents.units[lun] = nil
      for nexus in contents.nexuses.values {
        nexus.clear(units: UInt64(1) << UInt64(lun))
        nexus.establish(.inventoryChanged, units: contents.present)
      }
      return true
    }
  }

  /// A guest comes: each unit was just powered on, as far as it can tell.
  func join(_ nexus: SCSINexus, isPoweredOn: Bool = true) {
    contents.withLock { contents in
      contents.nexuses[ObjectIdentifier(nexus)] = nexus
      if isPoweredOn { nexus.establish(.powerOn, units: contents.present) }
    }
  }

  func leave(_ nexus: SCSINexus) {
    contents.withLock { $0.nexuses[ObjectIdentifier(nexus)] = nil }
  }

  func establish(_ attention: UnitAttention, units: UInt64, except: SCSINexus? = nil) {
    contents.withLock { contents in
      for nexus in contents.nexuses.values where nexus !== except {
        nexus.establish(attention, units: units & contents.present)
      }
    }
  }

  /// Resets a unit, or all. Every guest is told, the one that asked for it too.
  func reset(lun: UInt8?) {
    for (index, unit) in units.enumerated() where lun == nil || Int(lun ?? 0) == index {
      unit?.disk.reset()
    }
    establish(
      lun == nil ? .busReset : .deviceReset, units: lun.map { SCSINexus.bit($0) } ?? .max)
  }

  /// Looks at the disks' sizes anew; the guests' next commands tell of what has changed.
  ///
  /// - Returns: whether a size has changed.
  func rescan() -> Bool {
    var changed: UInt64 = 0
    for (lun, unit) in units.enumerated() {
      guard let unit else { continue }
      let before = unit.disk.blockCount
      // An image that can't be looked at keeps its size, and its reads will tell.
      if (try? unit.disk.image.refresh()) == true, unit.disk.blockCount != before {
        changed |= 1 << UInt64(lun)
      }
    }
    if changed != 0 { establish(.capacityChanged, units: changed) }
    return changed != 0
  }
}
