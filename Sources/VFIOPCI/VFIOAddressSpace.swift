// SPDX-License-Identifier: Apache-2.0

import CVFIO
import LinuxDevices
import PCIFunction
import Platform
import Synchronization
import SystemPackage
import VMBus
import VSC

/// What a function's addresses mean: through an IOMMU what was mapped there, without one the machine's own
/// physical addresses.
protocol VFIOAddressSpace: AnyObject, Sendable {
  /// Memory that the function can reach from now on.
  ///
  /// - Parameter byteCount: a multiple of 4096.
  func map(byteCount: Int, _ access: PCIAccess) throws(TransportError) -> VFIOMemory

  /// Takes memory from the function, for good.
  ///
  /// - Returns: whether that was done.
  func unmap(_ memory: VFIOMemory) -> Bool

  /// Whether an IOMMU keeps the function from what is not mapped.
  var isGuarded: Bool { get }
}

/// A type 1 IOMMU, with the group of the function.
final class ContainerSpace: VFIOAddressSpace {
  private let container: OwnedDescriptor
  private let addresses: Lock<AddressAllocator>

  init(_ container: consuming OwnedDescriptor) throws(TransportError) {
    addresses = Lock(
      AddressAllocator(
        try unsafe Self.ranges { ranges, capacity in
          unsafe vmbus_vfio_ranges(container.rawValue, ranges, capacity)
        }))
    self.container = container
  }

  /// What a call tells of the addresses that can be mapped.
  static func ranges(
    _ call: (UnsafeMutablePointer<vmbus_vfio_range>, Int32) -> Int32
  ) throws(TransportError) -> [ClosedRange<UInt64>] {
    var ranges = [vmbus_vfio_range](repeating: vmbus_vfio_range(), count: 32)
    let count = unsafe ranges.withUnsafeMutableBufferPointer { buffer in
      unsafe call(buffer.baseAddress.unsafelyUnwrapped, Int32(buffer.count))
    }
    guard count >= 0 else { throw VFIOCall.failed("VFIO addresses", -count) }
    return ranges.prefix(Int(count)).compactMap { $0.first <= $0.last ? $0.first...$0.last : nil }
  }

  func map(byteCount: Int, _ access: PCIAccess) throws(TransportError) -> VFIOMemory {
    let memory = try VFIOMemory.Pages(byteCount: byteCount)
    guard let address = addresses.withLock({ $0.take(byteCount) }) else {
      throw .outOfMemory(.hostVisible, byteCount: byteCount)
    }
    let result = unsafe vmbus_vfio_map(
      container.rawValue, memory.mapping.start, UInt64(byteCount), address, access.reads,
      access.writes)
    guard result == 0 else { throw VFIOCall.mapFailed(byteCount, -result) }
    return VFIOMemory(memory, at: address)
  }

  func unmap(_ memory: VFIOMemory) -> Bool {
    vmbus_vfio_unmap(container.rawValue, memory.address, UInt64(memory.byteCount)) == 0
  }

  var isGuarded: Bool { true }
}

/// An address space of iommufd. For a function without an IOMMU it does nothing but keep memory where it
/// is, and tell where that is.
final class IOMMUFDSpace: VFIOAddressSpace {
  private let iommufd: OwnedDescriptor
  private let space: UInt32
  private let isPhysical: Bool
  private let addresses: Lock<AddressAllocator>

  /// - Parameter device: is bound to the iommufd; it is attached to the space.
  init(
    _ iommufd: consuming OwnedDescriptor, device: Int32, isPhysical: Bool
  ) throws(TransportError) {
    var space: UInt32 = 0
    try VFIOCall.check("IOMMU_IOAS_ALLOC", unsafe vmbus_ioas_alloc(iommufd.rawValue, &space))
    try VFIOCall.attached(vmbus_vfio_attach(device, space))
    let descriptor = iommufd.rawValue
    addresses = Lock(
      AddressAllocator(
        try unsafe ContainerSpace.ranges { ranges, capacity in
          unsafe vmbus_ioas_ranges(descriptor, space, ranges, UInt32(capacity))
        }))
    self.iommufd = iommufd
    self.space = space
    self.isPhysical = isPhysical
  }

  func map(byteCount: Int, _ access: PCIAccess) throws(TransportError) -> VFIOMemory {
    let memory =
      isPhysical
      ? try VFIOMemory.Pages(hugeByteCount: byteCount)
      : try VFIOMemory.Pages(byteCount: byteCount)
    let mappedCount = memory.mapping.byteCount
    guard let address = addresses.withLock({ $0.take(mappedCount) }) else {
      throw .outOfMemory(.hostVisible, byteCount: byteCount)
    }
    let result = unsafe vmbus_ioas_map(
      iommufd.rawValue, space, memory.mapping.start, UInt64(mappedCount), address, access.reads,
      access.writes)
    guard result == 0 else { throw VFIOCall.mapFailed(byteCount, -result) }
    guard isPhysical else { return VFIOMemory(memory, at: address) }
    return VFIOMemory(memory, at: address, physical: try physical(address, mappedCount))
  }

  /// Where each huge page lies.
  private func physical(
    _ address: UInt64, _ byteCount: Int
  ) throws(TransportError) -> [UInt64] {
    var places: [UInt64] = []
    for offset in stride(from: 0, to: byteCount, by: HugePageFile.pageByteCount) {
      var count = UInt64(HugePageFile.pageByteCount)
      var place: UInt64 = 0
      try VFIOCall.check(
        "IOMMU_IOAS_NOIOMMU_GET_PA",
        unsafe vmbus_ioas_physical(
          iommufd.rawValue, space, address + UInt64(offset), &count, &place))
      guard count >= HugePageFile.pageByteCount, place & 4095 == 0 else {
        throw .unusable(reason: "the kernel tells of a huge page that lies in pieces")
      }
      places.append(place)
    }
    return places
  }

  func unmap(_ memory: VFIOMemory) -> Bool {
    vmbus_ioas_unmap(
      iommufd.rawValue, space, memory.address, UInt64(memory.mappedByteCount)) >= 0
  }

  var isGuarded: Bool { !isPhysical }
}

/// The machine's physical memory, for a group without an IOMMU.
final class PhysicalSpace: VFIOAddressSpace {
  private let container: OwnedDescriptor
  private let pageMap: PageMap

  init(_ container: consuming OwnedDescriptor, _ pageMap: PageMap) {
    self.container = container
    self.pageMap = pageMap
  }

  func map(byteCount: Int, _ access: PCIAccess) throws(TransportError) -> VFIOMemory {
    VFIOMemory(try PhysicalMemory(byteCount: byteCount, pageMap), byteCount: byteCount)
  }

  func unmap(_ memory: VFIOMemory) -> Bool { true }

  var isGuarded: Bool { false }
}

extension PCIAccess {
  var reads: Bool { self != .write }
  var writes: Bool { self != .read }
}

/// Hands out addresses, each once: a function's memory goes as a whole, when it is closed.
struct AddressAllocator {
  private var free: [ClosedRange<UInt64>]

  /// Where kernels do not tell what can be mapped.
  private static let usual: [ClosedRange<UInt64>] = [
    0...0xFEDF_FFFF, 0xFEF0_0000...(1 << 39 - 1),
  ]
  /// Low addresses mean "none" to some devices.
  private static let lowest: UInt64 = 1 << 20

  init(_ ranges: [ClosedRange<UInt64>]) {
    free = (ranges.isEmpty ? Self.usual : ranges).compactMap { range in
      let first = max(range.lowerBound, Self.lowest)
      return first <= range.upperBound ? first...range.upperBound : nil
    }
  }

  /// - Parameter byteCount: a multiple of 4096.
  /// - Returns: on a multiple of 2 MiB where that much is asked for, so that an IOMMU can use large pages.
  mutating func take(_ byteCount: Int) -> UInt64? {
    guard byteCount > 0 else { return nil }
    let alignment: UInt64 = byteCount >= 2 << 20 ? 2 << 20 : 4096
    for index in free.indices {
      let range = free[index]
      let (padded, overflow) = range.lowerBound.addingReportingOverflow(alignment - 1)
      let start = padded & ~(alignment - 1)
      guard !overflow, start <= range.upperBound,
        range.upperBound - start >= UInt64(byteCount) - 1
      else { continue }
      let last = start + (UInt64(byteCount) - 1)
      if last == range.upperBound {
        free.remove(at: index)
      } else {
        free[index] = (last + 1)...range.upperBound
      }
      return start
    }
    return nil
  }
}
