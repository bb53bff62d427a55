// SPDX-License-Identifier: Apache-2.0

import CKVM
import Platform
import SystemPackage

/// The kernel's virtual machine monitor.
struct KVM: ~Copyable, Sendable {
  private let system: OwnedDescriptor

  init() throws(MachineError) { system = try Self.open() }

  private static func open() throws(MachineError) -> OwnedDescriptor {
    let opened = vmbus_kvm_open()
    switch opened {
    case -EACCES, -EPERM: throw .noRights
    case -ENOENT, -ENXIO, -ENODEV: throw .noKVM
    default: break
    }
    let system = OwnedDescriptor(owning: try step("open /dev/kvm", opened))
    guard vmbus_kvm_version(system.rawValue) == 12 else { throw .lacking("interface 12") }
    let needed: [(Int32, String)] = [
      (KVM_CAP_HYPERV_SYNIC2, "Hyper-V SynIC"), (KVM_CAP_HYPERV_CPUID, "Hyper-V CPUID"),
      (KVM_CAP_HYPERV_EVENTFD, "Hyper-V event signals"), (KVM_CAP_IRQFD_RESAMPLE, "resampling"),
      (KVM_CAP_IMMEDIATE_EXIT, "immediate exit"), (KVM_CAP_IRQ_ROUTING, "interrupt routing"),
    ]
    for (capability, name) in needed where vmbus_kvm_capability(system.rawValue, capability) <= 0 {
      throw .lacking(name)
    }
    return system
  }

  func makeMachine() throws(MachineError) -> KVMMachine {
    let machine = OwnedDescriptor(
      owning: try step("make a machine", vmbus_kvm_create_machine(system.rawValue)))
    try step(
      "make its chips", vmbus_kvm_create_chips(machine.rawValue, MachineLayout.taskState))
    return KVMMachine(machine)
  }

  func makeProcessor(_ number: Int, of machine: borrowing KVMMachine) throws(MachineError)
    -> KVMProcessor
  {
    let processor = OwnedDescriptor(
      owning: try step(
        "make a processor", vmbus_kvm_create_processor(machine.rawValue, Int32(number))))
    return try KVMProcessor(processor, system: system.rawValue)
  }

  /// What CPUID can tell a guest here.
  func supportedLeaves() throws(MachineError) -> [vmbus_kvm_cpuid] {
    unsafe try leaves("CPUID") { unsafe vmbus_kvm_supported_cpuid(system.rawValue, $0) }
  }
}

/// Turns the `-errno` of the shims into an error that names what was tried.
@discardableResult
func step(_ name: String, _ result: Int32) throws(MachineError) -> Int32 {
  guard result >= 0 else { throw .unusable(step: name, Errno(rawValue: -result)) }
  return result
}

private func leaves(
  _ name: String, _ body: (UnsafeMutablePointer<vmbus_kvm_cpuid>) -> Int32
) throws(MachineError) -> [vmbus_kvm_cpuid] {
  var entries = [vmbus_kvm_cpuid](
    repeating: vmbus_kvm_cpuid(), count: Int(VMBUS_KVM_MAX_CPUID))
  let count = unsafe entries.withUnsafeMutableBufferPointer {
    unsafe body($0.baseAddress.unsafelyUnwrapped)
  }
  return Array(entries.prefix(Int(try step(name, count))))
}

/// A machine of KVM.
struct KVMMachine: ~Copyable, Sendable {
  private let owned: OwnedDescriptor

  init(_ owned: consuming OwnedDescriptor) { self.owned = owned }

  var rawValue: Int32 { owned.rawValue }

  /// The memory must outlive the machine.
  func setMemory(_ memory: MachineMemory) throws(MachineError) {
    for (slot, part) in memory.parts.enumerated() {
      try step(
        "give it memory",
        unsafe vmbus_kvm_set_memory(
          rawValue, UInt32(slot), part.address, memory.start(ofPartAt: part.offset),
          part.byteCount))
    }
    guard let visible = memory.hostVisible else { return }
    // The same addresses with the boundary bit are other memory.
    for (number, part) in memory.parts.enumerated() {
      try step(
        "give it host-visible memory",
        unsafe vmbus_kvm_set_memory(
          rawValue, UInt32(memory.parts.count + number), part.address | MachineLayout.boundary,
          visible.start(at: part.offset), part.byteCount))
    }
  }

  /// The hypervisor's pages of an isolated machine, which its guest reaches past the boundary. They must
  /// outlive the machine.
  func setMemory(_ pages: HostSynICPages, behind memory: MachineMemory) throws(MachineError) {
    try step(
      "give it the host's pages",
      unsafe vmbus_kvm_set_memory(
        rawValue, UInt32(2 * memory.parts.count), HostSynICPages.guestAddress, pages.start,
        UInt64(pages.byteCount)))
  }

  /// From now on processors stop when their guest writes one of these registers, or reads one of `all`.
  func watchRegisters(writes: [UInt32], all: [UInt32]) throws(MachineError) {
    let needed: [(Int32, String)] = [
      (KVM_CAP_X86_USER_SPACE_MSR, "exits for registers"),
      (KVM_CAP_X86_MSR_FILTER, "filter of registers"),
    ]
    for (capability, name) in needed where vmbus_kvm_capability(rawValue, capability) <= 0 {
      throw .lacking(name)
    }
    try step(
      "watch its registers",
      unsafe vmbus_kvm_watch_registers(rawValue, writes + all, writes.count, all.count))
  }

  func setRoutes(_ routes: [vmbus_kvm_route]) throws(MachineError) {
    try step("route its interrupts", unsafe vmbus_kvm_set_routes(rawValue, routes, routes.count))
  }

  /// From now on `event` raises the interrupt, and `ended` is signalled when the guest has ended it.
  func bindInterrupt(_ number: UInt32, event: Int32, ended: Int32) throws(MachineError) {
    try step(
      "bind its interrupts", vmbus_kvm_bind_interrupt(rawValue, number, event, ended))
  }

  /// Sets the level of a pin; it can't fail for a pin that is routed.
  func setLine(_ line: UInt32, _ level: Bool) { _ = vmbus_kvm_set_line(rawValue, line, level) }

  /// From now on HvSignalEvent for that connection signals the eventfd without an exit. Returns
  /// false when that can't be had, or another processor has been faster.
  func bindEvent(_ connectionID: UInt32, _ event: Int32) -> Bool {
    vmbus_kvm_bind_event(rawValue, connectionID, event) == 0
  }
}

/// A processor of KVM. All but `endRun` belongs to its thread, once that runs.
@safe
struct KVMProcessor: ~Copyable, @unchecked Sendable {
  private let owned: OwnedDescriptor
  /// What KVM and the thread share.
  private let page: UnsafeMutableRawPointer
  private let pageByteCount: Int

  init(_ owned: consuming OwnedDescriptor, system: Int32) throws(MachineError) {
    var count = 0
    let page = unsafe try Self.mapped(owned.rawValue, system, &count)
    self.owned = owned
    unsafe self.page = page
    pageByteCount = count
  }

  @unsafe
  private static func mapped(
    _ processor: Int32, _ system: Int32, _ count: inout Int
  ) throws(MachineError) -> UnsafeMutableRawPointer {
    var error: Int32 = 0
    guard let page = unsafe vmbus_kvm_map_run(system, processor, &count, &error) else {
      throw .unusable(step: "map a processor", Errno(rawValue: error))
    }
    return unsafe page
  }

  deinit { unsafe _ = munmap(page, pageByteCount) }

  func enableSynIC() throws(MachineError) {
    try step("enable a SynIC", vmbus_kvm_enable_synic(owned.rawValue))
  }

  /// Hyper-V's leaves, once the SynIC is enabled.
  func supportedHyperVLeaves() throws(MachineError) -> [vmbus_kvm_cpuid] {
    unsafe try leaves("Hyper-V's CPUID") {
      unsafe vmbus_kvm_supported_hyperv_cpuid(owned.rawValue, $0)
    }
  }

  func setLeaves(_ leaves: [vmbus_kvm_cpuid]) throws(MachineError) {
    try step("set CPUID", unsafe vmbus_kvm_set_cpuid(owned.rawValue, leaves, leaves.count))
  }

  func setStart(_ start: vmbus_kvm_start) throws(MachineError) {
    var start = start
    try step("set its registers", unsafe vmbus_kvm_set_start(owned.rawValue, &start))
  }

  /// Runs it until something is to be done for it; `interrupted` when it was kicked.
  func run() throws(Errno) -> vmbus_kvm_exit {
    var exit = unsafe vmbus_kvm_exit()
    try checked(unsafe vmbus_kvm_run(owned.rawValue, page, &exit))
    return unsafe exit
  }

  func setHypercallResult(_ result: UInt64) { unsafe vmbus_kvm_set_hypercall_result(page, result) }

  /// The registers of a processor that has stopped; what a port was read for is not there yet.
  var registers: vmbus_kvm_general {
    get throws(Errno) {
      var registers = vmbus_kvm_general()
      try checked(unsafe vmbus_kvm_get_general(owned.rawValue, &registers))
      return registers
    }
  }

  func setRegisters(_ registers: vmbus_kvm_general) throws(Errno) {
    var registers = registers
    try checked(unsafe vmbus_kvm_set_general(owned.rawValue, &registers))
  }

  /// For a guest that has stopped at a register that is not KVM's.
  ///
  /// - Parameter value: what it reads, 0 for a write; nil lets its instruction fail.
  func setRegisterResult(_ value: UInt64?) {
    unsafe vmbus_kvm_set_register_result(page, value == nil, value ?? 0)
  }

  /// Writes a register for the guest, whose own write has stopped the processor; when KVM refuses the
  /// value, the guest's instruction fails.
  func writeRegister(_ index: UInt32, _ value: UInt64) -> Bool {
    let isWritten = vmbus_kvm_write_register(owned.rawValue, index, value) == 0
    setRegisterResult(isWritten ? 0 : nil)
    return isWritten
  }

  /// Lets `run` return; the thread that is in it must be kicked as well. From any thread.
  func endRun() { unsafe vmbus_kvm_end_run(page) }
}
