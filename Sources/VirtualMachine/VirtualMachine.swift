// SPDX-License-Identifier: Apache-2.0

import CKVM
public import Logging
import Platform
import SimulatedLink
import Synchronization
import SystemPackage

/// A virtual machine on KVM that runs a Linux kernel, on Microsoft's hypervisor as far as the kernel
/// can tell, as a guest of a simulated host.
public final class VirtualMachine: Sendable {
  public struct Configuration: Sendable {
    public var kernel: BootImage
    public var initrd: [UInt8] = []
    public var commandLine = "console=ttyS0"
    /// A multiple of 4096.
    public var memoryByteCount = 512 << 20
    /// 1 to 16.
    public var processorCount = 1
    /// The socket of the host whose guest it is; nil for none.
    public var hostPath: String?
    public var isolation = GuestIsolation.off
    /// Takes what the guest writes to its console, on a thread of the machine.
    public var console: @Sendable ([UInt8]) -> Void = { _ in }
    public var logger = Logger(label: "vmbus-vm")

    public init(kernel: BootImage) { self.kernel = kernel }
  }

  private let configuration: Configuration
  private let memory: MachineMemory
  private let machine: MachineBox
  private let processors: [MachineProcessor]
  private let ports: Ports
  private let console: Console
  /// Waits for the guest's ends of interrupts, and for the host's end.
  private let events: Worker
  private let host: HostCalls
  private let joined: JoinedHost?
  private let end: Promise<MachineEnd>

  /// A box, since several objects need it, which outlive each other in no order.
  final class MachineBox: Sendable {
    let machine: KVMMachine
    /// KVM reads and writes it.
    private let memory: MachineMemory
    private let pages: HostSynICPages?

    init(_ machine: consuming KVMMachine, _ memory: MachineMemory, _ pages: HostSynICPages?) {
      self.machine = machine
      self.memory = memory
      self.pages = pages
    }
  }

  /// Whether KVM can be used here: a machine is made and run.
  public static func checkKVM() throws(MachineError) { try KVM.check() }

  /// Makes the machine, loads the kernel and joins the host; nothing runs yet.
  public init(_ configuration: Configuration) throws(MachineError) {
    self.configuration = configuration
    let count = configuration.processorCount
    guard 1...MachineLayout.maximumProcessors ~= count else { throw .badProcessorCount(count) }
    let isolation = configuration.isolation
    let memory = try MachineMemory(
      byteCount: configuration.memoryByteCount, isIsolated: isolation.isIsolated)
    let kvm = try KVM()
    let new = try kvm.makeMachine()
    try new.setMemory(memory)
    let pages = try Self.hypervisorsPages(isolation, count)
    if let pages { try new.setMemory(pages, behind: memory) }
    if isolation.isIsolated {
      let (first, ghcb) = (GHCBInstructions.firstRegister, GHCBInstructions.register)
      try new.watchRegisters(
        writes: [HypercallPage.register] + (isolation.hasGHCB ? [first] : []),
        all: isolation.hasGHCB ? [ghcb] : [])
    }
    let supported = try kvm.supportedLeaves()
    var processors: [MachineProcessor] = []
    for number in 0..<count {
      let processor = try kvm.makeProcessor(number, of: new)
      try processor.enableSynIC()
      try processor.setLeaves(
        CPUIDLeaves.leaves(
          supported: supported, hyperV: try processor.supportedHyperVLeaves(),
          processor: number, count: count, isolation: isolation))
      if number == 0 { try processor.setStart(try KernelLoader.load(configuration, memory)) }
      let ghcb = isolation.hasGHCB ? pages.map { GHCB(processor: number, $0) } : nil
      processors.append(try MachineProcessor(number, processor, ghcb: ghcb))
    }
    // SINTs can be routed only when their processors have a SynIC.
    try new.setRoutes(InterruptRoutes.table(processorCount: count))
    for processor in processors {
      try new.bindInterrupt(
        MachineLayout.interrupt(ofProcessor: processor.number),
        event: processor.synIC.interrupt.rawValue, ended: processor.synIC.ended.rawValue)
    }
    let machine = MachineBox(new, memory, pages)
    let end = Promise<MachineEnd>()
    let joined = try JoinedHost(
      configuration.hostPath, isolation, memory, processors.map(\.synIC), pages)
    self.memory = memory
    self.machine = machine
    self.processors = processors
    self.joined = joined
    self.end = end
    host = HostCalls(
      joined?.link, memory, logger: configuration.logger, hostLink: joined?.hostLink,
      hostSynICs: joined?.hostSynICs ?? []
    ) { end.keep(.hostGone) }
    do throws(Errno) {
      console = try Console(configuration.console)
      events = try Worker(.init(name: "vm-events", spinRounds: 0))
    } catch {
      throw .memory(error)
    }
    let output = console
    ports = Ports(
      output: { output.put($0) },
      setSerialLine: { machine.machine.setLine(MachineLayout.serialLine, $0) })
  }

  /// Nil of a machine that is not isolated.
  private static func hypervisorsPages(
    _ isolation: GuestIsolation, _ processorCount: Int
  ) throws(MachineError) -> HostSynICPages? {
    guard isolation.isIsolated else { return nil }
    do throws(Errno) {
      return try HostSynICPages(processorCount: processorCount)
    } catch {
      throw .memory(error)
    }
  }

  /// Runs the machine until it ends. It blocks the calling thread, and can be called once.
  public func run() throws(MachineError) -> MachineEnd {
    watchEvents()
    let (machine, end) = (machine, end)
    let logger = configuration.logger
    var handlers = MachineProcessor.Handlers(
      ports: ports, host: host,
      bind: { _ = machine.machine.bindEvent($0, $1) },
      ended: { end.keep($0) },
      guestCrashed: { logger.warning("the guest's kernel has told of a panic") },
      isOver: { end.isKept })
    if configuration.isolation.isIsolated {
      handlers.placeHypercallPage = { [memory] in memory.placeHypercallPage($0) }
    }
    if configuration.isolation.hasGHCB {
      let isDone = Lock(false)
      let kernel = configuration.kernel
      handlers.replaceInstructions = { [memory] in
        isDone.withLock { isDone in
          defer { isDone = true }
          return isDone
            || memory.replaceGHCBInstructions(
              at: kernel.preferredAddress, byteCount: Int(kernel.initialByteCount))
        }
      }
    }
    defer { tearDown() }
    for processor in processors { try processor.start(handlers) }
    return end.wait()
  }

  private func watchEvents() {
    let host = host
    for processor in processors {
      let synIC = processor.synIC
      events.watch(synIC.ended.rawValue) {
        synIC.ended.drain()
        host.interruptEnded(synIC)
      }
    }
    guard let joined else { return }
    for synIC in joined.hostSynICs {
      events.watch(synIC.signalled.rawValue) { synIC.interrupted() }
    }
    let link = joined.link
    let (end, events) = (end, events)
    // Nothing comes on the socket unasked: what wakes this is the host's end.
    events.watch(link.descriptor, hangUpOnly: true) { [weak events] in
      events?.unwatch(link.descriptor)
      end.keep(.hostGone)
    }
  }

  private func tearDown() {
    // For a thread that could not be started.
    end.keep(.stopped)
    for processor in processors { processor.kick() }
    for processor in processors { processor.join() }
    joined?.leave()
    events.stop()
    console.finish()
    let counts = processors.compactMap { $0.ghcb?.hypercallCount }
    if !counts.isEmpty {
      configuration.logger.info("\(counts.reduce(0, +)) hypercalls by GHCB")
    }
  }

  /// Ends the machine, as if its power were cut. From any thread.
  public func stop() { end.keep(.stopped) }

  /// Somebody types at the console.
  public func type(_ bytes: [UInt8]) { ports.receive(bytes) }
}
