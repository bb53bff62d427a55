// SPDX-License-Identifier: Apache-2.0

import CLinux
public import PCIFunction
import Platform
import SimulatedLink
import Synchronization
import SystemPackage
import VMBus
public import VSC

/// A simulated PCI function in another process, reached over a Unix socket: registers in a memory file,
/// interrupts as eventfds, and for DMA only the memory that it was given.
public final class SimulatedFunction: PCIFunction {
  public struct Configuration: Sendable {
    /// What the host sees is not the rest of this machine's memory: data is bounced, and what was seen
    /// is scrubbed.
    public var isIsolated: Bool
    /// Bytes of DMA memory, at most.
    public var memoryByteCount: Int

    public init(isIsolated: Bool = false, memoryByteCount: Int = 256 << 20) {
      self.isIsolated = isIsolated
      self.memoryByteCount = memoryByteCount
    }
  }

  private struct State {
    var isOpen = false
    var registers: PCIRegisters?
    /// Interrupts by vector, and the workers that watch them.
    var interrupts: [(worker: Worker, event: Interrupt)] = []
    var nextAddress: UInt64 = 1 << 32
    var allocated = 0
  }

  public let identity: PCIIdentity
  public let vectorCount: Int
  private let link: FunctionLink
  private let configuration: Configuration
  private let life = DeviceLife()
  private let state = Lock(State())
  private let bar: SharedRegisters
  /// Learns when the device's process is gone.
  private let watcher: Worker

  /// Joins the device that listens at a path.
  public init(path: String, _ configuration: Configuration = .init()) throws(PCIError) {
    do throws(Errno) {
      let link = FunctionLink(try PacketSocket(connectingTo: path))
      self.link = link
      let message = try link.call(.attach, [])
      let body = Array(message.bytes.dropFirst(PCILinkAnswer.byteCount))
      guard let function = try? PCILinkFunction(parsing: body),
        let descriptor = message.takeDescriptor(0), 4096...1 << 24 ~= function.registerByteCount
      else { throw .protocolError }
      let file = try MemoryFile(received: descriptor)
      guard file.byteCount >= Int(function.registerByteCount) else { throw .protocolError }
      let bar = try SharedRegisters(file.map(), byteCount: Int(function.registerByteCount))
      identity = PCIIdentity(
        address: PCIAddress(
          bus: function.bus, device: function.slot >> 3, function: function.slot & 7),
        vendor: function.vendor, device: function.device, classCode: function.classCode,
        revision: function.revision, transport: "simulated device")
      vectorCount = Int(function.vectorCount)
      self.bar = bar
      watcher = try Worker(.init(name: "pci", spinRounds: 0))
    } catch {
      throw .transport(.system("join", code: error.rawValue, text: "\(path): \(error)"))
    }
    self.configuration = configuration
    let (life, bar, link) = (life, bar, link)
    watcher.watch(link.descriptor, hangUpOnly: true) { [weak watcher] in
      // A function that was taken away reads as all ones; a device that died leaves what it had.
      life.end(bar.isAllOnes ? .rescinded : .hostGone)
      watcher?.unwatch(link.descriptor)
    }
  }

  public func open() async throws(PCIError) {
    let wasOpen = state.withLock { state in
      defer { state.isOpen = true }
      return state.isOpen
    }
    if wasOpen { throw .transport(.alreadyOpen) }
    if let end = life.reason { throw .ended(end) }
  }

  private func checkOpen() throws(PCIError) {
    if let end = life.reason { throw .ended(end) }
    guard state.withLock({ $0.isOpen }) else { throw .notOpen }
  }

  @discardableResult
  private func call(
    _ call: PCILinkCall, _ body: [UInt8], descriptors: [Int32] = []
  ) throws(PCIError) -> SocketMessage {
    do throws(Errno) {
      return try link.call(call, body, descriptors: descriptors)
    } catch {
      if let end = life.reason { throw .ended(end) }
      throw .transport(.system("PCI link", code: error.rawValue, text: "\(error)"))
    }
  }

  // MARK: - Registers and configuration

  public func registers(ofBAR index: Int) throws(PCIError) -> PCIRegisters {
    try checkOpen()
    guard index == 0 else { throw .noBAR(index) }
    return unsafe PCIRegisters(start: bar.start, byteCount: bar.byteCount, owner: bar)
  }

  public func readConfiguration(at offset: Int, width: Int) throws(PCIError) -> UInt32 {
    let register = try configurationRegister(offset, width)
    let message = try call(.readConfiguration, register.wireBytes)
    let body = Array(message.bytes.dropFirst(PCILinkAnswer.byteCount))
    return (try? PCILinkConfiguration(parsing: body))?.value ?? .max
  }

  public func writeConfiguration(_ value: UInt32, at offset: Int, width: Int) throws(PCIError) {
    var register = try configurationRegister(offset, width)
    register.value = value
    try call(.writeConfiguration, register.wireBytes)
  }

  private func configurationRegister(
    _ offset: Int, _ width: Int
  ) throws(PCIError) -> PCILinkConfiguration {
    try checkOpen()
    guard [1, 2, 4].contains(width), offset >= 0, offset <= 4096 - width, offset % width == 0 else {
      throw .badAccess(offset: offset, byteCount: width, limit: 4096)
    }
    return PCILinkConfiguration(offset: UInt32(offset), width: UInt32(width))
  }

  /// Bit 2 of the command register.
  public func setBusMastering(_ isOn: Bool) throws(PCIError) {
    let command = try readConfiguration(at: 4, width: 2)
    try writeConfiguration(isOn ? command | 4 : command & ~4, at: 4, width: 2)
  }

  public func reset() async throws(PCIError) {
    try checkOpen()
    try call(.reset, [])
  }

  // MARK: - Interrupts

  private final class Interrupt: Sendable {
    let event: EventDescriptor
    init() throws(Errno) { event = try EventDescriptor() }
  }

  public func enableInterrupts(_ workers: [Worker]) throws(PCIError) {
    try checkOpen()
    guard workers.count <= vectorCount else {
      throw .noVectors(asked: workers.count, available: vectorCount)
    }
    var made: [(worker: Worker, event: Interrupt)] = []
    do throws(Errno) {
      for worker in workers { made.append((worker, try Interrupt())) }
    } catch {
      throw .transport(.system("eventfd", code: error.rawValue, text: "\(error)"))
    }
    for (worker, interrupt) in made {
      worker.watch(interrupt.event.rawValue) { interrupt.event.drain() }
    }
    let old = state.withLock { state in
      defer { state.interrupts = made }
      return state.interrupts
    }
    defer { for (worker, interrupt) in old { worker.unwatch(interrupt.event.rawValue) } }
    try call(.setInterrupts, [], descriptors: made.map { $0.event.event.rawValue })
  }

  // MARK: - Memory

  public func allocate(
    _ memory: MemoryVisibility, byteCount: Int, _ access: PCIAccess
  ) throws(PCIError) -> DMAPages {
    try checkOpen()
    guard memory == .hostVisible else { throw .transport(.noSuchMemory(memory)) }
    let count = (min(max(byteCount, 1), 1 << 40) + 4095) & ~4095
    let limit = configuration.memoryByteCount
    let address = state.withLock { state -> UInt64? in
      guard count <= limit - state.allocated else { return nil }
      defer {
        // A page between two windows: running out of one is running into nothing.
        state.nextAddress += UInt64(count) + 4096
        state.allocated += count
      }
      return state.nextAddress
    }
    guard let address else { throw .transport(.outOfMemory(memory, byteCount: count)) }
    let window: DMAWindow
    do throws(Errno) {
      window = try DMAWindow(address: address, byteCount: count)
    } catch {
      throw .transport(.system("memfd", code: error.rawValue, text: "\(error)"))
    }
    let bits: UInt32 =
      switch access {
      case .read: 1
      case .write: 2
      case .readWrite: 3
      }
    try call(
      .map, PCILinkWindow(address: address, byteCount: UInt64(count), access: bits).wireBytes,
      descriptors: [window.file.owned.rawValue])
    life.keep(window)
    // Safe: the window has the mapping and the numbers, and stays as it is.
    return unsafe DMAPages(
      start: window.memory.start, byteCount: count, pageNumbers: window.numbers,
      isScrubbed: configuration.isIsolated, owner: window)
  }

  // MARK: - The end

  public var endReason: ChannelEnd? { life.reason }

  public func ended() async -> ChannelEnd { await life.ended() }

  public func close() async {
    if life.reason == nil {
      // The answer to the reset says that no transfer is under way.
      try? setBusMastering(false)
      _ = try? link.call(.reset, [])
    }
    life.end(.closed)
    link.shutDown()
    let interrupts = state.withLock { state in
      defer { state.interrupts = [] }
      return state.interrupts
    }
    for (worker, interrupt) in interrupts { worker.unwatch(interrupt.event.rawValue) }
    watcher.stop()
    _ = await life.close()
  }
}

/// The registers, mapped for as long as somebody has them.
@safe
private final class SharedRegisters: Sendable {
  private let memory: MappedMemory
  let byteCount: Int

  init(_ memory: consuming MappedMemory, byteCount: Int) {
    self.memory = memory
    self.byteCount = byteCount
  }

  var start: UnsafeMutableRawPointer { unsafe memory.start }

  var isAllOnes: Bool { unsafe vmbus_read64(start) == .max }
}

/// Memory that the device may reach: a memory file, so that it outlives this process for as long as the
/// device has it.
@safe
private final class DMAWindow: @unchecked Sendable {
  let file: MemoryFile
  let memory: MappedMemory
  let numbers: UnsafeMutablePointer<GPN>

  init(address: UInt64, byteCount: Int) throws(Errno) {
    let file = try MemoryFile(name: "pci-dma", byteCount: byteCount)
    memory = try file.map()
    self.file = file
    let pages = byteCount / 4096
    unsafe numbers = .allocate(capacity: pages)
    for page in 0..<pages {
      unsafe (numbers + page).initialize(to: address >> 12 + UInt64(page))
    }
  }

  deinit { unsafe numbers.deallocate() }
}

/// The driver's end of the link.
private final class FunctionLink: Sendable {
  private let socket: Lock<PacketSocket>
  let descriptor: Int32

  init(_ connected: consuming PacketSocket) {
    _ = vmbus_set_receive_timeout(connected.rawValue, 30)
    descriptor = connected.rawValue
    socket = Lock(connected)
  }

  func shutDown() { socket.withLock { $0.shutDown() } }

  /// One call and its answer.
  func call(
    _ call: PCILinkCall, _ body: [UInt8], descriptors: [Int32] = []
  ) throws(Errno) -> SocketMessage {
    var header = LinkHeader()
    header.call = call.rawValue
    let bytes = header.wireBytes + body
    let received = try socket.withLock { socket throws(Errno) -> SocketMessage? in
      do throws(Errno) {
        try socket.send(bytes, descriptors: descriptors)
        return try socket.receive()
      } catch {
        // A late answer would be taken for the next call's.
        socket.shutDown()
        throw error
      }
    }
    guard let received, let answer = try? PCILinkAnswer(parsing: received.bytes) else {
      throw .connectionReset
    }
    guard answer.error == 0 else { throw Errno(rawValue: Int32(truncatingIfNeeded: answer.error)) }
    return received
  }
}
