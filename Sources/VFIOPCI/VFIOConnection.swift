// SPDX-License-Identifier: Apache-2.0

import CLinux
import CVFIO
import LinuxDevices
import PCIFunction
import Platform
import SystemPackage
import VMBus
import VSC

/// A function that was opened, by whichever way: its descriptor, and what its addresses mean.
///
/// The function's descriptor is the highest one: of a killed process's files it is released first, and
/// bus mastering is off after that (law 3).
final class VFIOConnection: Sendable {
  // Released in this order.
  private let device: OwnedDescriptor
  let space: any VFIOAddressSpace
  private let group: OwnedDescriptor?

  var descriptor: Int32 { device.rawValue }

  private init(
    _ device: consuming OwnedDescriptor, _ space: any VFIOAddressSpace,
    group: consuming OwnedDescriptor? = nil
  ) {
    self.device = device
    self.space = space
    self.group = group
  }

  /// Gives the function back to the kernel, whoever still has this object.
  func close() {
    device.hollow()
    switch group {
    case .some(let group): group.hollow()
    case .none: break
    }
  }

  /// Blocks while the kernel resets the function.
  static func open(
    _ record: PCIRecord, _ way: VFIOWay, _ paths: SystemPaths, _ pageMap: PageMap?
  ) throws(TransportError) -> VFIOConnection {
    let node = record.node(way, paths)
    switch way {
    case .file: return try openFile(node, paths, isPhysical: false)
    case .unguardedFile: return try openFile(node, paths, isPhysical: true)
    case .group: return try openGroup(node, record, paths, kind: UInt(VMBUS_VFIO_TYPE1V2), nil)
    case .unguardedGroup:
      guard let pageMap else {
        throw .notPermitted(
          path: "/proc/self/pagemap", need: "a process without privileges can't read it")
      }
      return try openGroup(node, record, paths, kind: UInt(VMBUS_VFIO_NOIOMMU), pageMap)
    }
  }

  private static func opened(
    _ path: String, _ lowest: Int32 = 3
  ) throws(TransportError) -> OwnedDescriptor {
    let descriptor = unsafe vmbus_open_device(path, lowest)
    if descriptor == -EMFILE {
      throw .unusable(
        reason: "the limit on open files is below \(lowest + 1): raise it (ulimit -n)")
    }
    guard descriptor >= 0 else { throw VFIOCall.openFailed(path, -descriptor) }
    return OwnedDescriptor(owning: descriptor)
  }

  private static func openFile(
    _ node: String, _ paths: SystemPaths, isPhysical: Bool
  ) throws(TransportError) -> VFIOConnection {
    let iommufd = try opened("\(paths.devices)/iommu")
    let device = try opened(node, DeviceFile.lowestDescriptor)
    let bound = vmbus_vfio_bind(device.rawValue, iommufd.rawValue)
    guard bound >= 0 else { throw VFIOCall.openFailed(node, -bound) }
    let space = try IOMMUFDSpace(iommufd, device: device.rawValue, isPhysical: isPhysical)
    return VFIOConnection(device, space)
  }

  /// - Parameter pageMap: for a group without an IOMMU.
  private static func openGroup(
    _ node: String, _ record: PCIRecord, _ paths: SystemPaths, kind: UInt, _ pageMap: PageMap?
  ) throws(TransportError) -> VFIOConnection {
    let container = try opened("\(paths.devices)/vfio/vfio")
    guard try VFIOCall.check("VFIO_CHECK_EXTENSION", vmbus_vfio_knows(container.rawValue, kind)) > 0
    else {
      throw .unusable(
        reason: "\(paths.devices)/vfio/vfio has no such IOMMU: load vfio_iommu_type1, "
          + "or allow no-IOMMU mode")
    }
    let group = try opened(node)
    guard
      try VFIOCall.check("VFIO_GROUP_GET_STATUS", vmbus_vfio_group_is_viable(group.rawValue)) > 0
    else {
      throw .unusable(reason: "\(node): functions of the group have other drivers")
    }
    try VFIOCall.check(
      "VFIO_GROUP_SET_CONTAINER", vmbus_vfio_set_container(group.rawValue, container.rawValue))
    try VFIOCall.attached(vmbus_vfio_set_iommu(container.rawValue, kind))
    let descriptor = unsafe vmbus_vfio_device(
      group.rawValue, record.address.description, DeviceFile.lowestDescriptor)
    guard descriptor >= 0 else { throw VFIOCall.openFailed(node, -descriptor) }
    let device = OwnedDescriptor(owning: descriptor)
    if let pageMap {
      return VFIOConnection(device, PhysicalSpace(container, pageMap), group: group)
    }
    return VFIOConnection(device, try ContainerSpace(container), group: group)
  }
}
