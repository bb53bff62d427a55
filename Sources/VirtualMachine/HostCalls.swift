// SPDX-License-Identifier: Apache-2.0

import Logging
import Platform
import SimulatedLink
import Synchronization
import SystemPackage
import VMBus

/// What the machine tells its host: the same calls as of any other guest.
final class HostCalls: Sendable {
  let link: GuestLink?
  /// The way to the host past a paravisor, where there is one.
  private let hostLink: GuestLink?
  let memory: MachineMemory
  let logger: Logger
  /// Called once, when a call found no host any more.
  let gone: @Sendable () -> Void
  /// Of an isolated machine, by processor: SynIC pages that the host has in place of the guest's.
  private let hostSynICs: [HostSynIC]
  /// Doorbells by connection id, of whoever the machine has joined and of the host past it. They live as long as the machine: KVM has most of them.
  private let doorbells = Lock<[UInt32: Doorbell]>([:])
  private let hostDoorbells = Lock<[UInt32: Doorbell]>([:])

  /// A box, since dictionaries hold no noncopyable values.
  private final class Doorbell: Sendable {
    let event: EventDescriptor

    init(_ descriptor: consuming OwnedDescriptor) { event = EventDescriptor(descriptor) }
  }

  /// - Parameter link: nil for a machine without a host: its bus has nobody to talk to.
  init(
    _ link: GuestLink?, _ memory: MachineMemory, logger: Logger, hostLink: GuestLink? = nil,
    hostSynICs: [HostSynIC] = [], gone: @escaping @Sendable () -> Void
  ) {
    self.hostSynICs = hostSynICs
    self.link = link
    self.hostLink = hostLink
    self.memory = memory
    self.logger = logger
    self.gone = gone
  }

  /// - Returns: what the guest gets in its register.
  func hypercall(
    input: UInt64, parameter: UInt64, bind: (UInt32, Int32) -> Void
  ) -> HypercallStatus {
    do throws(HypercallRefusal) {
      switch try Hypercall.decode(input: input, parameter: parameter).get() {
      case .postMessage(let address): return try post(address)
      case .signalEvent(let connectionID): return try signal(connectionID, bind)
      case .signalEventInMemory(let address):
        guard let bytes = memory.read(address, count: 8) else {
          throw HypercallRefusal(.invalidParameter)
        }
        return try signal(Self.connection(bytes), bind)
      }
    } catch {
      logger.debug(
        "hypercall refused: \(error.status)",
        metadata: ["input": "0x\(String(input, radix: 16))"])
      return error.status
    }
  }

  /// A hypercall whose input came with it, by a GHCB. KVM knows nothing of it.
  ///
  /// Linux signals by GHCB whether a channel is its paravisor's or its host's: the numbers of their
  /// connections differ, and a signal that nobody waits for does nothing.
  func hypercall(input: UInt64, data: [UInt8]) -> HypercallStatus {
    do throws(HypercallRefusal) {
      switch try Hypercall.decode(input: input, parameter: 0).get() {
      case .postMessage: return try post(data)
      case .signalEventInMemory:
        let connection = try Self.connection(data)
        if hostLink != nil { _ = try signal(connection, hostLink, hostDoorbells) { _, _ in } }
        return try signal(connection, link, doorbells) { _, _ in }
      // There are no registers.
      case .signalEvent: throw HypercallRefusal(.invalidInput)
      }
    } catch {
      logger.debug(
        "hypercall by GHCB refused: \(error.status)",
        metadata: ["input": "0x\(String(input, radix: 16))"])
      return error.status
    }
  }

  /// HvSignalEvent's input, of 8 bytes.
  private static func connection(_ bytes: [UInt8]) throws(HypercallRefusal) -> UInt32 {
    let input = bytes.prefix(8).reversed().reduce(0 as UInt64) { $0 << 8 | UInt64($1) }
    return try Hypercall.connection(of: input).get()
  }

  private func post(_ address: UInt64) throws(HypercallRefusal) -> HypercallStatus {
    guard let input = memory.read(address, count: PostedMessage.inputByteCount) else {
      throw HypercallRefusal(.invalidParameter)
    }
    return try post(input)
  }

  private func post(_ input: [UInt8]) throws(HypercallRefusal) -> HypercallStatus {
    let (message, payload) = try PostedMessage.parse(input).get()
    guard let link else { return .invalidConnectionID }
    do throws(LinkError) {
      return try link.postMessage(
        connectionID: message.connectionID, messageType: message.type, payload)
    } catch {
      throw refusal(error)
    }
  }

  /// The first signal of a connection comes here, the others go from KVM to the host.
  private func signal(
    _ connectionID: UInt32, _ bind: (UInt32, Int32) -> Void
  ) throws(HypercallRefusal) -> HypercallStatus {
    try signal(connectionID, link, doorbells, bind)
  }

  private func signal(
    _ connectionID: UInt32, _ link: GuestLink?, _ doorbells: borrowing Lock<[UInt32: Doorbell]>,
    _ bind: (UInt32, Int32) -> Void
  ) throws(HypercallRefusal) -> HypercallStatus {
    guard let link else { return .invalidConnectionID }
    if let known = doorbells.withLock({ $0[connectionID] }) {
      known.event.signalWithoutBlocking()
      return .success
    }
    do throws(LinkError) {
      let doorbell = Doorbell(try link.bindEvent(connectionID))
      doorbells.withLock { $0[connectionID] = doorbell }
      logger.debug("connection \(connectionID) has a doorbell")
      bind(connectionID, doorbell.event.rawValue)
      doorbell.event.signalWithoutBlocking()
      return .success
    } catch {
      throw refusal(error)
    }
  }

  private func refusal(_ error: LinkError) -> HypercallRefusal {
    switch error {
    case .refused(let status): return HypercallRefusal(status)
    case .hostGone:
      gone()
      return HypercallRefusal(.insufficientBuffers)
    }
  }

  /// The guest wrote a register of a SynIC.
  func setSynIC(_ synIC: SyntheticInterrupts, _ registers: SynICRegisters) {
    guard synIC.set(registers), let link else { return }
    if let host = hostSynIC(of: synIC), host.takesMessages { return host.deliver() }
    do throws(LinkError) {
      try link.setSynIC(
        processor: synIC.processor, messagePage: registers.enabledMessagePage,
        eventFlagsPage: registers.enabledEventFlagsPage)
    } catch .hostGone {
      gone()
    } catch {
      // The guest named a page that is no memory of its own: it gets no messages there.
      logger.warning("the host refused a SynIC of processor \(synIC.processor): \(error)")
    }
  }

  /// The guest has ended an interrupt.
  func interruptEnded(_ synIC: SyntheticInterrupts) {
    if let host = hostSynIC(of: synIC), host.takesMessages { return host.deliver() }
    guard let link, synIC.hasEndedMessage(memory) else { return }
    do throws(LinkError) { try link.endOfMessage(processor: synIC.processor) } catch { gone() }
  }

  private func hostSynIC(of synIC: SyntheticInterrupts) -> HostSynIC? {
    hostSynICs.isEmpty ? nil : hostSynICs[synIC.processor]
  }
}
