// SPDX-License-Identifier: Apache-2.0

import CKVM
import CLinux
import Platform
import Synchronization
import SystemPackage
import VMBus

/// How a machine has ended.
public enum MachineEnd: Equatable, Sendable {
  case powerOff
  case reset
  /// Somebody called `stop`.
  case stopped
  case hostGone
  /// A processor can't go on: a triple fault, or what KVM could not execute.
  case crashed(String)
}

/// A virtual processor, run by a thread of its own.
final class MachineProcessor: Sendable {
  let number: Int
  let synIC: SyntheticInterrupts
  /// Of an SNP machine.
  let ghcb: GHCB?
  private let processor: KVMProcessor
  private let thread = Lock<pthread_t?>(nil)

  /// What a thread does with the exits of its processor.
  struct Handlers: Sendable {
    let ports: Ports
    let host: HostCalls
    /// Binds a connection's doorbell in KVM.
    let bind: @Sendable (UInt32, Int32) -> Void
    let ended: @Sendable (MachineEnd) -> Void
    let guestCrashed: @Sendable () -> Void
    let isOver: @Sendable () -> Bool
    /// Of an isolated machine: lays the hypercall page that the guest has asked for over KVM's.
    var placeHypercallPage: (@Sendable (_ register: UInt64) -> Bool)?
    /// Of an SNP machine: replaces the instructions that reach the hypervisor, once.
    var replaceInstructions: (@Sendable () -> Bool)?
  }

  init(
    _ number: Int, _ processor: consuming KVMProcessor, ghcb: GHCB? = nil
  ) throws(MachineError) {
    self.number = number
    self.processor = processor
    self.ghcb = ghcb
    synIC = try SyntheticInterrupts(number)
  }

  /// The thread's argument.
  private final class Start {
    let processor: MachineProcessor
    let handlers: Handlers

    init(_ processor: MachineProcessor, _ handlers: Handlers) {
      self.processor = processor
      self.handlers = handlers
    }
  }

  func start(_ handlers: Handlers) throws(MachineError) {
    vmbus_kvm_handle_kicks()
    let argument = unsafe Unmanaged.passRetained(Start(self, handlers))
    // Under the lock, so that a kick finds the thread.
    let error = thread.withLock { thread -> Int32 in
      var new = pthread_t()
      let error = unsafe pthread_create(
        &new, nil,
        { argument in
          // Safe: the pointer is the retained object from just above, taken over once.
          let start = unsafe Unmanaged<Start>.fromOpaque(argument.unsafelyUnwrapped)
            .takeRetainedValue()
          unsafe vmbus_name_thread("vcpu-\(start.processor.number)")
          vmbus_kvm_allow_kicks()
          start.processor.loop(start.handlers)
          return nil
        }, argument.toOpaque())
      if error == 0 { thread = new }
      return error
    }
    guard error == 0 else {
      unsafe argument.release()
      throw .unusable(step: "start a thread", Errno(rawValue: error))
    }
  }

  /// Lets the thread see that the machine is over. From any thread.
  func kick() {
    processor.endRun()
    thread.withLock { if let thread = $0 { vmbus_kvm_kick(thread) } }
  }

  /// Waits for the thread's end, once.
  func join() {
    if let thread = thread.withLock({ $0 }) { _ = pthread_join(thread, nil) }
  }

  // MARK: - On the thread

  private func loop(_ handlers: Handlers) {
    while !handlers.isOver() {
      do throws(Errno) {
        if let end = unsafe handle(try processor.run(), handlers) { return handlers.ended(end) }
      } catch .interrupted {
        continue
      } catch .resourceTemporarilyUnavailable {
        continue
      } catch {
        return handlers.ended(.crashed("processor \(number): \(error)"))
      }
    }
  }

  /// Returns how the machine ends, when it does.
  private func handle(_ exit: vmbus_kvm_exit, _ handlers: Handlers) -> MachineEnd? {
    switch unsafe Int32(exit.reason) {
    case KVM_EXIT_IO:
      let port = unsafe UInt16(truncatingIfNeeded: exit.address)
      if port == MachineLayout.visibilityPort, handlers.placeHypercallPage != nil {
        return changeVisibility(handlers)
      }
      if port == MachineLayout.exitPort, let ghcb {
        return ghcb.exit(handlers.host).map { .crashed("processor \(number): \($0)") }
      }
      return unsafe access(exit, handlers.ports)
    case KVM_EXIT_X86_RDMSR: processor.setRegisterResult(ghcb?.register)
    case KVM_EXIT_X86_WRMSR: return unsafe writeRegister(exit, handlers)
    case KVM_EXIT_MMIO:
      // Nothing lies there.
      if unsafe !exit.is_write { unsafe exit.data?.initialize(repeating: 0xFF, count: 8) }
    case KVM_EXIT_HYPERV: unsafe handleHyperV(exit, handlers)
    case KVM_EXIT_HLT, KVM_EXIT_INTR: break
    case KVM_EXIT_SHUTDOWN: return .crashed("processor \(number): triple fault")
    case KVM_EXIT_SYSTEM_EVENT: return unsafe systemEvent(exit.detail, handlers)
    case let reason:
      return unsafe .crashed("processor \(number): exit \(reason), \(exit.detail)")
    }
    return nil
  }

  private func access(_ exit: vmbus_kvm_exit, _ ports: Ports) -> MachineEnd? {
    guard let data = unsafe exit.data else { return nil }
    let port = unsafe UInt16(truncatingIfNeeded: exit.address)
    let size = unsafe min(Int(exit.size), 4)
    for index in 0..<Int(unsafe exit.count) {
      // Safe: KVM's shared page holds `count` accesses of `size` bytes.
      let place = unsafe data + index * size
      if unsafe exit.is_write {
        var value: UInt32 = 0
        for byte in 0..<size { value |= unsafe UInt32(place[byte]) << UInt32(8 * byte) }
        switch ports.write(port, value) {
        case .powerOff: return .powerOff
        case .reset: return .reset
        case nil: break
        }
      } else {
        let value = ports.read(port)
        for byte in 0..<size {
          unsafe place[byte] = UInt8(truncatingIfNeeded: value >> UInt32(8 * byte))
        }
      }
    }
    return nil
  }

  private func handleHyperV(_ exit: vmbus_kvm_exit, _ handlers: Handlers) {
    switch unsafe Int32(exit.hyperv) {
    case KVM_EXIT_HYPERV_SYNIC:
      handlers.host.setSynIC(
        synIC,
        unsafe SynICRegisters(
          control: exit.control, messagePage: exit.message_page,
          eventFlagsPage: exit.event_flags_page))
    case KVM_EXIT_HYPERV_HCALL:
      let status = unsafe handlers.host.hypercall(
        input: exit.input, parameter: exit.parameter, bind: handlers.bind)
      processor.setHypercallResult(UInt64(status.rawValue))
    default: break
    }
  }

  /// A visibility call of an isolated machine's guest.
  private func changeVisibility(_ handlers: Handlers) -> MachineEnd? {
    do throws(Errno) {
      var registers = try processor.registers
      registers.rax = handlers.host.changeVisibility(input: registers.rcx, parameter: registers.rdx)
      try processor.setRegisters(registers)
      return nil
    } catch {
      return .crashed("processor \(number): its registers: \(error)")
    }
  }

  /// A register that is watched, in an isolated machine.
  private func writeRegister(_ exit: vmbus_kvm_exit, _ handlers: Handlers) -> MachineEnd? {
    let (register, value) = unsafe (UInt32(truncatingIfNeeded: exit.address), exit.parameter)
    if register == GHCBInstructions.register, let ghcb {
      ghcb.register = value
      processor.setRegisterResult(0)
      return nil
    }
    guard processor.writeRegister(register, value) else { return nil }
    switch register {
    case HypercallPage.register:
      guard let place = handlers.placeHypercallPage, !place(value) else { return nil }
      return .crashed("processor \(number): KVM's hypercall page is unknown")
    case GHCBInstructions.firstRegister:
      guard let replace = handlers.replaceInstructions, !replace() else { return nil }
      return .crashed("the kernel's way to a GHCB was not found: is it booted with nokaslr?")
    default: return nil
    }
  }

  private func systemEvent(_ type: UInt64, _ handlers: Handlers) -> MachineEnd? {
    switch type {
    case UInt64(KVM_SYSTEM_EVENT_SHUTDOWN): return .powerOff
    case UInt64(KVM_SYSTEM_EVENT_RESET): return .reset
    case UInt64(KVM_SYSTEM_EVENT_CRASH):
      // The guest tells of its panic, and goes on to do what it does then.
      handlers.guestCrashed()
      return nil
    default: return .crashed("processor \(number): system event \(type)")
    }
  }
}
