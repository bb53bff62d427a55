// SPDX-License-Identifier: Apache-2.0

import Platform
import SimulatedLink
import Synchronization
import SystemPackage
import VMBus

/// What a processor of an SNP machine has of its hypervisor past its paravisor: a page that both see, the
/// register that says where it lies, and behind it the hypervisor's own registers: of its SynIC, and the guest's
/// name. Nothing follows from what is written there: the guest's interrupts are its paravisor's.
/// (AMD's "SEV-ES Guest-Hypervisor Communication Block Standardization"; the layout for hypercalls is
/// Microsoft's, Linux: `union hv_ghcb`.)
@safe
final class GHCB: Sendable {
  private let pages: HostSynICPages
  /// Where in their file the page lies.
  private let offset: Int
  /// Where the guest has the page.
  let address: UInt64
  private let state: Lock<State>

  private struct State {
    var register: UInt64
    var hypercallCount = 0
    /// The hypervisor's, by number.
    var registers: [UInt32: UInt64]
  }

  /// Offsets in the page.
  enum Layout {
    static let rax = 0x1F8
    static let rcx = 0x308
    static let rdx = 0x310
    static let exitCode = 0x390
    /// Of a register's access: 1 for a write. The answer is 0 when all went well.
    static let exitInformation = 0x398
    static let usage = 0xFFC
  }

  /// In `usage`: a hypercall of Hyper-V, laid out as `GHCBHypercall` says.
  static let hypercallUsage: UInt32 = 1
  static let registerExit: UInt64 = 0x7C

  /// Numbers of the hypervisor's registers, and of two of its SynIC.
  enum Register {
    static let eventFlagsPage: UInt32 = 0x4000_0082
    static let messagePage: UInt32 = 0x4000_0083
    static let all: ClosedRange<UInt32> = 0x4000_0000...0x4000_00FF
  }

  /// - Parameter processor: whose it is.
  init(processor: Int, _ pages: HostSynICPages) {
    self.pages = pages
    offset = pages.offset(ofGHCB: processor)
    address = HostSynICPages.guestAddress + UInt64(offset)
    state = Lock(
      State(
        register: address,
        registers: [
          Register.messagePage: Self.register(
            HostSynICPages.messagePage(ofProcessor: processor)),
          Register.eventFlagsPage: Self.register(
            HostSynICPages.eventFlagsPage(ofProcessor: processor)),
        ]))
  }

  /// Safe to use for a page, as long as this object lives.
  @unsafe
  private var start: UnsafeMutableRawPointer { unsafe pages.start + offset }

  /// The host says where its pages lie; the guest enables them.
  private static func register(_ page: GPN) -> UInt64 { page * 4096 | MachineLayout.boundary }

  var register: UInt64 {
    get { state.withLock { $0.register } }
    set { state.withLock { $0.register = newValue } }
  }

  var hypercallCount: Int { state.withLock { $0.hypercallCount } }

  /// The guest has left for the hypervisor.
  ///
  /// - Returns: why it can't go on, if so.
  func exit(_ host: HostCalls) -> String? {
    let register = register
    guard register & 0xFFF == 0 else { return negotiate(register) }
    guard register == address else { return "its GHCB is at 0x\(String(register, radix: 16))" }
    if word(Layout.usage, as: UInt32.self) == Self.hypercallUsage {
      let input = word(GHCBHypercall.codeOffset, as: UInt64.self)
      // Safe: within the page, and copied before it is looked at.
      let data = unsafe [UInt8](
        UnsafeRawBufferPointer(start: start, count: PostedMessage.inputByteCount))
      state.withLock { $0.hypercallCount += 1 }
      let status = host.hypercall(input: input & 0xFFFF, data: data)
      set(GHCBHypercall.codeOffset, UInt64(status.rawValue))
      return nil
    }
    let code = word(Layout.exitCode, as: UInt64.self)
    // Linux leaves once with an empty page, when it has negotiated the version.
    guard code != 0 else { return nil }
    guard code == Self.registerExit else { return "exit 0x\(String(code, radix: 16))" }
    let number = UInt32(truncatingIfNeeded: word(Layout.rcx, as: UInt64.self))
    guard Register.all.contains(number) else {
      return "register 0x\(String(number, radix: 16)) by GHCB"
    }
    if word(Layout.exitInformation, as: UInt64.self) & 1 != 0 {
      let value =
        word(Layout.rdx, as: UInt64.self) << 32
        | word(Layout.rax, as: UInt64.self) & 0xFFFF_FFFF
      state.withLock { $0.registers[number] = value }
    } else {
      let value = state.withLock { $0.registers[number] ?? 0 }
      set(Layout.rax, value & 0xFFFF_FFFF)
      set(Layout.rdx, value >> 32)
    }
    set(Layout.exitInformation, 0)
    return nil
  }

  /// Calls that fit into the register. The information is of versions 1 to 2.
  private func negotiate(_ request: UInt64) -> String? {
    guard request == 2 else { return "request 0x\(String(request, radix: 16)) by GHCB" }
    register = 2 << 48 | 1 << 32 | 1
    return nil
  }

  private func word<T: FixedWidthInteger & BitwiseCopyable>(_ offset: Int, as type: T.Type) -> T {
    // Safe: all offsets are those of `Layout`, within the page.
    unsafe T(littleEndian: (start + offset).loadUnaligned(as: T.self))
  }

  private func set(_ offset: Int, _ value: UInt64) {
    unsafe (start + offset).storeBytes(of: value.littleEndian, as: UInt64.self)
  }
}
