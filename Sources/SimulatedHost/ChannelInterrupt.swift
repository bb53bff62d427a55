// SPDX-License-Identifier: Apache-2.0

import Synchronization
import VMBus

/// The interrupt of a channel: a flag of one virtual processor, which the guest may change for
/// another one while the channel is open. The guest looks for the flag on that processor alone.
@safe
final class ChannelInterrupt: @unchecked Sendable {
  // Safe: the processors live as long as this value, and which one it is is atomic.
  private let processors: [GuestSynIC]
  private let flag: UInt16
  /// The address of the processor's SynIC: the device's thread reads it at every signal, without
  /// counting references; 0 when the guest wants no interrupts.
  private let target: Atomic<UInt>

  /// Nil for a processor that the guest has not got.
  init?(_ processors: [GuestSynIC], processor: UInt32, flag: UInt16) {
    self.processors = processors
    self.flag = flag
    if processor == OpenChannel.interruptsDisabledVP {
      target = Atomic(0)
    } else {
      guard processor < processors.count else { return nil }
      target = Atomic(Self.address(processors[Int(processor)]))
    }
  }

  private static func address(_ synIC: GuestSynIC) -> UInt {
    unsafe UInt(bitPattern: Unmanaged.passUnretained(synIC).toOpaque())
  }

  /// Moves it to another processor; false when the guest has not got that one.
  func move(to processor: UInt32) -> Bool {
    guard processor < processors.count else { return false }
    target.store(Self.address(processors[Int(processor)]), ordering: .sequentiallyConsistent)
    return true
  }

  func signal() {
    let address = target.load(ordering: .relaxed)
    guard let pointer = unsafe UnsafeRawPointer(bitPattern: address) else { return }
    unsafe Unmanaged<GuestSynIC>.fromOpaque(pointer)._withUnsafeGuaranteedRef {
      $0.setEventFlag(flag)
    }
  }
}
