// SPDX-License-Identifier: Apache-2.0

public import VSC

/// What a driver needs of a PCI function. It does not know which transport it is on: VFIO, or a simulated
/// device in another process.
///
/// The calls come from any thread, before or after the data path, never on it: that works with
/// `PCIRegisters` and DMA memory alone.
public protocol PCIFunction: AnyObject, Sendable {
  var identity: PCIIdentity { get }

  /// What else can be told of the function, for people, in the order in which they read it.
  var properties: [DeviceProperty] { get }

  /// Why the function can't be opened as things are; nil when it can.
  var obstacle: DeviceObstacle? { get }

  /// Takes the function for this process. All that follows needs it; before it nothing of the function
  /// was touched. Bus mastering and interrupts are off then.
  func open() async throws(PCIError)

  /// Maps the registers of a memory BAR, all of it or as much as the system lets be mapped from its start.
  /// Asked again, it gives the same mapping.
  ///
  /// - Parameter index: 0 to 5.
  func registers(ofBAR index: Int) throws(PCIError) -> PCIRegisters

  /// Reads the configuration space, little-endian.
  ///
  /// - Parameters:
  ///   - offset: a multiple of `width`.
  ///   - width: 1, 2 or 4 bytes.
  func readConfiguration(at offset: Int, width: Int) throws(PCIError) -> UInt32

  func writeConfiguration(_ value: UInt32, at offset: Int, width: Int) throws(PCIError)

  /// Lets the function start transfers by itself (DMA, and message signalled interrupts, which are writes
  /// too), or stops it from doing so. When it is off and this has returned, what was under way has ended.
  func setBusMastering(_ isOn: Bool) throws(PCIError)

  /// A function-level reset: registers, queues and interrupts are as after power-on, bus mastering is off,
  /// and no transfer is under way. The mapped registers and the DMA memory stay.
  func reset() async throws(PCIError)

  /// Interrupt vectors that can be enabled: MSI-X, or 1 for MSI.
  var vectorCount: Int { get }

  /// Enables one vector for each worker, from vector 0 on, in place of those that were: its interrupt
  /// wakes the worker, which then polls all that is attached to it. An interrupt that comes while the
  /// worker polls costs it nothing but one look the next time it would sleep. A worker may be there more
  /// than once. None disables all.
  func enableInterrupts(_ workers: [Worker]) throws(PCIError)

  /// Zeroed memory that the function can reach from now on. `pageNumbers` are those of its own addresses
  /// (IOVA): what a driver tells the device is `pageNumber << 12`, in one stretch where the memory has
  /// at most 2 MiB.
  ///
  /// It stays until `close`, whoever drops it before, and is free when the device is known to be quiet
  /// (law 3); that holds for a killed process too.
  ///
  /// - Parameters:
  ///   - memory: what the driver can use. A function is outside of the machine's trust, so that only
  ///     host-visible memory can be had, and where the machine is isolated `isScrubbed` says so: data is
  ///     bounced.
  ///   - byteCount: rounded up to a multiple of 4096.
  ///   - access: what the device may do with it; an IOMMU keeps it to that.
  func allocate(
    _ memory: MemoryVisibility, byteCount: Int, _ access: PCIAccess
  ) throws(PCIError) -> DMAPages

  /// How the function ended, or nil while it has not: `rescinded` when it was taken away or its removal
  /// was asked for, `hostGone` when its device died. From then on its registers read as all ones where
  /// the mapping lives, and nobody is killed by touching them (SIGBUS).
  var endReason: ChannelEnd? { get }

  /// Returns when the function is gone, or its removal was asked for (close it soon then, the system
  /// waits for that), or the caller's task is cancelled (`closed`).
  func ended() async -> ChannelEnd

  /// Bus mastering off, interrupts off, reset where the function can; then the memory is given back, and
  /// the function too. The driver has let go of its queues before.
  func close() async
}

extension PCIFunction {
  public var properties: [DeviceProperty] { [] }
  public var obstacle: DeviceObstacle? { nil }
}

/// What a device may do with memory.
public enum PCIAccess: Sendable, Hashable {
  case read, write, readWrite
}

/// Where PCI functions are found.
public protocol PCIBus: Sendable {
  /// For people.
  var name: String { get }

  /// The functions that are there for drivers of this framework, by address, whether they can be used or
  /// not.
  var functions: [any PCIFunction] { get throws(PCIError) }

  /// Leaves the bus. The functions are closed before.
  func disconnect() async
}

extension PCIBus {
  public func disconnect() async {}
}

extension PCIFunction {
  /// A pool of DMA memory for the worker of one queue.
  ///
  /// - Parameters:
  ///   - count: buffers of the largest size that there is room for.
  ///   - byteCount: of the largest buffer; rounded up to a multiple of 4096.
  public func makePool<Memory: Visibility>(
    of memory: Memory.Type = Memory.self, count: Int, byteCount: Int,
    _ access: PCIAccess = .readWrite
  ) throws(PCIError) -> DMAPool<Memory> {
    guard byteCount <= 1 << 31 - 4096 else {
      throw .transport(.outOfMemory(Memory.memory, byteCount: byteCount))
    }
    let size = (max(byteCount, 1) + 4095) & ~4095
    let (total, overflow) = size.multipliedReportingOverflow(by: max(count, 1))
    guard !overflow else { throw .transport(.outOfMemory(Memory.memory, byteCount: .max)) }
    return DMAPool(try allocate(Memory.memory, byteCount: total, access), bufferByteCount: size)
  }
}
