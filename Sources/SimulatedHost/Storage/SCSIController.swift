// SPDX-License-Identifier: Apache-2.0

import StorageProtocol
import VMBus

/// The disks behind one storage device, and the commands that are for none of them.
///
/// Disks come before the device is offered, or at any time through `StorVSP`.
public struct SCSIController: ~Copyable, Sendable {
  /// The host serves LUNs 0 to 63 of path 0, target 0.
  public static let maximumDisks = 64

  let core: SCSICore
  /// Whoever calls `execute` here, who was told of the power on.
  private let nexus = SCSINexus()

  /// - Parameter maximumTransferBytes: bytes that one command may move.
  public init(maximumTransferBytes: UInt32 = 0x40000) {
    core = SCSICore(maximumTransferBytes: maximumTransferBytes)
    core.join(nexus, isPoweredOn: false)
  }

  public var maximumTransferBytes: UInt32 { core.maximumTransferBytes }

  /// Puts a disk at a LUN in place of what was there; false, and the disk is closed, if the
  /// controller has no such LUN.
  public mutating func attach(_ disk: consuming SCSIDisk, lun: Int) -> Bool {
    let isAttached = core.attach(LogicalUnit(disk), lun: lun)
    nexus.clear(units: .max)
    return isAttached
  }

  /// The faults of the disk at `lun`: calls `body` unless there is none.
  public func withFaults(lun: Int, _ body: (borrowing StorageFaults) -> Void) {
    core.withFaults(lun: lun, body)
  }

  /// The disks, for listings.
  public var units: [SCSIUnit] { core.listing }

  /// A guest comes: each unit has its power on to tell it, and changes from then on.
  public func join(_ nexus: SCSINexus) { core.join(nexus) }

  /// Executes a request and turns it into its completion, as a guest without a channel.
  public func execute<Data: ExternalData & ~Copyable & ~Escapable>(
    _ request: inout SCSIRequest, version: StorageVersion, data: inout Data
  ) {
    SCSITarget(self, nexus: nexus).execute(&request, version: version, data: &data)
  }
}

extension SCSICore {
  func withFaults(lun: Int, _ body: (borrowing StorageFaults) -> Void) {
    let units = units
    guard units.indices.contains(lun), let unit = units[lun] else { return }
    body(unit.disk.faults)
  }

  var listing: [SCSIUnit] {
    units.enumerated().compactMap { lun, unit in
      unit.map { SCSIUnit(lun: lun, $0.disk) }
    }
  }
}

/// A disk of a controller, as listings show it.
public struct SCSIUnit: Equatable, Sendable {
  public let lun: Int
  public let name: String
  public let byteCount: UInt64
  /// Bytes.
  public let blockSize: Int
  public let isReadOnly: Bool

  init(lun: Int, _ disk: borrowing SCSIDisk) {
    self.lun = lun
    name = disk.image.name
    byteCount = disk.image.byteCount
    blockSize = disk.blockSize.rawValue
    isReadOnly = disk.image.isReadOnly
  }
}
