// SPDX-License-Identifier: Apache-2.0

import CLinux
import CVFIO
import LinuxDevices
import PCIFunction
import Platform
import Synchronization
import SystemPackage
import VMBus
import VSC

/// An open function. It is given back when `shutDown` has returned, or when the last one drops it.
final class VFIODevice: Sendable {
  private let connection: VFIOConnection
  let configuration: PCIConfiguration
  let canReset: Bool
  let interrupts: VFIOInterrupts
  private let state = Lock(State())

  private struct State {
    var bars: [Int: MappedBAR] = [:]
    var memory: [VFIOMemory] = []
    var events: [VFIOEvent] = []
    var isOver = false
  }

  /// Blocks while the kernel resets the function.
  init(_ connection: VFIOConnection, _ life: DeviceLife) throws(PCIError) {
    let descriptor = connection.descriptor
    self.connection = connection
    do throws(TransportError) {
      canReset = try VFIOCall.check("VFIO_DEVICE_GET_INFO", vmbus_vfio_can_reset(descriptor)) > 0
      let region = try Self.region(descriptor, VMBUS_VFIO_CONFIG_REGION)
      configuration = PCIConfiguration(
        descriptor: descriptor, offset: region.offset, byteCount: Int(clamping: region.size))
    } catch {
      throw .transport(error)
    }
    interrupts = VFIOInterrupts(descriptor)
    try configuration.setBusMastering(false)
    let events = [
      VFIOEvent(descriptor, VMBUS_VFIO_REQUEST) { life.end(.rescinded) },
      VFIOEvent(descriptor, VMBUS_VFIO_ERROR) { life.end(.hostGone) },
    ]
    state.withLock { $0.events = events.compactMap { $0 } }
  }

  deinit { shutDown() }

  private static func region(
    _ descriptor: Int32, _ index: UInt32
  ) throws(TransportError) -> vmbus_vfio_region {
    var region = vmbus_vfio_region()
    try VFIOCall.check(
      "VFIO_DEVICE_GET_REGION_INFO", unsafe vmbus_vfio_region(descriptor, index, &region))
    return region
  }

  // MARK: - Registers

  func registers(ofBAR index: Int) throws(PCIError) -> PCIRegisters {
    guard 0..<6 ~= index else { throw .noBAR(index) }
    return try state.withLock { state throws(PCIError) in
      if state.isOver { throw .notOpen }
      if let bar = state.bars[index] { return bar.registers }
      let bar = try map(index)
      state.bars[index] = bar
      return bar.registers
    }
  }

  private func map(_ index: Int) throws(PCIError) -> MappedBAR {
    let region: vmbus_vfio_region
    do throws(TransportError) {
      region = try Self.region(connection.descriptor, UInt32(index))
    } catch {
      throw .transport(error)
    }
    let count = Int(clamping: region.mappable) & ~(SystemPage.byteCount - 1)
    guard count > 0, let offset = Int(exactly: region.offset) else { throw .noBAR(index) }
    do throws(Errno) {
      return try MappedBAR(
        connection.descriptor, offset: offset, byteCount: count, reason: .rescinded)
    } catch {
      throw .transport(.system("map of a BAR", code: error.rawValue, text: "\(error)"))
    }
  }

  /// Whether an access to registers has failed, or nobody answers any more.
  var isGone: Bool {
    state.withLock { state in state.bars.values.contains { $0.end != nil } }
      || configuration.isGone
  }

  // MARK: - Memory

  func allocate(byteCount: Int, _ access: PCIAccess) throws(PCIError) -> VFIOMemory {
    do throws(TransportError) {
      let memory = try connection.space.map(byteCount: byteCount, access)
      let isOver = state.withLock { state in
        if !state.isOver { state.memory.append(memory) }
        return state.isOver
      }
      if isOver { throw .rescinded }
      return memory
    } catch {
      throw .transport(error)
    }
  }

  // MARK: - Reset and the end

  /// Blocks until the function has been reset, with bus mastering off.
  func reset() throws(PCIError) {
    guard canReset else { throw .noReset }
    try interrupts.disable()
    // The kernel restores what was on before.
    try configuration.setBusMastering(false)
    let result = vmbus_vfio_reset(connection.descriptor)
    guard result >= 0 else { throw .transport(VFIOCall.failed("VFIO_DEVICE_RESET", -result)) }
  }

  /// Makes the function quiet, then gives back what it had. Blocks while it is reset.
  func shutDown() {
    let isFirst = state.withLock { state in
      defer { state.isOver = true }
      return !state.isOver
    }
    guard isFirst else { return }
    try? interrupts.disable()
    let isQuiet: Bool
    do throws(PCIError) {
      try configuration.setBusMastering(false)
      isQuiet = true
    } catch {
      isQuiet = false
    }
    if isQuiet && canReset { _ = vmbus_vfio_reset(connection.descriptor) }
    let (bars, memory) = state.withLock { state in
      let parts = (Array(state.bars.values), state.memory)
      state.bars = [:]
      state.memory = []
      state.events = []
      return parts
    }
    for bar in bars { bar.revoke() }
    giveBack(memory, isQuiet: isQuiet)
    connection.close()
  }

  /// What a function may still reach stays out of use for as long as this process lives; after that the
  /// kernel turns its bus mastering off before it frees anything.
  private func giveBack(_ memory: [VFIOMemory], isQuiet: Bool) {
    guard isQuiet || connection.space.isGuarded else {
      if !memory.isEmpty { VFIOMemory.keepForEver(memory, of: connection.space) }
      return
    }
    let left = memory.filter { !connection.space.unmap($0) }
    if !left.isEmpty { VFIOMemory.keepForEver(left, of: connection.space) }
  }
}
