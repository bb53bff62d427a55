// SPDX-License-Identifier: Apache-2.0

import Platform
import Synchronization
import SystemPackage
import VMBus

/// The registers of a SynIC, as KVM tells them. All of it is the guest's word.
struct SynICRegisters: Equatable {
  /// Bit 0: the controller works.
  var control: UInt64 = 0
  /// Bit 0: the page is enabled. Bits 12 and up: where it lies.
  var messagePage: UInt64 = 0
  var eventFlagsPage: UInt64 = 0

  private static func page(_ register: UInt64) -> GPN? {
    register & 1 != 0 ? register >> 12 : nil
  }

  private var isEnabled: Bool { control & 1 != 0 }
  /// The pages that the host may write to. KVM raises no interrupt of a controller that is off.
  var enabledMessagePage: GPN? { isEnabled ? Self.page(messagePage) : nil }
  var enabledEventFlagsPage: GPN? { isEnabled ? Self.page(eventFlagsPage) : nil }
}

/// The SynIC of one virtual processor, between KVM and the host.
final class SyntheticInterrupts: Sendable {
  let processor: Int
  /// The host signals it, and KVM raises the SINT.
  let interrupt: EventDescriptor
  /// KVM signals it when the guest has ended the SINT, or wrote EOM.
  let ended: EventDescriptor
  private let registers = Lock(SynICRegisters())

  init(_ processor: Int) throws(MachineError) {
    self.processor = processor
    do throws(Errno) {
      interrupt = try EventDescriptor()
      ended = try EventDescriptor()
    } catch {
      throw .memory(error)
    }
  }

  /// The guest wrote a register.
  ///
  /// - Returns: whether the host's pages are others now.
  func set(_ new: SynICRegisters) -> Bool {
    registers.withLock { registers in
      let isOther =
        new.enabledMessagePage != registers.enabledMessagePage
        || new.enabledEventFlagsPage != registers.enabledEventFlagsPage
      registers = new
      return isOther
    }
  }

  var messagePage: GPN? { registers.withLock { $0.enabledMessagePage } }
  var eventFlagsPage: GPN? { registers.withLock { $0.enabledEventFlagsPage } }

  /// Whether the guest has emptied the slot of the VMBus and the host waits for that. The guest ends
  /// an interrupt far more often, for each channel that is signalled.
  func hasEndedMessage(_ memory: MachineMemory) -> Bool {
    guard let page = registers.withLock({ $0.enabledMessagePage }) else { return false }
    let (base, overflow) = page.multipliedReportingOverflow(by: 4096)
    let slot = base &+ UInt64(SynIC.messageSlotOffset(sint: SynIC.vmbusSINT))
    guard !overflow, let type = memory.word(slot), type == SynIC.noMessage,
      let second = memory.word(slot &+ 4)
    else { return false }
    // The flags are the second byte of the second word.
    return UInt8(truncatingIfNeeded: second >> 8) & SynICMessageHeader.messagePending != 0
  }
}
