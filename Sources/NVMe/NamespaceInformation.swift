// SPDX-License-Identifier: Apache-2.0

import BlockStorage
import NVMeProtocol
import VMBus

extension DiskInformation {
  /// What a namespace is, of what the controller says of both; or why it can't be used.
  ///
  /// - Parameters:
  ///   - identifier: of the namespace.
  ///   - maximumTransfer: bytes that this driver moves at once.
  package init(
    _ controller: NVMeControllerData, _ namespace: NVMeNamespaceData, identifier: UInt32,
    maximumTransfer: Int
  ) throws(StorageError) {
    // One that is not there, or not active, is all zeros.
    guard namespace.size > 0 else { throw .noNamespace(identifier) }
    guard let format = namespace.blockFormat, format.power < 32 else {
      throw .unusableGeometry(lastBlock: namespace.size &- 1, blockSize: 0)
    }
    guard format.metadata == 0, namespace.protection & 7 == 0 else {
      throw .unusableController("its namespace has metadata")
    }
    self.init()
    product = controller.model.text
    revision = controller.firmware.text
    serial = controller.serial.text
    protocolName = "\(controller.version)"
    var limit = min(maximumTransfer, 65536 << Int(min(format.power, 12)))
    // Of the smallest page, which is 4096 bytes here.
    if 1...20 ~= controller.maximumTransfer {
      limit = min(limit, 4096 << controller.maximumTransfer)
    }
    geometry = try DiskGeometry(
      lastBlock: namespace.size &- 1, blockSize: 1 << UInt32(format.power),
      maximumTransfer: max(limit, 4096))
    let block = geometry.blockByteCount
    if namespace.hasGranularities {
      let physical = (Int(namespace.writeGranularity) + 1) * block
      if physical <= 1 << 20, physical & (physical - 1) == 0 {
        geometry.physicalBlockByteCount = physical
      }
      provisioning.unmapGranularity = UInt32(namespace.deallocationGranularity) + 1
    }
    let optimal = Int(namespace.optimalBoundary) * block
    if optimal <= geometry.maximumTransferByteCount { geometry.optimalTransferByteCount = optimal }
    isReadOnly = namespace.isWriteProtected
    supportsForcedWrites = true
    hasWriteCache = controller.hasWriteCache
    isRotating = false
    provisioning.isThin = namespace.isThin
    provisioning.canUnmap = controller.hasDatasetManagement
    provisioning.readsZeros = namespace.readsZeros
    provisioning.canFill = controller.hasWriteZeroes
    provisioning.canFillByUnmap = controller.hasWriteZeroes && namespace.zeroesByDeallocation
    // The field for the number of blocks has 16 bits.
    provisioning.maximumFillBlockCount = 65536
  }
}
