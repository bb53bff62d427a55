// SPDX-License-Identifier: Apache-2.0

import Dispatch
import LinuxDevices
public import PCIFunction
import Platform
import Synchronization
import VMBus
public import VSC

/// A PCI function of this machine, in the hands of the kernel's driver vfio-pci.
public final class VFIOFunction: PCIFunction {
  public let record: PCIRecord
  public let identity: PCIIdentity
  private let machine: VFIOMachine
  private let life = DeviceLife()
  private let state = Lock(State.closed)

  private enum State {
    case closed
    case opening
    case open(VFIODevice)
    /// It was open, and can't be opened again by this object.
    case over
  }

  init(_ record: PCIRecord, on machine: VFIOMachine) {
    self.record = record
    self.machine = machine
    identity = PCIIdentity(
      address: record.address, vendor: record.vendor, device: record.device,
      classCode: record.classCode, revision: record.revision,
      transport: Self.place(record, machine))
  }

  private static func place(_ record: PCIRecord, _ machine: VFIOMachine) -> String {
    switch try? record.way(machine.wantedWay, machine.paths) {
    case .file: "VFIO device \(record.file ?? "?")"
    case .group: "VFIO group \(record.group?.number ?? -1)"
    case .unguardedFile: "VFIO device \(record.file ?? "?"), no IOMMU"
    case .unguardedGroup: "VFIO group noiommu-\(record.group?.number ?? -1), no IOMMU"
    case nil: "PCI"
    }
  }

  public var properties: [DeviceProperty] {
    var properties = [DeviceProperty("driver", record.driver ?? "none")]
    if let group = record.group {
      properties.append(DeviceProperty("IOMMU group", group.isMadeUp ? "none" : "\(group.number)"))
    }
    let ways = record.ways(machine.paths).map(\.rawValue)
    properties.append(
      DeviceProperty("VFIO", ways.isEmpty ? "not offered" : ways.joined(separator: ", ")))
    return properties
  }

  public var obstacle: DeviceObstacle? {
    do throws(VFIOObstacle) {
      _ = try record.way(machine.wantedWay, machine.paths)
      return nil
    } catch {
      return error.forPeople
    }
  }

  // MARK: - Opening

  public func open() async throws(PCIError) {
    let mayOpen = state.withLock { state in
      guard case .closed = state else { return false }
      state = .opening
      return true
    }
    guard mayOpen else { throw .transport(.alreadyOpen) }
    // Opening resets the function, which is nothing for a thread that tasks share.
    let result = await Self.apart { [self] () throws(PCIError) in try opened() }
    state.withLock { state in
      if case .success(let device) = result { state = .open(device) } else { state = .closed }
    }
    _ = try result.get()
  }

  /// What was true when the function was found may have changed: it is looked at again.
  private func opened() throws(PCIError) -> VFIODevice {
    guard let now = try? PCIRecord(record.address, machine.paths) else { throw .ended(.rescinded) }
    let way: VFIOWay
    do throws(VFIOObstacle) {
      way = try now.way(machine.wantedWay, machine.paths)
    } catch {
      throw .transport(.unusable(reason: "\(error.forPeople)"))
    }
    return try VFIODevice(try connect(now, way), life)
  }

  private func connect(
    _ now: PCIRecord, _ way: VFIOWay
  ) throws(PCIError) -> VFIOConnection {
    do throws(TransportError) {
      return try VFIOConnection.open(now, way, machine.paths, machine.pageMap)
    } catch {
      throw .transport(error)
    }
  }

  /// Runs what blocks outside of the threads that tasks share.
  private static func apart<Value: Sendable>(
    _ body: @escaping @Sendable () throws(PCIError) -> Value
  ) async -> Result<Value, PCIError> {
    await withCheckedContinuation { continuation in
      DispatchQueue.global().async { continuation.resume(returning: Result(catching: body)) }
    }
  }

  private func device() throws(PCIError) -> VFIODevice {
    try state.withLock { state throws(PCIError) in
      guard case .open(let device) = state else { throw .notOpen }
      return device
    }
  }

  // MARK: - What an open function has

  public func registers(ofBAR index: Int) throws(PCIError) -> PCIRegisters {
    try device().registers(ofBAR: index)
  }

  public func readConfiguration(at offset: Int, width: Int) throws(PCIError) -> UInt32 {
    try device().configuration.read(at: offset, width: width)
  }

  public func writeConfiguration(
    _ value: UInt32, at offset: Int, width: Int
  ) throws(PCIError) {
    try device().configuration.write(value, at: offset, width: width)
  }

  public func setBusMastering(_ isOn: Bool) throws(PCIError) {
    try device().configuration.setBusMastering(isOn)
  }

  public func reset() async throws(PCIError) {
    let device = try device()
    try await Self.apart { () throws(PCIError) in try device.reset() }.get()
  }

  public var vectorCount: Int { (try? device())?.interrupts.count ?? 0 }

  public func enableInterrupts(_ workers: [Worker]) throws(PCIError) {
    try device().interrupts.enable(workers)
  }

  public func allocate(
    _ memory: MemoryVisibility, byteCount: Int, _ access: PCIAccess
  ) throws(PCIError) -> DMAPages {
    let device = try device()
    guard memory == .hostVisible else { throw .transport(.noSuchMemory(memory)) }
    guard !machine.isIsolated else {
      throw .transport(
        .unusable(
          reason:
            "this machine is or may be isolated, and there a stock kernel gives user space no host-visible memory"
        ))
    }
    let (padded, overflow) = max(byteCount, 1).addingReportingOverflow(4095)
    guard !overflow else { throw .transport(.outOfMemory(memory, byteCount: byteCount)) }
    return try device.allocate(byteCount: padded & ~4095, access).pages(isScrubbed: false)
  }

  // MARK: - The end

  public var endReason: ChannelEnd? {
    if let reason = life.reason { return reason }
    guard let device = try? device(), device.isGone else { return nil }
    life.end(.rescinded)
    return life.reason
  }

  public func ended() async -> ChannelEnd { await life.ended() }

  public func close() async {
    let device = state.withLock { state -> VFIODevice? in
      guard case .open(let device) = state else { return nil }
      state = .over
      return device
    }
    guard let device else { return }
    _ = await Self.apart { () throws(PCIError) in device.shutDown() }
    life.end(.closed)
  }
}
